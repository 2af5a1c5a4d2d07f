//! A queue that has nothing to do costs nothing, and one that is gone leaves nothing.

use unisono::queue::{Error, Handle, Reader, WhenGone, Writer};

use crate::faults::{PATIENCE, note, soon, told};
use crate::harness::{self, Ranks};
use crate::leftovers::Holdings;
use crate::quiet::on_a_filtered_thread;
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

/// Process: send and receive, on one thread, under a filter that kills whoever waits or wakes.
pub(crate) fn send_and_receive_without_system_calls() {
    let mut writer = Writer::builder().readers(2).create().expect("a queue");
    let mut readers = [0, 1].map(|rank| Reader::open(writer.handle(), rank).expect("the writer is here"));
    writer.wait_until_ready(PATIENCE).expect("all have come");
    on_a_filtered_thread(move || {
        for round in 0..1000u32 {
            writer.send(&round.to_le_bytes()).expect("there is room");
            writer.send(&[7; 5000]).expect("there is room");
            for reader in &mut readers {
                assert_eq!(reader.recv().expect("it is there").to_vec(), round.to_le_bytes());
                assert_eq!(reader.recv().expect("it is there").len(), 5000);
            }
        }
        // What closes a queue wakes its threads, which the filter does not allow.
        std::mem::forget((writer, readers));
    });
    harness::report("quiet", "yes");
}

pub(crate) fn sending_to_readers_that_do_not_sleep_makes_no_system_call() {
    let outcomes = Ranks::start("send_and_receive_without_system_calls", 1).all_succeed(PATIENCE);
    assert_eq!(outcomes[0].reports("quiet"), ["yes"]);
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
