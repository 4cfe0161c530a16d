//! `crosslock create | ls | inspect | repair | unlock | rm`, on good segments and on what only looks like one.

#[path = "support/scene.rs"]
mod scene;
mod support;

use std::fs;
use std::os::unix::fs::FileExt;

use crosslock::{LockError, Segment};
use predicates::str::contains;
use scene::{Holder, OnTerminal, eventually, killed_inside, lock, until_owned, until_waiters};
use serde_json::{Value, json as value};
use support::{Name, crosslock, json};

#[test]
fn a_segment_lives_from_create_to_rm() {
    let name = Name::new("life");
    crosslock(&["create", &name.0, "--size", "64K", "--participants", "8"]).assert().success();
    crosslock(&["create", &name.0]).assert().code(2).stderr(contains("exists already"));
    let listed = json(&["ls"]);
    let mine = listed.as_array().unwrap().iter().find(|segment| segment["name"] == *name.0).unwrap();
    assert_eq!((&mine["state"], &mine["objects"]), (&"idle".into(), &0.into()));
    let inspected = json(&["inspect", &name.0]);
    assert_eq!((&inspected["slots"], &inspected["temporary"]), (&8.into(), &false.into()), "{inspected}");
    crosslock(&["rm", &name.0]).assert().success();
    crosslock(&["rm", &name.0]).assert().code(2).stderr(contains("there is no segment"));
}

#[test]
fn inspect_decodes_lock_words_without_touching_them() {
    use crosslock::crosslock_core::{RawLock, RawMcs, RawPvQSpin, RawQSpin, RawTas, RawTicket};

    let name = Name::new("decode");
    let segment = crosslock::Segment::create(&name.0).unwrap();
    fn held<L: RawLock<crosslock::SegmentContext>>(segment: &crosslock::Segment, name: &str) {
        let mutex = segment.spin_mutex::<u64, L>(name, 0).unwrap();
        core::mem::forget(mutex.lock().unwrap());
    }
    held::<RawTas>(&segment, "a-tas");
    held::<RawTicket>(&segment, "a-ticket");
    held::<RawMcs>(&segment, "an-mcs");
    held::<RawQSpin>(&segment, "a-qspinlock");
    held::<RawPvQSpin>(&segment, "a-pvqspinlock");
    let before = fs::read(name.path()).unwrap();
    let states = [
        "held",
        "held by ticket 0, 0 waiting",
        "held, nobody waits",
        "(no tail, pending 0, locked 1)",
        "(no tail, pending 0, locked 1)",
    ];
    let inspected = json(&["inspect", &name.0]);
    let found: Vec<_> =
        inspected["objects"].as_array().unwrap().iter().map(|o| o["state"].as_str()).collect();
    assert_eq!(found, states.map(Some));
    crosslock(&["inspect", &name.0]).assert().success().stdout(contains("held by ticket 0, 0 waiting"));
    assert!(fs::read(name.path()).unwrap() == before, "inspect has changed the segment");
    crosslock(&["rm", &name.0]).assert().code(2).stderr(contains("attached by a running process"));
    crosslock(&["rm", "--force", &name.0]).assert().success();
}

/// Writes a good segment, lets `damage` change its bytes, and gives its name.
fn damaged(test: &str, damage: impl FnOnce(&mut Vec<u8>)) -> Name {
    let name = Name::new(test);
    crosslock(&["create", &name.0]).assert().success();
    let mut bytes = fs::read(name.path()).unwrap();
    damage(&mut bytes);
    fs::write(name.path(), bytes).unwrap();
    name
}

#[test]
fn what_is_no_segment_is_refused_with_a_reason() {
    let garbage = Name::new("garbage");
    fs::write(garbage.path(), vec![0xa5; 100_000]).unwrap();
    let empty = Name::new("empty");
    fs::write(empty.path(), "").unwrap();
    let directory = Name::new("directory");
    fs::create_dir(directory.path()).unwrap();
    let truncated = damaged("truncated", |bytes| bytes.truncate(5000));
    let header_only = damaged("header-only", |bytes| bytes.truncate(40));
    let newer = damaged("newer", |bytes| bytes[12] += 1);
    let swapped = damaged("swapped", |bytes| bytes[8..12].reverse());

    let cases = [
        (&garbage, "no crosslock segment"),
        (&empty, "cut short"),
        (&directory, "directory"),
        (&truncated, "its header says"),
        (&header_only, "cut short"),
        (&newer, "ABI version"),
        (&swapped, "big-endian"),
    ];
    for (name, said) in cases {
        crosslock(&["inspect", &name.0]).assert().code(2).stderr(contains(said));
        crosslock(&["torture", "--segment", &name.0, "--join"]).assert().code(2).stderr(contains(said));
    }
    crosslock(&["ls"]).assert().success().stdout(contains("unusable"));
}

