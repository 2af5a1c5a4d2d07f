//! The writer's host: whoever crowds its door, does not listen or takes its descriptors delays nobody else.

use std::time::{Duration, Instant};

use unisono::queue::{Error, Reader, WhenGone, Writer};
use unisono_os::socket::{Address, Connection};

use crate::common::{self, PATIENCE, ended_in, processes};
use crate::faults::log::Warnings;
use crate::faults::{PROMPT, Scratch, needs_root, note, reported, system};
use crate::harness;

const LARGE: usize = 3 << 20;

/// Process: process 0 makes and gives up so many homes of large messages that the socket of a reader that is stopped is
/// full; process 1 is the one stopped, 2 the one killed, 3 the one that comes late.
pub(crate) fn work_beside_a_stopped_reader() {
    let me = common::own_number();
    if me > 0 {
        if me == 3 {
            harness::wait_for_go();
        }
        let mut reader = common::open(me - 1);
        harness::report("open", "yes");
        loop {
            match reader.recv() {
                Ok(message) if message.len() == LARGE => harness::report("large", "yes"),
                Ok(_) => {}
                Err(error) => break common::tell(&error),
            }
        }
        return;
    }
    let mut writer = Writer::builder().readers(3).create().expect("a queue");
    common::publish(&writer);
    harness::wait_for_go();
    let start = Instant::now();
    for _ in 0..400 {
        drop(writer.reserve(65 << 20).expect("nobody is waited for")); // Too large to be kept.
    }
    writer.send(&vec![1; LARGE]).expect("nobody is waited for");
    harness::report("given-up", &start.elapsed().as_millis().to_string());
    loop {
        if let Err(error) = writer.send(b"?") {
            break common::tell(&error);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    harness::wait_for_go();
}

pub(crate) fn a_stopped_reader_delays_nobody_and_misses_nothing() {
    let (builder, _directory) = processes("work_beside_a_stopped_reader", 3);
    let mut ranks = builder.start();
    ranks.wait_for_report(1, "open", PATIENCE);
    ranks.wait_for_report(2, "open", PATIENCE);
    ranks.stop(1);
    ranks.go(0);
    let took: u64 = ranks.wait_for_report(0, "given-up", PATIENCE).parse().expect("milliseconds");
    assert!(took < PATIENCE.as_millis() as u64 / 4, "{took} ms");
    let start = Instant::now();
    ranks.go(3);
    ranks.wait_for_report(3, "open", PROMPT);
    ranks.wait_for_report(3, "large", PROMPT);
    note(&format!(
        "beside a stopped reader: let in and told of a large message after {:.1?}",
        start.elapsed()
    ));
    let (killed, start) = (ranks.pid(2), Instant::now());
    ranks.kill(2);
    let ended = ended_in(&ranks.wait_for_report(0, "ended", PROMPT));
    assert_eq!((ended.kind.as_str(), &ended.named[..]), ("PeerDied", &[(1, killed)][..]), "{}", ended.text);
    note(&format!("beside a stopped reader: a death was told after {:.1?}", start.elapsed()));
    assert!(ranks.reports(1, "large").is_empty(), "it is stopped");
    ranks.resume(1);
    ranks.wait_for_report(1, "large", PATIENCE);
    ranks.go(0);
    let outcomes = ranks.wait_all(PATIENCE);
    for outcome in [&outcomes[0], &outcomes[1], &outcomes[3]] {
        outcome.assert_success();
    }
    assert_eq!(ended_in(&reported(&outcomes[1], "ended").expect("it ended")).kind, "PeerLeft");
}

pub(crate) fn a_crowd_of_strangers_keeps_no_reader_out() {
    let directory = Scratch::new("queue-door");
    let mut writer = Writer::builder().directory(directory.path()).create().expect("a queue");
    let door = Address::File(std::path::Path::new(directory.path()).join(&directory.entries()[0]));
    let knock = |index: u8| {
        let stranger = Connection::connect(&door, Some(Instant::now() + PATIENCE)).expect("it is open");
        if index.is_multiple_of(2) {
            // What it says is no message; that it may be turned away before it has said it is no matter.
            let _ = stranger.send(&[index; 100], &[], Some(Instant::now()));
        }
        stranger
    };
    let crowd: Vec<Connection> = (0..200).map(knock).collect();
    let start = Instant::now();
    let mut reader = Reader::open(writer.handle(), 0).expect("the writer is here");
    assert!(start.elapsed() < PROMPT, "let in after {:?}", start.elapsed());
    writer.send(b"heard").expect("it is here");
    assert_eq!(reader.recv().expect("it is there").to_vec(), b"heard");
    drop(crowd);
}

/// What a process has used of the processors.
fn processor_time(pid: u32) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it lives").filter_map(Result::ok);
    let used = |thread: std::fs::DirEntry| -> Option<u64> {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse().ok()
    };
    Duration::from_nanos(threads.filter_map(used).sum())
}

/// Process: process 0 has no descriptor left when the reader comes.
pub(crate) fn come_to_a_writer_without_descriptors() {
    if common::own_number() == 1 {
        harness::wait_for_go();
        let mut reader = common::open(0);
        assert_eq!(reader.recv().expect("it is sent").to_vec(), b"welcome");
        return;
    }
    let mut writer = Writer::builder().create().expect("a queue");
    common::publish(&writer);
    let taken = system::take_descriptors(0);
    harness::report("without", "yes");
    harness::wait_for_go();
    drop(taken);
    writer.wait_until_ready(PATIENCE).expect("the reader comes in at last");
    writer.send(b"welcome").expect("it is here");
}

pub(crate) fn a_writer_without_descriptors_rests_and_lets_in_when_it_has_some() {
    let (builder, _directory) = processes("come_to_a_writer_without_descriptors", 1);
    let mut ranks = builder.start();
    ranks.wait_for_report(0, "without", PATIENCE);
    ranks.go(1);
    let before = processor_time(ranks.pid(0));
    std::thread::sleep(Duration::from_secs(1));
    let used = processor_time(ranks.pid(0)) - before;
    assert!(used < Duration::from_millis(100), "{used:?} in a second");
    note(&format!("a writer without descriptors at whose door somebody stands: {used:?} in a second"));
    ranks.go(0);
    ranks.all_succeed(PATIENCE);
}

/// Process: process 1 has no descriptor left when a large message comes.
pub(crate) fn receive_without_descriptors() {
    if common::own_number() == 0 {
        let mut writer = Writer::builder().when_gone(WhenGone::AwaitReturn).create().expect("a queue");
        common::publish(&writer);
        writer.wait_until_ready(PATIENCE).expect("it comes");
        harness::wait_for_go();
        for message in [&vec![1; 10], &vec![2; LARGE], &vec![3; 10]] {
            writer.send(message).expect("it is here, or awaited");
        }
        harness::wait_for_go();
        return;
    }
    let mut reader = common::open(0);
    let taken = system::take_descriptors(0);
    harness::report("without", "yes");
    assert_eq!(reader.recv().expect("it is in the ring").len(), 10);
    for _ in 0..2 {
        let lost = reader.recv_within(PATIENCE).expect_err("its memory cannot come");
        assert!(matches!(lost, Error::Undelivered { .. }), "{lost}");
        assert!(lost.to_string().contains("may not open that many"), "{lost}");
    }
    // As the error says: make room, and open the queue again.
    drop((taken, reader));
    let mut reader = common::open(0);
    assert_eq!(reader.recv().expect("it was kept").to_vec(), vec![2; LARGE]);
    assert_eq!(reader.recv().expect("it was kept").to_vec(), [3; 10]);
    harness::report("read", "all");
}

pub(crate) fn a_large_message_that_cannot_arrive_is_told_and_is_no_death() {
    let (builder, _directory) = processes("receive_without_descriptors", 1);
    let mut ranks = builder.start();
    ranks.wait_for_report(1, "without", PATIENCE);
    ranks.go(0);
    ranks.wait_for_report(1, "read", PATIENCE);
    ranks.go(0);
    ranks.all_succeed(PATIENCE);
}

/// Process: 0 writes, 1 knocks as another user as fast as it can, 2 reads.
pub(crate) fn work_beside_a_flood() {
    match common::own_number() {
        0 => {
            static WARNINGS: Warnings = Warnings::new();
            tracing::subscriber::set_global_default(&WARNINGS).expect("it is the first");
            let mut writer = Writer::builder().create().expect("a queue");
            common::publish(&writer);
            harness::report("name", &writer.handle().name());
            writer.wait_until_ready(PATIENCE).expect("the reader comes in");
            writer.send(b"heard").expect("it is here");
            harness::wait_for_go();
            let of_others = |words: &&String| words.contains("turned away");
            harness::report("warnings", &WARNINGS.words().iter().filter(of_others).count().to_string());
        }
        1 => {
            let name = harness::wait_for_words().into_bytes();
            system::become_user(65_534);
            let door = Address::Abstract(name);
            let mut knocks = 0u64;
            loop {
                if Connection::connect(&door, Some(Instant::now())).is_err() {
                    continue;
                }
                knocks += 1;
                if knocks.is_multiple_of(1000) {
                    harness::report("knocks", &knocks.to_string());
                }
            }
        }
        _ => {
            harness::wait_for_go();
            let start = Instant::now();
            let mut reader = common::open(0);
            harness::report("open", &format!("{:.0?}", start.elapsed()));
            assert_eq!(reader.recv().expect("it is sent").to_vec(), b"heard");
        }
    }
}

pub(crate) fn a_flood_of_another_users_knocks_keeps_neither_the_host_busy_nor_a_reader_out() {
    needs_root();
    let (builder, _directory) = processes("work_beside_a_flood", 2);
    let mut ranks = builder.start();
    let name = ranks.wait_for_report(0, "name", PATIENCE);
    let doors = unisono_os::socket::listening(&format!("unisono-queue/{name}")).expect("sockets can be seen");
    ranks.go_with(1, &doors[0]);
    ranks.wait_for_report(1, "knocks", PATIENCE);
    let before = processor_time(ranks.pid(0));
    std::thread::sleep(Duration::from_secs(1));
    let used = processor_time(ranks.pid(0)) - before;
    ranks.go(2);
    let open = ranks.wait_for_report(2, "open", PATIENCE);
    let knocks = ranks.wait_for_report(1, "knocks", PATIENCE);
    ranks.go(0);
    let warnings: usize = ranks.wait_for_report(0, "warnings", PATIENCE).parse().expect("a number");
    note(&format!(
        "{knocks} knocks of another user: {used:.0?} of the host in a second, {warnings} warnings, a reader let in after {open}"
    ));
    assert!(used < Duration::from_millis(150), "{used:?} in a second");
    assert!((1..=5).contains(&warnings), "one in ten seconds: {warnings}");
    ranks.kill(1);
    let outcomes = ranks.wait_all(PATIENCE);
    [0, 2].into_iter().for_each(|process: usize| outcomes[process].assert_success());
}
