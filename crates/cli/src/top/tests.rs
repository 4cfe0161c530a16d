//! What the screen shows, at 80 columns and 24 lines.

use core::time::Duration;

use crosslock::{Mutex, Options, Segment};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use tempfile::TempDir;

use super::sample::{Report, Sample};
use super::sort::Sort;
use super::view::View;

const SECOND: Duration = Duration::from_secs(1);

fn segment() -> (TempDir, Segment) {
    let directory = tempfile::tempdir().unwrap();
    let segment = Options::new().directory(directory.path()).create("s").unwrap();
    (directory, segment)
}

fn view(sort: Sort) -> View {
    View { sort, is_paused: false, first: 0, page: 0, long: SECOND }
}

fn drawn(view: &mut View, report: &Report, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| view.draw(frame, "demo", report)).unwrap();
    let cells: Vec<_> = terminal.backend().buffer().content().iter().map(|cell| cell.symbol()).collect();
    cells.chunks(width.into()).map(|line| line.concat().trim_end().to_owned()).collect()
}

/// Two samples, the second changed by `change`, and what is between them.
fn report(segment: &Segment, change: impl Fn(&mut crosslock::LockInfo)) -> Report {
    let before = Sample::take(segment, None).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    let mut now = Sample::take(segment, Some(&before)).unwrap();
    now.amend(SECOND, change);
    now.report(Some(&before))
}

/// Runs `inside` while a thread of that name has the mutex.
fn while_held<R>(mutex: &Mutex<u64>, name: &str, inside: impl FnOnce() -> R) -> R {
    let (held, is_held) = std::sync::mpsc::channel();
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let hold = move || {
            let guard = mutex.lock().unwrap();
            held.send(()).unwrap();
            // Ends when the other end is dropped.
            let _ = is_done.recv();
            drop(guard);
        };
        std::thread::Builder::new().name(name.into()).spawn_scoped(scope, hold).unwrap();
        is_held.recv().unwrap();
        let result = inside();
        drop(done);
        result
    })
}

#[test]
fn a_screen_of_80_columns_has_all_figures() {
    let (_directory, segment) = segment();
    let account = segment.mutex("account", 0u64).unwrap();
    segment.mutex("journal-with-a-name-of-forty-six-characters-xx", 0u64).unwrap();
    segment.rwlock("limits", 0u64).unwrap();
    segment.spin_mutex::<u64, crosslock::crosslock_core::RawTicket>("spin", 0).unwrap();
    let report = while_held(&account, "worker-with-a-long-name", || {
        report(&segment, |lock| {
            if lock.object.name == "account" {
                lock.stats.acquisitions += 12_000;
                lock.stats.contended += 600;
                lock.stats.waited_ns += 1_500_000_000;
                lock.held_for = Some(Duration::from_millis(2500));
            }
        })
    });
    let screen = drawn(&mut view(Sort::Wait), &report, 80, 24);
    let pid = std::process::id();
    assert_eq!(screen[0], "demo: participants 1; locks 3, held 1, waiting 0");
    assert_eq!(screen[1], "in 1.0 s: 12000 acquired/s, 5.0 % contended, 1.5 waited in the mean");
    let head = "LOCK         OWNER              QUEUE  WAIT%  ACQ/s CONT%   MEAN LONGEST    HELD";
    assert_eq!(screen[2], head);
    assert_eq!(head.len(), 80);
    let owner = super::table::fit(&format!("{pid} worker-with-a-long-name"), 18);
    let figures = "     0    150  12000   5.0  2.5ms       -    2.5s";
    assert_eq!(screen[3], format!("account      {owner}{figures}"));
    assert!(screen[4].starts_with("journal-wit~ -  "), "{}", screen[4]);
    assert!(screen[5].starts_with("limits       -  "), "{}", screen[5]);
    assert!(screen[6].starts_with("spin         ticket: "), "{}", screen[6]);
    assert_eq!(screen[23], "q quit  s sort: wait  space pause");
}

