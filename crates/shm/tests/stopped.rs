//! Only proof of death frees a lock: whoever is stopped keeps what it has, for however long, and whoever is dead is found
//! so, whatever is left of it, and whatever its numbers were.
//!
//! `CROSSLOCK_STOPPED_S=10` keeps the stopped ones stopped for as many seconds.

mod support;

use std::time::Duration;

use crosslock::crosslock_core::{Name, Ownership};
use crosslock::{Error, LockError, Mutex, Options, Segment};
use rustix::process::{Pid, Signal, kill_process};
use support::{Actor, eventually, role, say, seconds, sleep_until_killed, small};

/// Longer than anything takes that need not wait for somebody's end.
const PATIENCE: Duration = Duration::from_secs(10);

fn stopped_for() -> Duration {
    seconds("CROSSLOCK_STOPPED_S", 2)
}

/// What the other process does: has the lock, and when it is told changes the data and gives it up.
fn have(options: &Options, kind: &str) {
    let segment = options.open("s").unwrap();
    let go = || std::io::stdin().read_line(&mut String::new()).unwrap();
    let tid = rustix::thread::gettid().as_raw_nonzero();
    match kind {
        "mutex" => {
            let mutex = segment.open_mutex::<u64>("n").unwrap();
            let mut guard = mutex.lock().unwrap();
            say(tid);
            go();
            guard.update(|n| *n += 1);
            guard.unlock().unwrap();
        }
        "writer" => {
            let lock = segment.open_rwlock::<u64>("rw").unwrap();
            let mut guard = lock.write().unwrap();
            say(tid);
            go();
            guard.update(|n| *n += 1);
            guard.unlock().unwrap();
        }
        "reader" => {
            let lock = segment.open_rwlock::<u64>("rw").unwrap();
            let guard = lock.read().unwrap();
            say(tid);
            go();
            assert_eq!(guard.get(), 0);
        }
        other => panic!("{other}"),
    }
    say("done");
    go();
}

struct Stage {
    directory: tempfile::TempDir,
    segment: Segment,
}

impl Stage {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let segment = small(directory.path()).create("s").unwrap();
        segment.mutex("n", 0u64).unwrap();
        segment.rwlock("rw", 0u64).unwrap();
        Self { directory, segment }
    }

    fn mutex(&self) -> Mutex<u64> {
        self.segment.open_mutex("n").unwrap()
    }

    /// Another process that has the lock; and its thread.
    fn owner(&self, test: &str, kind: &str) -> (Actor, Pid) {
        let mut owner = Actor::start(test, kind, self.directory.path());
        let tid = owner.hear().parse().unwrap();
        (owner, Pid::from_raw(tid).unwrap())
    }

    /// For the whole time nobody gets what a stopped process of that kind has.
    fn all_wait(&self, kind: &str) {
        let (mutex, rw) = (self.mutex(), self.segment.open_rwlock::<u64>("rw").unwrap());
        std::thread::scope(|scope| {
            match kind {
                "mutex" => {
                    scope.spawn(|| assert!(mutex.lock_timeout(stopped_for()).unwrap().is_none()));
                }
                "writer" => {
                    scope.spawn(|| assert!(rw.read_timeout(stopped_for()).unwrap().is_none()));
                    scope.spawn(|| assert!(rw.write_timeout(stopped_for()).unwrap().is_none()));
                }
                _ => {
                    scope.spawn(|| assert!(rw.write_timeout(stopped_for()).unwrap().is_none()));
                }
            };
        });
        assert!(self.segment.repair().unwrap().is_empty(), "there is nothing to repair");
    }

    /// It has gone on unharmed, and nobody is told of anything.
    fn all_is_well(&self, kind: &str, mut owner: Actor) {
        owner.tell();
        assert_eq!(owner.hear(), "done");
        let n = self.mutex().lock_timeout(PATIENCE).unwrap().unwrap().get();
        let lock = self.segment.open_rwlock::<u64>("rw").unwrap();
        let rw = lock.write_timeout(PATIENCE).unwrap().unwrap().get();
        assert_eq!((n, rw), (u64::from(kind == "mutex"), u64::from(kind == "writer")));
        owner.tell();
        owner.join();
    }
}

#[test]
fn a_stopped_process_keeps_what_it_has() {
    if let Some((kind, options)) = role() {
        return have(&options, &kind);
    }
    std::thread::scope(|scope| {
        for kind in ["mutex", "writer", "reader"] {
            scope.spawn(move || {
                let stage = Stage::new();
                let (owner, _) = stage.owner("a_stopped_process_keeps_what_it_has", kind);
                kill_process(owner.pid(), Signal::STOP).unwrap();
                stage.all_wait(kind);
                kill_process(owner.pid(), Signal::CONT).unwrap();
                stage.all_is_well(kind, owner);
            });
        }
    });
}

