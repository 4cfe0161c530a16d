//! Ids are given once.

mod support;

use std::time::Instant;

use crosslock_ivshmem::{Error, PeerId, ServerOptions, Vector};
use support::{LONG, Raw, Served};

/// Peers that come, in all.
const COMERS: u32 = 70_000;

#[test]
fn no_id_twice_and_an_error_at_the_end() {
    let served = Served::new(&ServerOptions::new(), 1);
    let survivor = served.join();
    let start = Instant::now();
    for expected in 2..=i64::from(u16::MAX) {
        let raw = Raw::connect(&served.socket);
        assert_eq!(raw.number(), (0, false));
        assert_eq!(raw.number(), (expected, false));
    }
    println!("65534 joined and left in {:?}", start.elapsed());
    for _ in u32::from(u16::MAX)..COMERS {
        assert!(Raw::connect(&served.socket).hear().is_none(), "there is no id left");
    }
    assert!(matches!(served.try_join(), Err(Error::TurnedAway { .. })));
    // Who is there goes on.
    while survivor.wait(Vector::new(0), Some(std::time::Duration::ZERO)).unwrap() {}
    survivor.ring(PeerId::SERVER, Vector::new(0)).unwrap();
    served.record.wait_for(support::Told::Rung(0));
    survivor.ring(survivor.id(), Vector::new(0)).unwrap();
    assert!(survivor.wait(Vector::new(0), Some(LONG)).unwrap());
}
