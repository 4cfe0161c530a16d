//! The table of locks as lines of text: the same on the screen and in a pipe.

use core::time::Duration;

use crosslock::crosslock_core::Condition;
use crosslock::{LockInfo, ObjectInfo};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::sample::{Report, Row};
use crate::segments::people::who_in_short;
use crate::segments::robust::{is_long, keyword, readers};
use crate::segments::spin::State;
use crate::segments::time::short_span;

/// A column of figures: heading and width.
type Column = (&'static str, usize);

const FIGURES: [Column; 7] =
    [("QUEUE", 5), ("WAIT%", 6), ("ACQ/s", 6), ("CONT%", 5), ("MEAN", 6), ("LONGEST", 7), ("HELD", 7)];
const NAME: &str = "LOCK";
const OWNER: &str = "OWNER";
/// Columns between the columns.
const GAP: usize = 1;
/// The names get at least so many columns, however narrow the screen is.
const LEAST: usize = 10;

/// What deserves attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    None,
    /// Its owner is dead, or nobody can have it.
    Broken,
    /// It has been held for long.
    Long,
}

#[derive(Debug)]
pub(super) struct Table {
    pub(super) head: String,
    pub(super) rows: Vec<(String, Mark)>,
}

/// The figures of a lock, in the order of [`FIGURES`].
fn figures(row: &Row) -> [String; FIGURES.len()] {
    let dash = || "-".to_owned();
    let rate = |of: fn(&super::sample::Rates) -> Option<String>| {
        row.rates.as_ref().and_then(of).unwrap_or_else(dash)
    };
    let time = |time: Option<Duration>| time.map_or_else(dash, short_span);
    [
        row.lock.waiters.len().to_string(),
        rate(|rates| Some(decimal(100.0 * rates.waiting))),
        rate(|rates| Some(count(rates.acquired_per_s))),
        rate(|rates| rates.contended_percent.map(decimal)),
        rate(|rates| rates.mean_wait.map(short_span)),
        time(row.longest_wait()),
        time(row.held),
    ]
}

/// Who has it, or why nobody has.
fn owner(lock: &LockInfo) -> String {
    let owner = lock.owner.as_ref().map(who_in_short).unwrap_or_default();
    match keyword(lock) {
        "held" => owner,
        "owner dead" => format!("DEAD {owner}"),
        "reserved" => format!("for {owner}"),
        "read" if readers(lock) == 1 => "1 reader".into(),
        "read" => format!("{} readers", readers(lock)),
        "free" => match lock.condition() {
            Some(Condition { owner_died: true, .. }) => "free, one died".into(),
            Some(Condition { poisoned: true, .. }) => "free, panicked".into(),
            _ => "-".into(),
        },
        broken => broken.to_uppercase(),
    }
}

fn mark(row: &Row, long: Duration) -> Mark {
    match keyword(&row.lock) {
        "owner dead" | "not recoverable" | "damaged" => Mark::Broken,
        _ if is_long(&row.lock, long) || row.held.is_some_and(|held| held >= long) => Mark::Long,
        _ => Mark::None,
    }
}

impl Table {
    /// As wide as it needs to be, or fit for a screen of `width` columns, on which names are cut.
    pub(super) fn new(report: &Report, long: Duration, width: Option<usize>) -> Self {
        let locks: Vec<_> =
            report.locks.iter().map(|row| (row.lock.object.name.as_str(), owner(&row.lock), row)).collect();
        let others: Vec<_> =
            report.others.iter().filter_map(|object| Some((object, spin_lock(object)?))).collect();
        let names = locks.iter().map(|lock| lock.0).chain(others.iter().map(|other| other.0.name.as_str()));
        let widest_name = names.map(UnicodeWidthStr::width).max().unwrap_or(0).max(NAME.len());
        let widest_owner = locks.iter().map(|lock| lock.1.width()).max().unwrap_or(0).max(OWNER.len());
        let (name, owner) = share(widest_name, widest_owner, width);

        let mut head = format!("{} {}", fit(NAME, name), fit(OWNER, owner));
        FIGURES.iter().for_each(|(heading, width)| head += &format!(" {heading:>width$}"));
        let robust = locks.iter().map(|(lock, owned, row)| {
            let mut line = format!("{} {}", fit(lock, name), fit(owned, owner));
            for (figure, (_, width)) in figures(row).iter().zip(FIGURES) {
                line += &format!(" {figure:>width$}");
            }
            (line, mark(row, long))
        });
        let others = others.iter().map(|(object, state)| {
            let line = format!("{} {state}", fit(&object.name, name));
            (width.map_or_else(|| line.clone(), |width| fit(&line, width)).trim_end().to_owned(), Mark::None)
        });
        Self { rows: robust.chain(others).collect(), head }
    }
}