/// One thread of a process, stopped by a debugger.
fn trace(request: libc::c_uint, tid: Pid) {
    // SAFETY: these requests take no addresses.
    let result = unsafe { libc::ptrace(request, tid.as_raw_nonzero().get(), 0, 0) };
    assert_eq!(result, 0, "ptrace: {}", std::io::Error::last_os_error());
}

#[test]
fn a_thread_in_a_debugger_keeps_what_it_has() {
    if let Some((kind, options)) = role() {
        return have(&options, &kind);
    }
    let stage = Stage::new();
    let (owner, tid) = stage.owner("a_thread_in_a_debugger_keeps_what_it_has", "mutex");
    trace(libc::PTRACE_SEIZE, tid);
    trace(libc::PTRACE_INTERRUPT, tid);
    let mut status = 0;
    // SAFETY: `status` is ours to be written.
    let stopped = unsafe { libc::waitpid(tid.as_raw_nonzero().get(), &raw mut status, libc::__WALL) };
    assert!(stopped == tid.as_raw_nonzero().get() && libc::WIFSTOPPED(status), "{status:#x}");
    stage.all_wait("mutex");
    trace(libc::PTRACE_DETACH, tid);
    stage.all_is_well("mutex", owner);
}

fn expect_owner_died(mutex: &Mutex<u64>) {
    match mutex.lock_timeout(PATIENCE) {
        Err(LockError::OwnerDied(suspect)) => suspect.into_guard().mark_consistent(),
        Ok(Some(_)) => panic!("nobody told of the death"),
        Ok(None) => panic!("the death was not found"),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn a_stopped_process_that_is_killed_is_dead() {
    if let Some((kind, options)) = role() {
        return have(&options, &kind);
    }
    let stage = Stage::new();
    let (mut owner, _) = stage.owner("a_stopped_process_that_is_killed_is_dead", "mutex");
    kill_process(owner.pid(), Signal::STOP).unwrap();
    assert!(stage.mutex().lock_timeout(Duration::from_millis(100)).unwrap().is_none());
    owner.kill();
    expect_owner_died(&stage.mutex());
}

#[test]
fn a_zombie_is_dead() {
    if let Some((kind, options)) = role() {
        return have(&options, &kind);
    }
    let stage = Stage::new();
    let (owner, _) = stage.owner("a_zombie_is_dead", "mutex");
    kill_process(owner.pid(), Signal::KILL).unwrap();
    let stat = || std::fs::read_to_string(format!("/proc/{}/stat", owner.pid().as_raw_nonzero())).unwrap();
    eventually("nobody has waited for it", || stat().contains(") Z "));
    expect_owner_died(&stage.mutex());
    let slots = || stage.segment.participants().unwrap();
    eventually("its slot is free", || {
        slots().iter().all(|one| one.pid == std::process::id() || is_dead(one))
    });
}

fn is_dead(participant: &crosslock::Participant) -> bool {
    participant.liveness == crosslock::Liveness::Dead
}

/// Says why a test is not run here.
fn skip(why: &str) {
    say(format!("skipped: {why}"));
}

fn error(what: &str) -> String {
    format!("{what}: {}", std::io::Error::last_os_error())
}

/// In a process of one thread: the child, in a pid namespace of its own, has pid `wanted` there, has the lock, and says so.
fn have_as(options: &Options, wanted: i32) -> Result<(), String> {
    // SAFETY: takes flags alone.
    if unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWPID) } != 0 {
        return Err(error("unshare"));
    }
    // SAFETY: a process of one thread.
    match unsafe { libc::fork() } {
        -1 => Err(error("fork")),
        0 => {
            // The first of the namespace, which ends with it.
            let set = std::fs::write("/proc/sys/kernel/ns_last_pid", (wanted - 1).to_string());
            // SAFETY: as above.
            match unsafe { libc::fork() } {
                0 => {
                    if let Err(error) = set {
                        skip(&format!("ns_last_pid: {error}"));
                    } else if std::process::id().cast_signed() == wanted {
                        have(options, "mutex");
                    } else {
                        skip(&format!("this is {}, not {wanted}", std::process::id()));
                    }
                    // SAFETY: ends the process, without destructors.
                    unsafe { libc::_exit(0) }
                }
                _ => {
                    // SAFETY: waits for any child, and its status goes nowhere.
                    unsafe { libc::waitpid(-1, core::ptr::null_mut(), 0) };
                    // SAFETY: ends the process, without destructors.
                    unsafe { libc::_exit(0) }
                }
            }
        }
        _ => sleep_until_killed(),
    }
}