#[test]
fn without_permission_there_is_an_error() {
    use std::os::unix::process::CommandExt;

    if !rustix::process::geteuid().is_root() {
        // Only root can become somebody else; others see the case below with files of other users.
        return;
    }
    let name = Name::new("permission");
    crosslock(&["create", &name.0]).assert().success();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_crosslock"));
    let output = command.args(["inspect", &name.0]).uid(65534).gid(65534).output();
    let Ok(output) = output else {
        // Where the binary lies in a directory that only root may enter.
        return;
    };
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("may not be opened by this user"), "{said}");
}

/// A field of each.
fn each(list: &Value, field: &str) -> Vec<Value> {
    list.as_array().unwrap().iter().map(|one| one[field].clone()).collect()
}

/// Leaves the mutex `n` in the hands of a process that was killed; gives its process id.
fn left_by_the_dead(name: &Name) -> u32 {
    killed_inside(&name.0, |segment| core::mem::forget(segment.mutex("n", 0u64).unwrap().lock()))
}

#[test]
fn inspect_says_who_holds_and_who_waits_in_which_order() {
    let name = Name::new("holders");
    let segment = Segment::create(&name.0).unwrap();
    segment.mutex("idle", 0u64).unwrap();
    let _holder = Holder::of_mutex("holder", &segment, "account");
    until_owned(&segment, "account");
    let _waiters = [(1, "first"), (2, "second"), (3, "third")].map(|(place, name)| {
        let waiter = Holder::of_mutex(name, &segment, "account");
        until_waiters(&segment, "account", place);
        waiter
    });
    eventually("somebody has looked at a clock", || lock(&segment, "account").held_for.is_some());

    let pid = std::process::id();
    let found = json(&["inspect", &name.0, "account", "--long", "1us"]);
    let account = &found["lock"];
    assert_eq!((&account["state"], &account["long"]), (&"held".into(), &true.into()), "{found}");
    assert_eq!(
        [&account["owner"]["pid"], &account["owner"]["name"], &account["owner"]["alive"]],
        [&value!(pid), &value!("holder"), &value!(true)]
    );
    assert_eq!(each(&account["waiters"], "name"), ["first", "second", "third"]);
    assert!(account["waiters"][0]["waiting_ns"].as_u64() >= account["waiters"][2]["waiting_ns"].as_u64());
    let all = json(&["inspect", &name.0]);
    assert_eq!(each(&all["objects"], "name"), ["idle", "account"]);
    assert_eq!(all["objects"][0]["lock"]["state"], "free");

    let text = crosslock(&["inspect", &name.0, "--long", "1us"]).assert().success();
    let held = format!("held by pid {pid} tid ");
    let text =
        text.stdout(contains(&held)).stdout(contains("(holder), alive, for >= ")).stdout(contains(" LONG\n"));
    text.stdout(contains("account: 3 in the queue\n   1. pid ")).stdout(contains("(third), alive, for "));
    let one = crosslock(&["inspect", &name.0, "account"]).assert().success().stdout(contains(&held));
    one.stdout(contains("owner word    0x")).stdout(contains("tickets       3 "));
    crosslock(&["inspect", &name.0, "none"]).assert().code(2).stderr(contains("it has idle, account"));
    crosslock(&["repair", &name.0]).assert().success().stdout(contains("nothing to repair"));
    assert_eq!(lock(&segment, "account").waiters.len(), 3);
}

#[test]
fn the_lock_of_a_killed_owner_is_shown_and_repaired() {
    let name = Name::new("killed");
    let segment = Segment::create(&name.0).unwrap();
    let pid = left_by_the_dead(&name);
    let found = json(&["inspect", &name.0, "n"]);
    assert_eq!(
        (&found["lock"]["state"], &found["lock"]["owner"]["pid"]),
        (&"owner dead".into(), &pid.into())
    );
    assert_eq!(found["lock"]["owner_died"], true);
    let said = format!("owner dead: pid {pid} tid {pid}");
    crosslock(&["inspect", &name.0])
        .assert()
        .success()
        .stdout(contains(&said))
        .stdout(contains("1 of them dead"));
    crosslock(&["inspect", &name.0, "n"]).assert().success().stdout(contains("nothing needs to be done"));

    let repaired = crosslock(&["repair", &name.0]).assert().success();
    repaired.stdout(contains(format!("n: freed; pid {pid} tid {pid}"))).stdout(contains("is told"));
    crosslock(&["inspect", &name.0]).assert().success().stdout(contains("free, an owner died inside"));
    let again = json(&["repair", &name.0]);
    assert_eq!((&again["freed"], &again["broken"]), (&value!([]), &value!([])));
    assert!(matches!(segment.mutex("n", 0u64).unwrap().lock(), Err(LockError::OwnerDied(_))));
}

