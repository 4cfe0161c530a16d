//! Many clients, who come, go and ring.

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crosslock_ivshmem::{Client, Departure, PeerId, ServerOptions, Vector};
use support::{LONG, Random, Served, Told, eventually, knows};

const VECTORS: u16 = 3;

fn everybody(clients: &[Client]) -> Vec<PeerId> {
    let mut all: Vec<_> = clients.iter().map(Client::id).chain([PeerId::SERVER]).collect();
    all.sort_unstable();
    all
}

fn all_know_each_other(clients: &mut [Client]) {
    let all = everybody(clients);
    for client in clients {
        let others: Vec<_> = all.iter().copied().filter(|peer| *peer != client.id()).collect();
        knows(client, &others);
    }
}

#[test]
fn everybody_rings_everybody() {
    let served = Served::new(&ServerOptions::new(), VECTORS);
    let mut clients: Vec<_> = (0..12).map(|_| served.join()).collect();
    all_know_each_other(&mut clients);
    let mut rings = 0;
    for ringer in &clients {
        for rung in &clients {
            for vector in (0..VECTORS).map(Vector::new) {
                ringer.ring(rung.id(), vector).unwrap();
                // That bell, and no other.
                for heard in &clients {
                    for other in (0..VECTORS).map(Vector::new) {
                        let expected = heard.id() == rung.id() && other == vector;
                        assert_eq!(heard.wait(other, Some(Duration::ZERO)).unwrap(), expected);
                    }
                }
                rings += 1;
            }
        }
    }
    assert_eq!(rings, 12 * 12 * u32::from(VECTORS));
}

#[test]
fn no_ring_is_lost_on_its_way_round() {
    let served = Served::new(&ServerOptions::new(), 2);
    let mut clients: Vec<_> = (0..4).map(|_| served.join()).collect();
    all_know_each_other(&mut clients);
    // Not the one that departures ring.
    let (bell, rounds) = (Vector::new(1), 5000);
    let ids: Vec<_> = clients.iter().map(Client::id).collect();
    let start = Instant::now();
    std::thread::scope(|scope| {
        for (client, next) in clients.iter().zip(ids.iter().cycle().skip(1)) {
            scope.spawn(move || {
                for _ in 0..rounds {
                    assert!(client.wait(bell, Some(LONG)).unwrap(), "{} was not rung", client.id());
                    client.ring(*next, bell).unwrap();
                }
            });
        }
        clients[0].ring(ids[0], bell).unwrap();
    });
    let hops = rounds * u32::try_from(ids.len()).unwrap();
    println!("{hops} rings from thread to thread, {:?} each", start.elapsed() / hops);
}

#[test]
fn a_random_crowd_agrees_on_who_is_there() {
    let served = Served::new(&ServerOptions::new(), VECTORS);
    let mut random = Random::seeded();
    let mut clients: Vec<Client> = Vec::new();
    let (mut last, mut joined) = (PeerId::SERVER, 0);
    for _ in 0..150 {
        for _ in 0..random.below(8) {
            if clients.len() < 20 && random.below(100) < 55 {
                let client = served.join();
                assert!(client.id() > last, "ids rise");
                last = client.id();
                joined += 1;
                clients.push(client);
            } else if !clients.is_empty() {
                drop(clients.swap_remove(random.below(clients.len())));
            }
            if !clients.is_empty() && random.below(2) == 0 {
                let some = random.below(clients.len());
                clients[some].update().unwrap();
            }
        }
        if random.below(3) == 0 {
            all_know_each_other(&mut clients);
        }
    }
    let staying = clients.len();
    all_know_each_other(&mut clients);
    eventually("all departures are known", || {
        let told = served.record.all();
        let mut count: BTreeMap<u16, (u32, u32)> = BTreeMap::new();
        for told in told {
            match told {
                Told::Joined(peer) => count.entry(peer).or_default().0 += 1,
                Told::Left(peer, Departure::HungUp) => count.entry(peer).or_default().1 += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!(count.values().all(|(joined, left)| *joined == 1 && *left <= 1), "{count:?}");
        count.len() == joined && count.values().filter(|(_, left)| *left == 0).count() == staying
    });
    println!("{joined} joined, {staying} stayed");
}