/// The owner has, where it is, the number of a thread that lives here. Its alive word names that number.
#[test]
fn an_owner_in_another_pid_namespace_is_found_dead() {
    if let Some((wanted, options)) = role() {
        // SAFETY: the child uses what the C library's fork keeps usable.
        if unsafe { libc::fork() } == 0 {
            if let Err(why) = have_as(&options, wanted.parse().unwrap()) {
                skip(&why);
            }
            // SAFETY: ends the process, without destructors.
            unsafe { libc::_exit(0) };
        }
        sleep_until_killed();
    }
    let stage = Stage::new();
    let mutex = stage.mutex();
    stage.segment.register().unwrap();
    let me = rustix::thread::gettid().as_raw_nonzero();
    let test = "an_owner_in_another_pid_namespace_is_found_dead";
    let mut outer = Actor::start(test, &me.to_string(), stage.directory.path());
    let heard = outer.hear();
    if heard.starts_with("skipped") {
        eprintln!("{heard}");
        return;
    }
    assert_eq!(heard, me.to_string(), "it has the number that this thread has");
    assert!(mutex.lock_timeout(Duration::from_millis(200)).unwrap().is_none(), "it lives");
    let Ok(Ownership::Held(owner, _)) = mutex.raw().ownership() else { panic!("{mutex:?}") };
    let found = stage.segment.participants().unwrap();
    let found: Vec<_> = found.iter().filter(|one| one.slot == owner.slot()).map(|one| one.pid).collect();
    assert_eq!(found, [me.get().unsigned_abs()]);
    let first = children_of(&children_of(&outer.pid().as_raw_nonzero().to_string())[0])[0].clone();
    // The end of its first process is the end of a namespace.
    kill_process(Pid::from_raw(first.parse().unwrap()).unwrap(), Signal::KILL).unwrap();
    expect_owner_died(&mutex);
    assert_eq!(stage.segment.register().unwrap(), stage.segment.register().unwrap(), "this thread lives on");
}

fn children_of(pid: &str) -> Vec<String> {
    let mut children = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let listed = std::fs::read_to_string(task.unwrap().path().join("children")).unwrap();
        children.extend(listed.split_whitespace().map(str::to_owned));
    }
    children
}

fn me(segment: &Segment) -> Name {
    segment.context().unwrap().me().unwrap()
}

/// A slot's next holder has another name, and what the word says of the one before is not about it.
#[test]
fn an_owner_whose_slot_another_has_is_dead() {
    let segment = Options::new().participants(3).create_memfd("reuse").unwrap();
    let mutex = segment.mutex("n", 0u64).unwrap();
    let another = segment.mutex("another", 0u64).unwrap();
    me(&segment);
    for _ in 0..3 {
        let dead = std::thread::scope(|scope| {
            let die = || {
                // A joined thread may still be on its way out: the slots of the last round are free in a moment.
                eventually("a slot is free", || segment.register().is_ok());
                std::mem::forget(mutex.lock().unwrap());
                me(&segment)
            };
            scope.spawn(die).join().unwrap()
        });
        let others = [(); 2].map(|()| std::sync::mpsc::channel::<()>());
        std::thread::scope(|scope| {
            let (tell, names) = std::sync::mpsc::channel();
            let ends = others.map(|(end, wait)| {
                let (tell, segment, another) = (tell.clone(), &segment, &another);
                scope.spawn(move || {
                    eventually("a slot is free", || segment.register().is_ok());
                    let has = another.try_lock().unwrap();
                    tell.send((me(segment), has.is_some())).unwrap();
                    let _ = wait.recv();
                });
                end
            });
            let living = [(); 2].map(|()| names.recv().unwrap());
            let next = living.iter().find(|(name, _)| name.slot() == dead.slot());
            let (next, _) = next.expect("all slots are in use");
            assert_ne!(*next, dead);
            assert!(matches!(mutex.raw().ownership(), Ok(Ownership::Held(owner, _)) if owner == dead));
            assert!(another.try_lock().unwrap().is_none(), "the living keep what they have");
            expect_owner_died(&mutex);
            assert!(mutex.lock_timeout(PATIENCE).unwrap().is_some());
            assert_eq!(living.iter().filter(|(_, has)| *has).count(), 1);
            drop(ends);
        });
    }
    assert!(matches!(mutex.lock().map(|guard| guard.unlock()).map_err(Error::from), Ok(Ok(()))));
}