#[test]
fn many_locks_are_scrolled() {
    let (_directory, segment) = segment();
    (0..40).for_each(|n| drop(segment.mutex(&format!("lock-{n:02}"), 0u64).unwrap()));
    let report = report(&segment, |_| ());
    let mut view = view(Sort::Name);
    let screen = drawn(&mut view, &report, 80, 24);
    assert!(screen[3].starts_with("lock-00") && screen[22].starts_with("lock-19"), "{screen:#?}");
    assert!(screen[23].ends_with("1-20 of 40, arrows scroll"), "{}", screen[23]);
    view.scroll(15);
    assert!(drawn(&mut view, &report, 80, 24)[3].starts_with("lock-15"));
    view.scroll(isize::MAX);
    let screen = drawn(&mut view, &report, 80, 24);
    assert!(
        screen[22].starts_with("lock-39") && screen[23].ends_with("21-40 of 40, arrows scroll"),
        "{screen:#?}"
    );
    view.scroll(-1);
    assert!(drawn(&mut view, &report, 80, 24)[3].starts_with("lock-19"));
    view.scroll(isize::MIN);
    assert!(drawn(&mut view, &report, 80, 24)[3].starts_with("lock-00"));
}

#[test]
fn any_size_of_screen_will_do() {
    let (_directory, segment) = segment();
    (0..5).for_each(|n| drop(segment.mutex(&format!("日本語-{n:030}"), 0u64).unwrap()));
    let report = report(&segment, |_| ());
    for width in [1, 2, 10, 40, 79, 81, 200] {
        for height in [1, 2, 3, 4, 7, 50] {
            drawn(&mut view(Sort::Wait), &report, width, height);
        }
    }
}

#[test]
fn what_is_dead_paused_or_removed_is_said() {
    let (directory, segment) = segment();
    let mutex = segment.mutex("n", 0u64).unwrap();
    let forget = || core::mem::forget(mutex.lock().unwrap());
    std::thread::scope(|scope| scope.spawn(forget).join().unwrap());
    let mut view = view(Sort::Wait);
    view.is_paused = true;
    let screen = drawn(&mut view, &report(&segment, |_| ()), 80, 24);
    assert!(screen[1].starts_with("PAUSED  in "), "{}", screen[1]);
    assert!(screen[3].contains(&format!(" DEAD {}", std::process::id())), "{}", screen[3]);
    std::fs::remove_file(directory.path().join("s")).unwrap();
    let screen = drawn(&mut view, &report(&segment, |_| ()), 80, 24);
    assert!(screen[1].starts_with("REMOVED"), "{}", screen[1]);
}

#[test]
fn each_key_sorts_by_something_else() {
    let (_directory, segment) = segment();
    for name in ["a", "b", "c"] {
        segment.mutex(name, 0u64).unwrap();
    }
    let report = report(&segment, |lock| match lock.object.name.as_str() {
        "b" => lock.stats.waited_ns += 1_000_000,
        "c" => lock.stats.acquisitions += 1_000,
        _ => {}
    });
    let first = |sort| drawn(&mut view(sort), &report, 80, 24)[3].chars().next().unwrap();
    assert_eq!([Sort::Wait, Sort::Acquired, Sort::Name].map(first), ['b', 'c', 'a']);
    let mut sort = Sort::Wait;
    for _ in 0..5 {
        sort = sort.next();
    }
    assert_eq!(sort, Sort::Wait);
}

#[test]
fn statistics_that_run_backwards_are_no_rates() {
    let (_directory, segment) = segment();
    let mutex = segment.mutex("n", 0u64).unwrap();
    drop(mutex.lock().unwrap());
    for garbage in [0, u64::MAX] {
        let report = report(&segment, |lock| {
            (lock.stats.acquisitions, lock.stats.contended, lock.stats.waited_ns) =
                (garbage, garbage, garbage);
        });
        let rates = report.locks[0].rates.unwrap();
        assert!(rates.waiting >= 0.0 && rates.acquired_per_s >= 0.0, "{rates:?}");
        drawn(&mut view(Sort::Wait), &report, 80, 24);
    }
}