#[test]
fn a_thread_that_ended_without_unlocking_is_named() {
    let name = Name::new("careless");
    let segment = Segment::create(&name.0).unwrap();
    let mutex = segment.mutex("n", 0u64).unwrap();
    std::thread::scope(|scope| {
        let forget = || core::mem::forget(mutex.lock().unwrap());
        let careless =
            std::thread::Builder::new().name("careless".into()).spawn_scoped(scope, forget).unwrap();
        // The scope's end alone would not wait until it is registered no more.
        careless.join().unwrap();
    });
    let said = format!("owner dead: pid {} tid ", std::process::id());
    let is_named = crosslock(&["inspect", &name.0]).assert().success().stdout(contains(said));
    is_named.stdout(contains("(careless); the next one is told"));
    // Its slot is given to another: then nobody knows any more.
    eventually("its slot is free", || {
        lock(&segment, "n").owner.is_some_and(|owner| owner.identity.is_none()) || {
            std::thread::scope(|scope| scope.spawn(|| segment.register().unwrap()).join().unwrap());
            false
        }
    });
    crosslock(&["inspect", &name.0])
        .assert()
        .success()
        .stdout(contains("owner dead: participant 0 (incarnation 1)"));
}

#[test]
fn readers_and_the_writer_behind_them_are_shown() {
    let name = Name::new("readers");
    let segment = Segment::create(&name.0).unwrap();
    segment.rwlock("limits", 0u64).unwrap();
    let _readers = ["one", "two"].map(|name| {
        Holder::start(name, &segment, |segment, keep| {
            let limits = segment.rwlock("limits", 0u64).unwrap();
            let guard = limits.read();
            keep();
            drop(guard);
        })
    });
    eventually("they read", || lock(&segment, "limits").readers.len() == 2);
    killed_inside(&name.0, |segment| core::mem::forget(segment.rwlock("limits", 0u64).unwrap().read()));
    let found = json(&["inspect", &name.0, "limits"]);
    assert_eq!(found["lock"]["state"], "read");
    assert_eq!(each(&found["lock"]["readers"], "alive"), [true, true, false]);
    crosslock(&["inspect", &name.0]).assert().success().stdout(contains("read by 2\n"));
    let unlock = crosslock(&["unlock", &name.0, "limits", "--force", "--yes"]).assert().code(2);
    unlock.stderr(contains("readers cannot be put out"));

    let _writer = Holder::start("writer", &segment, |segment, keep| {
        let limits = segment.rwlock("limits", 0u64).unwrap();
        let guard = limits.write();
        keep();
        drop(guard);
    });
    eventually("it waits for them", || lock(&segment, "limits").words.drain != 0);
    crosslock(&["inspect", &name.0]).assert().success().stdout(contains("2 read, awaited by pid"));
    let detail = crosslock(&["inspect", &name.0, "limits"]).assert().success();
    detail.stdout(contains("(writer), alive waits for readers to leave"));
    drop(_readers);
    eventually("it writes", || lock(&segment, "limits").words.writing != 0);
    crosslock(&["inspect", &name.0]).assert().success().stdout(contains("written by pid"));
}

#[test]
fn unlock_takes_a_lock_away_only_if_that_is_meant() {
    let name = Name::new("unlock");
    let segment = Segment::create(&name.0).unwrap();
    let mutex = segment.mutex("n", 0u64).unwrap();
    segment.spin_mutex::<u64, crosslock::crosslock_core::RawTas>("spin", 0).unwrap();
    let unlock =
        |more: &[&str]| crosslock(&[&["unlock", &name.0, "n"], more].concat()).write_stdin("y\n").assert();
    let guard = mutex.lock().unwrap();
    unlock(&[]).code(2).stderr(contains("say --force")).stderr(contains("dead needs no unlock"));
    unlock(&["--force"]).code(2).stderr(contains("no terminal to ask at")).stderr(contains("alive"));
    for (object, said) in [("none", "has no object"), ("spin", "only robust locks")] {
        crosslock(&["unlock", &name.0, object, "--force", "--yes"]).assert().code(2).stderr(contains(said));
    }
    unlock(&["--force", "--yes"])
        .success()
        .stdout(contains("taken away from pid"))
        .stdout(contains("next owner is told"));
    assert!(guard.unlock().is_err(), "it had the lock no more");
    unlock(&["--force", "--yes"]).success().stdout(contains("nothing to do: free, an owner died inside"));
    // Who does not mark the data consistent gives them up.
    let Err(LockError::OwnerDied(suspect)) = mutex.lock() else { panic!("nobody told of the unlock") };
    drop(suspect.into_guard());
    assert!(mutex.lock().is_err());
    crosslock(&["repair", &name.0])
        .assert()
        .success()
        .stdout(contains("n: not recoverable"))
        .stdout(contains("--force"));
    assert_eq!(json(&["unlock", &name.0, "n", "--force", "--yes"])["outcome"], "unlocked");
    assert!(matches!(mutex.lock(), Err(LockError::OwnerDied(_))));
}

