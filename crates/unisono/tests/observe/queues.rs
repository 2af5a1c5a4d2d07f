//! What is seen of a queue.

use std::time::{Duration, Instant};

use unisono::observe::{self, Process, QueueFacts};
use unisono::queue::{Handle, Presence, Reader, WhenGone, Writer};

use crate::faults::{PATIENCE, PROMPT, Scratch, soon, told};
use crate::harness::{self, Ranks};

const MESSAGES: u64 = 5;

fn own_number() -> usize {
    told("RANK").parse().expect("a number")
}

/// Process 0 writes; process 1 reads everything, process 2 one message and holds the next; nobody reads as rank 2.
pub(crate) fn write_or_read_some() {
    let file = std::path::Path::new(&told("HANDLE_IN")).join("handle");
    if own_number() == 0 {
        let builder = Writer::builder().readers(3).when_gone(WhenGone::GoOn);
        let mut writer = builder.create().expect("a queue");
        std::fs::write(file.with_extension("new"), writer.handle().to_bytes())
            .expect("the directory is there");
        std::fs::rename(file.with_extension("new"), &file).expect("the directory is there");
        let present = |writer: &Writer| {
            writer.readers().iter().filter(|reader| reader.presence == Presence::Alive).count()
        };
        soon("two readers come", || present(&writer) == 2);
        for number in 0..MESSAGES {
            writer.send(&[number as u8; 100]).expect("there is room");
        }
        harness::report("name", &writer.handle().name());
        harness::wait_for_go();
        return;
    }
    soon("the handle comes", || file.exists());
    let handle = Handle::from_bytes(&std::fs::read(file).expect("it is there")).expect("it arrives");
    let mut reader = Reader::open(&handle, own_number() - 1).expect("the rank is free");
    let reads = if own_number() == 1 { MESSAGES } else { 1 };
    for number in 0..reads {
        assert_eq!(reader.recv().expect("it comes").to_vec(), [number as u8; 100]);
    }
    harness::report("read", &reads.to_string());
    harness::wait_for_go();
}

fn started() -> (Ranks, Scratch, String) {
    let directory = Scratch::new("observed");
    let mut ranks = Ranks::of("write_or_read_some", 3).env("HANDLE_IN", directory.path()).start();
    let name = ranks.wait_for_report(0, "name", PATIENCE);
    for rank in [1, 2] {
        ranks.wait_for_report(rank, "read", PATIENCE);
    }
    (ranks, directory, name)
}

fn seen(name: &str) -> Option<QueueFacts> {
    let listing = observe::list(None).expect("one may look");
    listing.queues.into_iter().find(|queue| queue.name == name)
}

pub(crate) fn a_queue_is_seen_with_those_who_lag_who_died_and_who_never_came() {
    let (mut ranks, _directory, name) = started();
    let queue = seen(&name).expect("it is there");
    assert_eq!((queue.writer_rank, queue.writer.pid, queue.messages), (0, ranks.pid(0), MESSAGES));
    assert_eq!(queue.ring_bytes, 4 << 20);
    soon("the writer sleeps", || seen(&name).is_some_and(|queue| queue.writer.state == Process::Sleeping));
    assert!(queue.writer.command.is_some());
    let [whole, behind, absent] = &queue.readers[..] else { panic!("{queue:?}") };
    assert_eq!((whole.rank, behind.rank, absent.rank), (0, 1, 2));
    let pid = |reader: &observe::ReaderFacts| reader.process.as_ref().map(|process| process.pid);
    assert_eq!((whole.presence, pid(whole)), (Presence::Alive, Some(ranks.pid(1))));
    assert_eq!((whole.lag_messages, whole.lag_bytes), (0, 0));
    assert!(whole.last_step.is_some_and(|ago| ago < PATIENCE), "{whole:?}");
    assert_eq!((behind.presence, pid(behind)), (Presence::Alive, Some(ranks.pid(2))));
    assert_eq!(behind.lag_messages, MESSAGES - 1);
    assert!(behind.lag_bytes >= (MESSAGES - 1) * 100 && behind.lag_bytes < 4096, "{behind:?}");
    assert_eq!((absent.presence, pid(absent), absent.lag_messages), (Presence::Awaited, None, MESSAGES));
    assert!(queue.used_bytes >= behind.lag_bytes);

    ranks.kill(2);
    let presence = || seen(&name).expect("it goes on").readers[1].presence;
    soon("the death is seen", || presence() == Presence::Dead);
    let pid_of_the_dead = pid(&seen(&name).expect("it goes on").readers[1]);
    assert_eq!(pid_of_the_dead, Some(ranks.pid(2)));
    ranks.go(0);
    ranks.go(1);
    ranks.wait_others(&[2], PATIENCE);
    assert!(seen(&name).is_none(), "it is gone");
}

pub(crate) fn a_stopped_writer_is_told_soon() {
    let (mut ranks, _directory, name) = started();
    ranks.stop(0);
    let writer = ranks.pid(0);
    soon("it is stopped", || {
        unisono_os::process::state(writer) == Some(unisono_os::process::ProcessState::Stopped)
    });
    let start = Instant::now();
    let listing = observe::list(None).expect("one may look");
    assert!(start.elapsed() < PROMPT + Duration::from_millis(500), "{:?}", start.elapsed());
    assert!(listing.queues.iter().all(|queue| queue.name != name));
    let silent = listing.silent.iter().find(|silent| silent.process.pid == writer).expect("it is named");
    assert_eq!((silent.process.state, &silent.problem[..]), (Process::Stopped, "does not answer"));
    assert!(silent.address.contains("unisono-queue/"), "{}", silent.address);
    ranks.resume(0);
    soon("it answers again", || seen(&name).is_some());
    (0..3).for_each(|rank| ranks.go(rank));
    ranks.all_succeed(PATIENCE);
}
