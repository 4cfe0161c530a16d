//! Spans of time, for people.

use core::time::Duration;

/// `12 us`, `340 ms`, `1.2 s`, `3 min 20 s`, `2 h 5 min`, `9 d 4 h`: two figures are enough.
pub(crate) fn span(time: Duration) -> String {
    let (us, s) = (time.as_micros(), time.as_secs());
    match s {
        0 if us < 1_000 => format!("{us} us"),
        0 if us < 10_000 => format!("{:.1} ms", tenths(1000 * time)),
        0 => format!("{} ms", us / 1_000),
        1..60 => format!("{:.1} s", tenths(time)),
        60..3_600 => format!("{} min {} s", s / 60, s % 60),
        3_600..86_400 => format!("{} h {} min", s / 3_600, s / 60 % 60),
        _ => format!("{} d {} h", s / 86_400, s / 3_600 % 24),
    }
}

/// The same in at most seven columns: `12us`, `340ms`, `1.2s`, `3m20s`, `2h05m`, `9d04h`.
pub(crate) fn short_span(time: Duration) -> String {
    let (us, s) = (time.as_micros(), time.as_secs());
    match s {
        0 if us < 1_000 => format!("{us}us"),
        0 if us < 10_000 => format!("{:.1}ms", tenths(1000 * time)),
        0 => format!("{}ms", us / 1_000),
        1..60 => format!("{:.1}s", tenths(time)),
        60..3_600 => format!("{}m{:02}s", s / 60, s % 60),
        3_600..86_400 => format!("{}h{:02}m", s / 3_600, s / 60 % 60),
        86_400..86_400_000 => format!("{}d{:02}h", s / 86_400, s / 3_600 % 24),
        _ => "ages".into(),
    }
}

/// Seconds, cut after the first decimal: it lasted at least so long.
fn tenths(time: Duration) -> f64 {
    (time.as_secs_f64() * 10.0).floor() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short_and_never_say_more_than_it_was() {
        let cases = [
            (0, "0 us", "0us"),
            (12_345, "12 us", "12us"),
            (2_599_999, "2.5 ms", "2.5ms"),
            (340_999_999, "340 ms", "340ms"),
            (1_299_999_999, "1.2 s", "1.2s"),
            (59_999_000_000, "59.9 s", "59.9s"),
            (200_000_000_000, "3 min 20 s", "3m20s"),
            (7_500_000_000_000, "2 h 5 min", "2h05m"),
            (792_000_000_000_000, "9 d 4 h", "9d04h"),
            (u64::MAX, "213503 d 23 h", "ages"),
        ];
        for (ns, long, short) in cases {
            let time = Duration::from_nanos(ns);
            assert_eq!((span(time).as_str(), short_span(time).as_str()), (long, short));
        }
    }
}