#[test]
fn unlock_asks_at_a_terminal() {
    let name = Name::new("asks");
    let segment = Segment::create(&name.0).unwrap();
    let mutex = segment.mutex("n", 0u64).unwrap();
    let ask = |answer: &str, meanwhile: &dyn Fn()| {
        let mut unlock = OnTerminal::start(&["unlock", &name.0, "n", "--force"]);
        unlock.until("[y/N]");
        meanwhile();
        unlock.press(answer);
        let (status, written) = unlock.end();
        assert!(written.contains("is alive and has it"), "{written}");
        (status.code(), written)
    };
    core::mem::forget(mutex.lock().unwrap());
    assert_eq!(ask("\n", &|| ()).0, Some(1));
    assert_eq!(ask("n\n", &|| ()).0, Some(1));
    assert_eq!(lock(&segment, "n").condition().map(|condition| condition.owner_died), Some(false));
    assert_eq!(ask("y\n", &|| ()).0, Some(0));
    let Err(LockError::OwnerDied(suspect)) = mutex.lock() else { panic!("nobody told of the unlock") };
    let mut guard = suspect.into_guard();
    guard.mark_consistent();
    let guard = core::cell::RefCell::new(Some(guard));
    // Who gives it up, and takes it again, is not stuck.
    let (code, written) = ask("y\n", &|| {
        drop(guard.take());
        guard.replace(Some(mutex.lock().unwrap()));
    });
    assert!(code == Some(1) && written.contains("changed hands"), "{written}");
    guard.take().unwrap().unlock().unwrap();
}

#[test]
fn garbage_in_a_segment_is_shown_without_a_panic() {
    let name = Name::new("scribbled");
    let segment = Segment::create(&name.0).unwrap();
    segment.rwlock("rw", 0u64).unwrap();
    let mutex = segment.mutex("n", 0u64).unwrap();
    drop(mutex.lock().unwrap());
    drop(segment);
    let file = fs::OpenOptions::new().read(true).write(true).open(name.path()).unwrap();
    let mut header = [0; 256];
    file.read_exact_at(&mut header, 0).unwrap();
    let at = |field: usize| u64::from_le_bytes(header[field..][..8].try_into().unwrap());
    // Participants, seats, and the objects: not the directory, or there would be nothing to show.
    let places = [(at(88), 4 * 448), (at(112), 4 * 128), (at(128), 512), (200, 4)];
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..12 {
        for (start, len) in places {
            let garbage: Vec<u8> = (0..len)
                .map(|_| {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    if round % 3 == 0 {
                        0xff
                    } else {
                        (random >> 56) as u8 & if round % 3 == 1 { 1 } else { 0xff }
                    }
                })
                .collect();
            file.write_all_at(&garbage, start).unwrap();
        }
        let commands: [&[&str]; 6] = [
            &["inspect"],
            &["inspect", "--json"],
            &["top", "--once", "--interval", "10ms"],
            &["top", "--once", "--json", "--interval", "10ms"],
            &["repair"],
            &["ls"],
        ];
        for command in commands {
            let segment: &[&str] = if command[0] == "ls" { &[] } else { &[&name.0] };
            let code = crosslock(&[command, segment].concat()).output().unwrap().status.code();
            assert!(matches!(code, Some(0 | 2)), "{command:?}: {code:?}");
        }
        for object in ["n", "rw"] {
            crosslock(&["inspect", &name.0, object]).assert().success();
            let unlocked = crosslock(&["unlock", &name.0, object, "--force", "--yes"]).output().unwrap();
            assert!(matches!(unlocked.status.code(), Some(0..=2)), "{unlocked:?}");
        }
    }
}
