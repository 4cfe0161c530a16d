//! The screen: two lines of head, the table, a line of keys.

use core::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Text};

use super::sample::Report;
use super::sort::Sort;
use super::table::{Mark, Table, count, decimal};

/// What the person at the keyboard has chosen.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    pub(super) sort: Sort,
    pub(super) is_paused: bool,
    /// The first lock shown.
    pub(super) first: usize,
    /// How many locks there was room for.
    pub(super) page: usize,
    /// From when on a lock is held for long.
    pub(super) long: Duration,
}

/// The segment in a line.
pub(super) fn summary(name: &str, report: &Report) -> String {
    let (alive, dead) = (report.alive, report.dead);
    let dead = if dead > 0 { format!(", DEAD {dead}") } else { String::new() };
    let (locks, held, waiting) = (report.locks.len(), report.held(), report.waiters());
    format!("{name}: participants {alive}{dead}; locks {locks}, held {held}, waiting {waiting}")
}

/// What happened in the interval.
pub(super) fn totals(report: &Report) -> String {
    let (Some(total), Some(interval)) = (report.total(), report.interval) else {
        return "looking for the first time".into();
    };
    let contended = total.contended_percent.map(|percent| format!(", {} % contended", decimal(percent)));
    format!(
        "in {:.1} s: {} acquired/s{}, {} waited in the mean",
        interval.as_secs_f64(),
        count(total.acquired_per_s),
        contended.unwrap_or_default(),
        decimal(total.waiting),
    )
}

pub(super) const REMOVED: &str = "REMOVED: no newcomer finds this segment, whoever has it goes on";

impl View {
    pub(super) fn draw(&mut self, frame: &mut Frame<'_>, name: &str, report: &Report) {
        let rows = [Constraint::Length(2), Constraint::Length(1), Constraint::Min(0), Constraint::Length(1)];
        let [head, columns, body, keys] = Layout::vertical(rows).areas(frame.area());
        let mut report = report.clone();
        self.sort.apply(&mut report.locks);
        let table = Table::new(&report, self.long, Some(frame.area().width.into()));

        let second = match (report.is_named, self.is_paused) {
            (false, _) => Line::styled(REMOVED, Modifier::REVERSED),
            (true, false) => Line::raw(totals(&report)),
            (true, true) => Line::from(vec!["PAUSED".bold(), format!("  {}", totals(&report)).into()]),
        };
        frame.render_widget(Text::from(vec![summary(name, &report).bold().into(), second]), head);
        frame.render_widget(Line::styled(table.head, Modifier::REVERSED), columns);

        self.page = body.height.into();
        self.first = self.first.min(table.rows.len().saturating_sub(self.page));
        let shown = table.rows.iter().skip(self.first).take(self.page);
        let lines: Vec<_> = shown.map(|(line, mark)| Line::styled(line.as_str(), style(*mark))).collect();
        let last = self.first + lines.len();
        frame.render_widget(Text::from(lines), body);
        let keys_text = format!(
            "q quit  s sort: {}  space {}",
            self.sort.name(),
            if self.is_paused { "go on" } else { "pause" }
        );
        let place = match table.rows.len() {
            0 => "no locks yet".into(),
            all if all <= self.page => String::new(),
            all => format!("{}-{last} of {all}, arrows scroll", self.first + 1),
        };
        frame.render_widget(Line::raw(keys_text).dim(), keys);
        frame.render_widget(Line::raw(place).right_aligned(), keys);
    }

    /// Shows what is `lines` further down.
    pub(super) fn scroll(&mut self, lines: isize) {
        // `draw` keeps it inside.
        self.first = self.first.saturating_add_signed(lines);
    }
}

/// Without colours all is said, too: in words, and by the figures.
fn style(mark: Mark) -> Style {
    match mark {
        Mark::None => Style::new(),
        Mark::Long => Style::new().add_modifier(Modifier::BOLD),
        Mark::Broken => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
    }
}
