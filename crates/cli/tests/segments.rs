//! `crosslock create | ls | inspect | rm`, on good segments and on what only looks like one.

mod support;

use std::fs;

use predicates::str::contains;
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
