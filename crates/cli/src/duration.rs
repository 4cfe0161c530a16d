//! Durations on the command line.

use std::time::Duration;

/// `500ms`, `5s`, `2m`, `1h`.
///
/// ```text
/// number unit, without a space; the number may have decimals
/// ```
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds_per_unit = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("{text:?} is no duration: give a number and a unit, us, ms, s, m or h")),
    };
    let number: f64 = number.parse().map_err(|_| format!("{text:?} does not begin with a number"))?;
    let seconds = number * seconds_per_unit;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if seconds <= 7.0 * 24.0 * 3600.0 => Ok(duration),
        _ => Err(format!("{text:?} is longer than a week")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_understood() {
        for (text, ms) in [("500ms", 500), ("5s", 5000), ("1.5s", 1500), ("2m", 120_000), ("1h", 3_600_000)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "5", "s", "-1s", "1.2.3s", "1e9h", "99999999h", "5 s", "5d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
