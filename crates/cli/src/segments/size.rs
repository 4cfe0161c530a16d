//! Sizes in bytes, for people.

const UNITS: [(&str, u32); 3] = [("G", 30), ("M", 20), ("K", 10)];

/// `4096`, `64K`, `1M`, `2G`: powers of 1024.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let unit = UNITS.iter().find_map(|&(unit, shift)| Some((text.strip_suffix(unit)?, shift)));
    let (digits, shift) = unit.unwrap_or((text, 0));
    let number: Option<u64> = digits.parse().ok();
    number
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| format!("{text:?} is no size: give a number of bytes, or one with K, M or G"))
}

/// The size in the largest unit that it fills, with one decimal.
pub(crate) fn human(bytes: u64) -> String {
    match UNITS.iter().find(|(_, shift)| bytes >= 1 << shift) {
        Some((unit, shift)) => format!("{:.1} {unit}iB", bytes as f64 / f64::from(1u32 << shift)),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_shown() {
        for (text, bytes) in [("0", 0), ("4096", 4096), ("64K", 65536), ("1M", 1 << 20), ("2G", 2 << 30)] {
            assert_eq!(parse_size(text), Ok(bytes));
        }
        for text in ["", "K", "1k", "-1", "1.5M", "99999999999G"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        assert_eq!(
            (human(12), human(1536), human(5 << 20)),
            ("12 B".into(), "1.5 KiB".into(), "5.0 MiB".into())
        );
    }
}
