//! `top` on a terminal: draws, reads keys, and leaves the terminal as it was.

use core::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use crosslock::Segment;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::Args;
use super::sample::Sample;
use super::view::View;
use crate::interrupt::Interrupt;

/// How soon a signal is noticed.
const GLANCE: Duration = Duration::from_millis(100);

/// The terminal in raw mode; as it was when dropped. A panic restores it before it is told.
struct Screen(DefaultTerminal);

impl Screen {
    fn open() -> anyhow::Result<Self> {
        let opened = ratatui::try_init();
        if opened.is_err() {
            ratatui::restore();
        }
        opened.map(Self).context("cannot draw on this terminal; try --plain")
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The terminal may be gone; then there is nothing to restore, and nobody to tell.
        let _ = self.0.show_cursor();
        let _ = ratatui::try_restore();
    }
}

/// What a key asks for.
enum Wish {
    Quit,
    /// The screen is to be drawn again.
    Redraw,
    /// Going on after a pause.
    Sample,
    Nothing,
}

pub(super) fn run(args: &Args, segment: &Segment) -> anyhow::Result<()> {
    let interrupt = Interrupt::install()?;
    let mut screen = Screen::open()?;
    let mut view = View { sort: args.sort, is_paused: false, first: 0, page: 0, long: args.long };
    let mut sample = Sample::take(segment, None)?;
    let mut report = sample.report(None);
    let mut due = Instant::now() + args.interval;
    let mut is_drawn = false;
    while !interrupt.is_raised() {
        if !is_drawn {
            screen.0.draw(|frame| view.draw(frame, &args.name, &report))?;
            is_drawn = true;
        }
        let patience =
            if view.is_paused { GLANCE } else { due.saturating_duration_since(Instant::now()).min(GLANCE) };
        if event::poll(patience).context("cannot read keys from this terminal; try --plain")? {
            match heed(&event::read()?, &mut view) {
                Wish::Quit => break,
                Wish::Redraw => is_drawn = false,
                Wish::Sample => (is_drawn, due) = (false, Instant::now()),
                Wish::Nothing => {}
            }
        }
        if !view.is_paused && Instant::now() >= due {
            let next = Sample::take(segment, Some(&sample))?;
            report = next.report(Some(&sample));
            (sample, is_drawn) = (next, false);
            due = Instant::now() + args.interval;
        }
    }
    Ok(())
}

fn heed(event: &Event, view: &mut View) -> Wish {
    let Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press | KeyEventKind::Repeat, .. }) =
        event
    else {
        // A resize, or the focus that comes back.
        return Wish::Redraw;
    };
    let page = view.page.cast_signed().max(1);
    match code {
        KeyCode::Char('q') | KeyCode::Esc => return Wish::Quit,
        KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => return Wish::Quit,
        KeyCode::Char('s') => view.sort = view.sort.next(),
        KeyCode::Char(' ') => {
            view.is_paused = !view.is_paused;
            return if view.is_paused { Wish::Redraw } else { Wish::Sample };
        }
        KeyCode::Down | KeyCode::Char('j') => view.scroll(1),
        KeyCode::Up | KeyCode::Char('k') => view.scroll(-1),
        KeyCode::PageDown => view.scroll(page),
        KeyCode::PageUp => view.scroll(-page),
        KeyCode::Home => view.scroll(isize::MIN),
        KeyCode::End => view.scroll(isize::MAX),
        _ => return Wish::Nothing,
    }
    Wish::Redraw
}
