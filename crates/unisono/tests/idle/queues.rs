//! A queue that has nothing to do costs nothing, and one that is gone leaves nothing.

use unisono::queue::{Error, Handle, Reader, WhenGone, Writer};

use crate::faults::{PATIENCE, note, soon, system, told};
use crate::harness::{self, Ranks};
use crate::leftovers::Holdings;
use crate::waiting::assert_asleep;

fn to_text(handle: &Handle) -> String {
    handle.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Process: wait for a message that never comes, for room that nobody makes, or for a reader that never opens.
pub(crate) fn wait_at_a_queue() {
    let way = told("WAY");
    let mut writer = Writer::builder().ring_bytes(4096).create().expect("a queue");
    harness::report("handle", &to_text(writer.handle()));
    let mut reader = (way != "ready").then(|| Reader::open(writer.handle(), 0).expect("the writer is here"));
    let ended = match (way.as_str(), &mut reader) {
        ("message", Some(reader)) => {
            writer.send(b"one").expect("there is room");
            reader.recv().expect("it is there");
            harness::report("waits", "now");
            reader.recv_within(PATIENCE / 2).map(|_| ())
        }
        ("room", _) => {
            harness::report("waits", "now");
            loop {
                if let Err(error) = writer.send_within(&[0; 1000], PATIENCE / 2) {
                    break Err(error);
                }
            }
        }
        _ => {
            harness::report("waits", "now");
            writer.wait_until_ready(PATIENCE / 2)
        }
    };
    assert!(matches!(ended, Err(Error::Timeout { .. })), "{ended:?}");
}

pub(crate) fn both_sides_of_a_queue_sleep_while_they_wait() {
    std::thread::scope(|scope| {
        for way in ["message", "room", "ready"] {
            scope.spawn(move || {
                let mut ranks = Ranks::of("wait_at_a_queue", 1).env("WAY", way).start();
                ranks.wait_for_report(0, "waits", PATIENCE);
                assert_asleep(&format!("a queue, for {way}"), &[ranks.pid(0)]);
            });
        }
    });
}

/// Process: send and receive, on one thread, under a filter that kills at any system call whatever.
pub(crate) fn send_and_receive_without_system_calls() {
    let mut writer = Writer::builder().readers(2).create().expect("a queue");
    let mut readers = [0, 1].map(|rank| Reader::open(writer.handle(), rank).expect("the writer is here"));
    writer.wait_until_ready(PATIENCE).expect("all have come");
    harness::report("begins", "now");
    let mut buffer = vec![0; 5000];
    system::kill_on_any_call_but_the_end();
    for round in 0..10_000u32 {
        writer.send(&round.to_le_bytes()).expect("there is room");
        writer.send(&[7; 5000]).expect("there is room");
        for reader in &mut readers {
            assert_eq!(reader.recv_into(&mut buffer).expect("it is there"), 4);
            assert_eq!(buffer[..4], round.to_le_bytes());
            assert_eq!(reader.recv().expect("it is there").len(), 5000);
        }
    }
    system::end(QUIET_TO_THE_END);
}

const QUIET_TO_THE_END: i32 = 42;

pub(crate) fn sending_to_readers_that_do_not_sleep_makes_no_system_call() {
    let outcomes = Ranks::start("send_and_receive_without_system_calls", 1).wait_all(PATIENCE);
    assert_eq!(outcomes[0].status.code(), Some(QUIET_TO_THE_END), "{}", outcomes[0].output);
}

/// Process: many messages too large for the ring, of many lengths; a few homes are enough for them.
pub(crate) fn send_many_large_messages() {
    let mut writer = Writer::builder().max_chunk_bytes(100).create().expect("a queue");
    let mut reader = Reader::open(writer.handle(), 0).expect("the writer is here");
    let homes = || {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("a process sees itself");
        maps.lines().filter(|line| line.contains("memfd:unisono-message")).count() / 2 // On both sides.
    };
    let mut most = 0;
    for round in 0..2000usize {
        let bytes = 101 + round * 7919 % 60_000;
        writer.send(&vec![round as u8; bytes]).expect("there is room");
        assert_eq!(reader.recv().expect("it is there").len(), bytes);
        most = most.max(homes());
    }
    assert!(most <= 8, "{most} homes for one message at a time");
    drop((writer, reader));
    assert_eq!(homes(), 0);
}

pub(crate) fn homes_of_large_messages_are_used_again() {
    Ranks::start("send_many_large_messages", 1).all_succeed(PATIENCE);
}

/// Process: open queues and let go of them, in every order, with small and large messages under way.
pub(crate) fn open_and_close_many_queues() {
    let use_one = |round: usize| {
        let mut writer = Writer::builder().readers(2).when_gone(WhenGone::GoOn).create().expect("a queue");
        let mut readers: Vec<Reader> =
            [0, 1].map(|rank| Reader::open(writer.handle(), rank).expect("the writer is here")).into();
        writer.send(&vec![1; 1 + round * 100_000 % 5_000_000]).expect("there is room");
        let message = readers[1].recv().expect("it is there");
        match round % 3 {
            0 => drop(message),
            1 => message.keep(),
            _ => drop((message, writer)),
        }
    };
    use_one(0);
    let before = Holdings::now();
    (1..60).for_each(use_one);
    soon("a process holds what it held before", || Holdings::now() == before);
}

pub(crate) fn a_queue_that_is_gone_leaves_nothing_in_its_process() {
    let start = std::time::Instant::now();
    Ranks::start("open_and_close_many_queues", 1).all_succeed(PATIENCE);
    note(&format!("60 queues with two readers each, opened and closed, in {:.0?}", start.elapsed()));
}

/// How many bytes of this process's mappings are memory of queues, each memory counted once.
fn memory_of_queues() -> u64 {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("a process sees itself");
    let ends = maps.lines().filter(|line| line.contains("/memfd:unisono")).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let number = |text| u64::from_str_radix(text, 16).ok();
        let (start, end) = fields[0].split_once('-')?;
        Some((fields[4].to_string(), number(fields[2])? + number(end)? - number(start)?))
    });
    let mut memories = std::collections::BTreeMap::new();
    ends.for_each(|(inode, end)| {
        let longest: &mut u64 = memories.entry(inode).or_default();
        *longest = end.max(*longest);
    });
    memories.values().sum()
}

