//! Nobody waits for the dead elsewhere: their machine resets the connection, and that is told at once.

use std::time::Duration;

use unisono::queue::{Error, WhenGone, Writer};

use crate::common::{self, PATIENCE, ended_in, processes};
use crate::faults::{self, PROMPT, note, reported, told};
use crate::harness;
use crate::waits::LOCAL;

/// Process: 0 writes, 1 reads in its memory, 2 and 3 elsewhere; until somebody is dead.
pub(crate) fn work_until_the_end() {
    let me = common::own_number();
    let end = if me == 0 {
        let builder = Writer::builder().reader_ranks([0]).remote_readers([1, 2]).connect_ip(LOCAL);
        let mut writer = builder.create().expect("a queue");
        common::publish(&writer);
        writer.wait_until_ready(PATIENCE).expect("all come");
        harness::report("works", "");
        loop {
            if let Err(error) = writer.send_within(&[1; 3000], PATIENCE) {
                break error;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    } else {
        let mut reader = common::open(me - 1);
        reader.wait_until_ready(PATIENCE).expect("all come");
        let mut count = 0;
        loop {
            match reader.recv_within(PATIENCE) {
                Ok(message) => assert_eq!(message.len(), 3000),
                Err(error) => break error,
            }
            count += 1;
            if count == 100 {
                harness::report("reads", "");
            }
        }
    };
    common::tell(&end);
}

/// Kill this process while all work; gives what the others heard.
fn kill(victim: usize) -> Vec<(usize, common::Ended)> {
    let (builder, _directory) = processes("work_until_the_end", 3);
    let mut ranks = builder.start();
    ranks.wait_for_report(0, "works", PATIENCE);
    (1..4).for_each(|reader| drop(ranks.wait_for_report(reader, "reads", PATIENCE)));
    let (pid, at) = (ranks.pid(victim), unisono_os::clock::monotonic_nanoseconds());
    ranks.kill(victim);
    let others = ranks.wait_all(PATIENCE).into_iter().filter(|outcome| outcome.rank != victim);
    let heard = |outcome: harness::Outcome| {
        outcome.assert_success();
        (outcome.rank, ended_in(&reported(&outcome, "ended").expect("it said how it ended")))
    };
    let heard: Vec<_> = others.map(heard).collect();
    for (rank, ended) in &heard {
        let took = Duration::from_nanos(ended.at.saturating_sub(at));
        assert!(took < PROMPT, "process {rank} heard after {took:?}: {}", ended.text);
        note(&format!("process {victim} killed: {rank} knew after {:.2} ms", took.as_secs_f64() * 1e3));
        if ended.kind == "LinkLost" || ended.kind == "PeerDied" {
            assert_eq!(ended.named.first().map(|(_, pid)| *pid), Some(pid), "{}", ended.text);
        }
    }
    heard
}

pub(crate) fn a_killed_writer_is_told_to_every_reader_elsewhere() {
    let kinds: Vec<_> = kill(0).into_iter().map(|(rank, ended)| (rank, ended.kind)).collect();
    let expected = [(1, "PeerDied"), (2, "LinkLost"), (3, "LinkLost")];
    assert!(kinds.iter().map(|(rank, kind)| (*rank, kind.as_str())).eq(expected), "{kinds:?}");
}

pub(crate) fn a_killed_reader_elsewhere_is_named_to_the_writer() {
    let heard = kill(2);
    let (_, writer) = heard.iter().find(|(rank, _)| *rank == 0).expect("the writer heard of it");
    assert_eq!((writer.kind.as_str(), writer.named[0].0), ("LinkLost", 1), "{}", writer.text);
    assert!(writer.text.contains("127.0.0.1"), "{}", writer.text);
    // The writer says goodbye to those who are left.
    assert!(
        heard.iter().filter(|(rank, _)| *rank != 0).all(|(_, ended)| ended.kind == "PeerLeft"),
        "{heard:?}"
    );
}

/// Process: 0 writes numbers, 1 reads elsewhere and is killed, 2 takes its rank afterwards.
pub(crate) fn go_on_or_await() {
    let me = common::own_number();
    let policy = if told("POLICY") == "await" { WhenGone::AwaitReturn } else { WhenGone::GoOn };
    if me == 0 {
        let builder = Writer::builder().readers(0).remote_readers([0]).connect_ip(LOCAL).when_gone(policy);
        let mut writer = builder.create().expect("a queue");
        common::publish(&writer);
        let mut number = 0u64;
        loop {
            match writer.send_within(&number.to_le_bytes(), PATIENCE) {
                Ok(()) => number += 1,
                Err(Error::PeerLeft { .. }) => return,
                Err(error) => panic!("{error}"),
            }
            if writer.readers()[0].presence == unisono::queue::Presence::Left {
                return;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }
    if me == 2 {
        harness::wait_for_go();
    }
    let mut reader = common::open(0);
    let mut expected: Option<u64> = (me == 1).then_some(0);
    for count in 0..500 {
        let message = reader.recv_within(PATIENCE).expect("it goes on");
        let number = u64::from_le_bytes(message.to_vec().try_into().expect("a number"));
        assert_eq!(message.number(), number);
        drop(message);
        if count == 0 {
            harness::report("first", &number.to_string());
        }
        assert!(expected.is_none_or(|expected| number == expected), "{number} in place of {expected:?}");
        expected = Some(number + 1);
        if me == 1 {
            harness::report("last", &number.to_string());
        }
    }
    if me == 1 {
        faults::tell_time("dies");
        harness::kill_myself();
    }
}

fn after_a_death(policy: &str) -> [u64; 2] {
    let (builder, _directory) = processes("go_on_or_await", 2);
    let mut ranks = builder.env("POLICY", policy).start();
    ranks.wait_for_report(1, "dies", PATIENCE); // All that it reported before is there, too.
    ranks.wait_others(&[0, 2], PATIENCE);
    let last = ranks.reports(1, "last").pop().expect("it read");
    ranks.go(2);
    let first = ranks.wait_for_report(2, "first", PATIENCE);
    let outcomes = ranks.wait_all(PATIENCE);
    assert!(outcomes[1].was_killed());
    outcomes[0].assert_success();
    outcomes[2].assert_success();
    [last, first].map(|number| number.parse().expect("a number"))
}

pub(crate) fn a_queue_goes_on_without_a_dead_reader_elsewhere() {
    let [last, first] = after_a_death("go on");
    assert!(first > last, "{first} after {last}");
}

pub(crate) fn a_queue_keeps_messages_for_a_dead_reader_elsewhere() {
    let [last, first] = after_a_death("await");
    // What it had finished, and could not say any more, comes again; nothing is left out.
    assert!(first <= last + 1, "{first} after {last}");
}