/// A spin lock says nothing but its word.
fn spin_lock(object: &ObjectInfo) -> Option<String> {
    State::of(object).map(|state| format!("{}: {state}", object.ty.kind))
}

/// How wide the columns of names and of owners are.
fn share(name: usize, owner: usize, width: Option<usize>) -> (usize, usize) {
    let Some(width) = width else { return (name, owner) };
    let figures: usize = FIGURES.iter().map(|(_, width)| GAP + width).sum();
    let room = width.saturating_sub(figures + GAP).max(2 * LEAST);
    if name + owner <= room {
        return (room - owner, owner);
    }
    let name = name.min(room.saturating_sub(owner).max(room * 2 / 5));
    (name, room - name)
}

/// Cut or filled to that many columns.
pub(super) fn fit(text: &str, width: usize) -> String {
    let len = text.width();
    if len <= width {
        return format!("{text}{}", " ".repeat(width - len));
    }
    let (mut cut, mut used) = (String::new(), 0);
    for c in text.chars() {
        let wide = c.width().unwrap_or(0);
        if used + wide + 1 > width {
            break;
        }
        cut.push(c);
        used += wide;
    }
    format!("{cut}~{}", " ".repeat(width.saturating_sub(used + 1)))
}

/// At most six columns, for any rate that a machine can have.
pub(super) fn count(rate: f64) -> String {
    match rate {
        ..=0.0 => "0".into(),
        ..0.05 => "<0.1".into(),
        ..9.95 => format!("{rate:.1}"),
        ..99_999.5 => format!("{rate:.0}"),
        ..999_950.0 => format!("{:.0}k", rate / 1e3),
        ..999_950_000.0 => format!("{:.1}M", rate / 1e6),
        _ => "many".into(),
    }
}

/// At most six columns.
pub(super) fn decimal(figure: f64) -> String {
    match figure {
        ..=0.0 => "0".into(),
        ..0.05 => "<0.1".into(),
        ..99.95 => format!("{figure:.1}"),
        ..999_999.5 => format!("{figure:.0}"),
        _ => "many".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_fit_their_columns() {
        let rates = [0.0, 0.04, 0.1, 9.96, 99.94, 99.96, 12_345.6, 99_999.6, 1e6, 9.9994e8, 1e12, f64::MAX];
        for rate in rates {
            assert!(count(rate).len() <= 6 && decimal(rate).len() <= 6, "{rate}");
        }
        assert_eq!((count(1_234_567.0), decimal(4.25)), ("1.2M".into(), "4.2".into()));
        assert_eq!((count(0.0), decimal(0.01)), ("0".into(), "<0.1".into()));
    }

    #[test]
    fn texts_are_cut_by_columns_not_by_bytes() {
        assert_eq!(fit("name", 6), "name  ");
        assert_eq!(fit("longer-name", 6), "longe~");
        assert_eq!(fit("日本語", 5), "日本~");
        assert_eq!(fit("日本語", 4), "日~ ");
        assert_eq!(fit("Grüße", 5), "Grüße");
    }

    #[test]
    fn names_share_what_is_left_of_a_line() {
        assert_eq!(share(5, 12, None), (5, 12));
        assert_eq!(share(5, 12, Some(80)), (18, 12));
        assert_eq!(share(47, 31, Some(80)), (12, 18));
        assert_eq!(share(47, 5, Some(80)), (25, 5));
        assert_eq!(share(47, 31, Some(20)), (8, 12));
    }
}