fn in_dev_shm() -> Vec<std::ffi::OsString> {
    let entries = std::fs::read_dir("/dev/shm").expect("it can be listed").filter_map(Result::ok);
    entries
        .map(|entry| entry.file_name())
        .filter(|name| name.to_string_lossy().contains("unisono-queue"))
        .collect()
}

/// Process: a queue to eight readers, all of them here, and messages of 24 MiB through it.
pub(crate) fn have_eight_readers() {
    const RING: u64 = 4 << 20;
    const MESSAGE: usize = 24 << 20;
    let mut writer = Writer::builder().readers(8).create().expect("a queue");
    let open = |rank| Reader::open(writer.handle(), rank).expect("the writer is here");
    let mut readers: Vec<Reader> = (0..8).map(open).collect();
    let idle = memory_of_queues();
    assert!(idle < RING + (1 << 20), "{idle} bytes");
    for _ in 0..3 {
        writer.send(&vec![1; MESSAGE]).expect("there is room");
        readers.iter_mut().for_each(|reader| assert_eq!(reader.recv().expect("it is there").len(), MESSAGE));
    }
    let used = memory_of_queues();
    assert!(used < idle + 2 * MESSAGE as u64, "{used} bytes: one home is enough, mapped by all");
    assert_eq!(in_dev_shm(), [""; 0]);
    harness::report("memory", &format!("{} KiB idle, {} KiB with 24 MiB under way", idle >> 10, used >> 10));
}

pub(crate) fn a_queue_takes_its_ring_and_none_of_dev_shm() {
    let outcomes = Ranks::start("have_eight_readers", 1).all_succeed(PATIENCE);
    note(&format!("a queue to eight readers: {}", outcomes[0].reports("memory").concat()));
}

/// Process: write to a reader, or read, for ever.
pub(crate) fn work_until_killed() {
    let mut writer = Writer::builder().create().expect("a queue");
    let mut reader = Reader::open(writer.handle(), 0).expect("the writer is here");
    harness::report("name", &writer.handle().name());
    loop {
        writer.send(&[1; 2 << 20]).expect("there is room");
        drop(reader.recv().expect("it is there"));
    }
}

pub(crate) fn a_queue_of_which_all_are_killed_leaves_nothing() {
    let mut ranks = Ranks::start("work_until_killed", 1);
    let name = ranks.wait_for_report(0, "name", PATIENCE);
    let sockets = || std::fs::read_to_string("/proc/net/unix").expect("sockets are listed");
    assert!(sockets().contains(&format!("unisono-queue/{name}")));
    ranks.kill(0);
    ranks.wait_others(&[], PATIENCE);
    assert!(!sockets().contains(&name));
    assert_eq!(in_dev_shm(), [""; 0]);
}
