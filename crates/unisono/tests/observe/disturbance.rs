//! Floods of questions, of garbage and of silence: neither calls nor the news of a death wait for those who look.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use unisono::queue::{Reader, Writer};
use unisono::{ReduceOp, observe};
use unisono_os::socket::{Address, Connection, listening};

use crate::faults::{self, PATIENCE, PROMPT, connect, ended, note, soon};
use crate::harness::{self, Ranks};

/// Rank: add up until a rank dies, and tell how often that went well.
pub(crate) fn add_up_until_a_death() {
    let comm = connect();
    let mut sums = 0;
    loop {
        let mut values = [1.0f32; 256];
        match comm.all_reduce(&mut values, ReduceOp::Sum) {
            Ok(()) => assert!(values.iter().all(|value| *value == comm.world_size() as f32)),
            Err(error) => return faults::tell(&error),
        }
        sums += 1;
        if sums % 1_000 == 0 {
            harness::report("sums", &sums.to_string());
        }
    }
}

/// Process: a queue within it, in use until the test says otherwise.
pub(crate) fn exchange_until_told() {
    let mut writer = Writer::builder().readers(1).create().expect("a queue");
    let mut reader = Reader::open(writer.handle(), 0).expect("the writer is here");
    harness::report("name", &writer.handle().name());
    let told = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            harness::wait_for_go();
            told.store(true, Ordering::Relaxed);
        });
        let mut number = 0u64;
        while !told.load(Ordering::Relaxed) {
            writer.send_within(&number.to_le_bytes(), PROMPT).expect("there is room");
            assert_eq!(reader.recv_within(PROMPT).expect("it comes").to_vec(), number.to_le_bytes());
            number += 1;
            if number.is_multiple_of(1_000) {
                harness::report("messages", &number.to_string());
            }
        }
    });
}

/// Knock at these without end, and count it: say nothing and stay, say garbage, ask and not listen.
fn flood(names: &[String], over: &AtomicBool, count: &AtomicU64) {
    let mut silent: Vec<Connection> = Vec::new();
    while !over.load(Ordering::Relaxed) {
        for (kind, name) in names.iter().enumerate() {
            let address = Address::Abstract(name.clone().into_bytes());
            let now = Some(Instant::now());
            // A queue of those who wait that is full is what a flood comes to.
            let Ok(connection) = Connection::connect(&address, now) else { continue };
            let knocks = count.fetch_add(1, Ordering::Relaxed) + 1;
            let garbage = vec![knocks as u8; 1 + (knocks as usize * 37) % 5000];
            match (knocks as usize + kind) % 4 {
                0 => silent.push(connection),
                1 => drop(connection.send(&garbage, &[], now)),
                2 => drop(connection.send(&[0, 1], &[], now)),
                _ => {
                    let _ = connection.send(&[6], &[], now);
                    silent.push(connection);
                }
            }
        }
        silent.drain(..silent.len().saturating_sub(300));
    }
}

/// Flood while `then` is done, which begins once it is a flood.
fn flooding(names: &[String], then: impl FnOnce()) {
    let (over, knocks) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| flood(names, &over, &knocks));
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let end = Instant::now() + PATIENCE;
            while knocks.load(Ordering::Relaxed) < 200 {
                assert!(Instant::now() < end, "it never is a flood");
                std::thread::sleep(Duration::from_millis(1));
            }
            then();
        }));
        over.store(true, Ordering::Relaxed);
        flood.join().expect("it goes on to the end");
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
    note(&format!("{} knocks", knocks.load(Ordering::Relaxed)));
}

/// The names at which this process listens, and which begin so.
fn names_of(pid: u32, start: &str) -> Vec<String> {
    let is_its = |name: &String| {
        let address = Address::Abstract(name.clone().into_bytes());
        unisono_os::socket::holder_of(&address).is_some_and(|holder| holder.pid == pid)
    };
    listening(start).expect("sockets can be seen").into_iter().filter(is_its).collect()
}

fn progress(ranks: &mut Ranks, key: &str) -> u64 {
    ranks.wait_for_report(0, key, PATIENCE).parse().expect("a number")
}

pub(crate) fn a_flood_at_the_sockets_of_ranks_holds_up_neither_calls_nor_the_news_of_a_death() {
    let mut ranks = Ranks::start("add_up_until_a_death", 2);
    progress(&mut ranks, "sums");
    let names: Vec<String> =
        [0, 1].iter().flat_map(|rank| names_of(ranks.pid(*rank), "unisono-rank/")).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    let mut killed_at = 0;
    flooding(&names, || {
        std::thread::sleep(Duration::from_millis(500));
        let before = progress(&mut ranks, "sums");
        let end = Instant::now() + PATIENCE * 4;
        while progress(&mut ranks, "sums") < before + 5_000 {
            assert!(Instant::now() < end, "calls go on");
            std::thread::sleep(Duration::from_millis(1));
        }
        killed_at = unisono_os::clock::monotonic_nanoseconds();
        ranks.kill(1);
        ranks.wait_others(&[], PATIENCE);
    });
    let outcomes = ranks.wait_all(PATIENCE);
    let told = ended(&outcomes[0]);
    assert_eq!((told.kind.as_str(), &told.ranks[..]), ("PeerDied", &[1][..]));
    let heard_after = Duration::from_nanos(told.at.saturating_sub(killed_at));
    note(&format!("heard of the death after {heard_after:?}"));
    assert!(heard_after < PROMPT, "{heard_after:?}");
}

pub(crate) fn a_flood_at_the_socket_of_a_queue_does_not_hold_it_up() {
    let mut ranks = Ranks::start("exchange_until_told", 1);
    let name = ranks.wait_for_report(0, "name", PATIENCE);
    progress(&mut ranks, "messages");
    let names = names_of(ranks.pid(0), "unisono-queue/");
    assert_eq!(names.len(), 1, "{names:?}");
    flooding(&names, || {
        let before = progress(&mut ranks, "messages");
        let end = Instant::now() + PATIENCE * 4;
        while progress(&mut ranks, "messages") < before + 5_000 {
            assert!(Instant::now() < end, "messages go on");
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    soon("it answers again", || {
        let listing = observe::list(None).expect("one may look");
        listing.queues.iter().any(|queue| queue.name == name && queue.readers[0].lag_messages <= 1)
    });
    ranks.go(0);
    ranks.all_succeed(PATIENCE);
}
