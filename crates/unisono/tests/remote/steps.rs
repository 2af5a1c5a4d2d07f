//! kill -9 of a reader on another machine, and of the writer, at each step of coming in and of a message's way.
//!
//! The machines are network namespaces. Whoever was let in and has said that it is ready is missed, as the queue's policy says;
//! whoever had not takes nothing with it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use unisono::queue::{Reader, WhenGone, Writer};

use crate::common::{self, PATIENCE, ended_in, processes};
use crate::faults::{PROMPT, note, reported, told};
use crate::harness::{self, Builder, Outcome, Ranks};
use crate::machines::Machines;

/// Numbered messages, each of three parts.
const MESSAGES: u64 = 40;
const BYTES: usize = 600 << 10;

fn is_number(message: &[u8]) -> Option<u64> {
    (message.len() == BYTES).then(|| u64::from_le_bytes(message[..8].try_into().expect("eight bytes")))
}

/// Process: 0 writes to two readers elsewhere, then empty messages now and then until it is told to leave; 1 reads all; 2 is the
/// one that is killed; 3 takes its rank.
pub(crate) fn exchange_while_somebody_dies() {
    let me = common::own_number();
    if me == 0 {
        return write_until_told();
    }
    if me > 1 {
        harness::wait_for_go();
    }
    let mut reader = open_or_tell((me - 1).min(1));
    harness::report("open", "yes");
    let mut expected = None;
    let end = loop {
        let message = match reader.recv_within(PATIENCE) {
            Ok(message) => message,
            Err(error) => break error,
        };
        let Some(number) = is_number(&message.to_vec()) else { continue };
        assert!(expected.is_none_or(|expected| number == expected), "{number} in place of {expected:?}");
        if expected.is_none() {
            harness::report("first", &number.to_string());
        }
        expected = Some(number + 1);
        harness::report("last", &number.to_string()); // Before it is finished.
    };
    common::tell(&end);
}

/// Whoever cannot come in tells that as its end.
fn open_or_tell(rank: usize) -> Reader {
    Reader::open(&common::handle_of("handle"), rank).unwrap_or_else(|error| {
        common::tell(&error);
        std::process::exit(0);
    })
}

fn write_until_told() {
    let policy = match &told("POLICY")[..] {
        "go on" => WhenGone::GoOn,
        "await" => WhenGone::AwaitReturn,
        _ => WhenGone::Fail,
    };
    let ip = told("CONNECT_IP").parse().expect("an address");
    let builder = Writer::builder().readers(0).remote_readers([0, 1]).connect_ip(ip).when_gone(policy);
    let mut writer = builder.create().expect("a queue");
    common::publish(&writer);
    let is_to_leave = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            harness::wait_for_go();
            is_to_leave.store(true, Ordering::Relaxed);
        });
        let mut message = vec![7; BYTES];
        for number in 0u64.. {
            message[..8].copy_from_slice(&number.to_le_bytes());
            let bytes = if number < MESSAGES { BYTES } else { 0 };
            if let Err(error) = writer.send_within(&message[..bytes], PATIENCE) {
                common::tell(&error);
                return;
            }
            if is_to_leave.load(Ordering::Relaxed) {
                return;
            }
            std::thread::sleep(Duration::from_millis(if number < MESSAGES { 2 } else { 10 }));
        }
    });
    drop(writer);
    // Whoever ended with an error is still asked to leave.
}

fn started(
    machines: &Machines,
    policy: &str,
    fault: Option<(usize, &str)>,
) -> (Ranks, crate::faults::Scratch) {
    let (builder, directory) = processes("exchange_while_somebody_dies", 3);
    let mut builder: Builder = builder
        .env("POLICY", policy)
        .env("CONNECT_IP", &machines.ipv4(0).to_string())
        .wrapped(0, &machines.on(0));
    for reader in 1..4 {
        builder = builder.wrapped(reader, &machines.on(1));
    }
    if let Some((process, point)) = fault {
        builder = builder.env_for(process, "UNISONO_FAULT", point);
    }
    (builder.start(), directory)
}

fn now() -> u64 {
    unisono_os::clock::monotonic_nanoseconds()
}

/// Wait until this process is dead; gives when that was seen.
fn wait_for_the_death(ranks: &mut Ranks, victim: usize) -> u64 {
    let others: Vec<usize> = (0..4).filter(|process| *process != victim).collect();
    ranks.wait_others(&others, PATIENCE);
    now()
}

fn number(ranks: &mut Ranks, process: usize, key: &str) -> u64 {
    ranks.wait_for_report(process, key, PATIENCE).parse().expect("a number")
}

/// Wait until this reader has the last of the messages.
fn wait_for_the_last(ranks: &mut Ranks, process: usize) {
    let is_last = |number: &str| number.parse() == Ok(MESSAGES - 1);
    ranks.wait_for_report_that(process, &["last"], PATIENCE, is_last);
}

pub(crate) fn a_reader_elsewhere_killed_as_it_comes_in_takes_nothing_with_it() {
    let machines = Machines::new(2);
    let steps = ["connecting", "said hello", "challenged", "said join", "welcomed"];
    for (index, step) in steps.into_iter().enumerate() {
        let policy = ["fail", "go on", "await"][index % 3];
        let (mut ranks, _directory) = started(&machines, policy, Some((2, &format!("{step}@1"))));
        ranks.wait_for_report(1, "open", PATIENCE);
        ranks.go(2);
        wait_for_the_death(&mut ranks, 2);
        ranks.go(3);
        assert_eq!(number(&mut ranks, 3, "first"), 0, "{step}: its rank had no reader yet");
        [1, 3].into_iter().for_each(|reader| wait_for_the_last(&mut ranks, reader));
        ranks.go(0);
        let outcomes = ranks.wait_all(PATIENCE);
        assert!(outcomes[2].was_killed(), "{step}: {}", outcomes[2].output);
        assert_eq!(outcomes[0].reports("ended"), [""; 0], "{step}: nobody is missed");
        [0, 1, 3].map(|other: usize| &outcomes[other]).into_iter().for_each(Outcome::assert_success);
        for reader in [1, 3] {
            let ended = ended_in(&reported(&outcomes[reader], "ended").expect("it ended"));
            assert_eq!(ended.kind, "PeerLeft", "{step}: {}", ended.text);
        }
    }
}

/// Kill the reader at this step, or, without one, when it waits for nothing.
fn kill_a_reader(machines: &Machines, policy: &str, step: Option<&str>) {
    let what = format!("{step:?}, {policy}");
    let (mut ranks, _directory) = started(machines, policy, step.map(|step| (2, step)));
    let victim = ranks.pid(2);
    ranks.go(2);
    if step.is_none() {
        wait_for_the_last(&mut ranks, 2);
        ranks.kill(2);
    }
    let died = wait_for_the_death(&mut ranks, 2);
    if policy == "fail" {
        let ended = ended_in(&ranks.wait_for_report(0, "ended", PROMPT));
        assert_eq!(
            (ended.kind.as_str(), ended.named[0]),
            ("LinkLost", (1, victim)),
            "{what}: {}",
            ended.text
        );
        assert!(ended.text.contains(&machines.ipv4(1).to_string()), "{what}: {}", ended.text);
        let took = Duration::from_nanos(ended.at.saturating_sub(died));
        note(&format!("reader killed ({what}): told {:.1} ms later", took.as_secs_f64() * 1e3));
    } else {
        let last = ranks.reports(2, "last").pop().map_or(0, |last| last.parse().expect("a number"));
        ranks.go(3);
        wait_for_the_last(&mut ranks, 1);
        ranks.wait_for_report(3, "open", PATIENCE);
        if policy == "await" && last + 1 < MESSAGES {
            let first = number(&mut ranks, 3, "first");
            assert!(first <= last + 1, "{what}: {first} after {last}");
            wait_for_the_last(&mut ranks, 3);
        }
    }
    ranks.go(0);
    if policy == "fail" {
        ranks.go(3); // Which finds nobody any more.
    }
    let outcomes = ranks.wait_all(PATIENCE);
    assert!(outcomes[2].was_killed(), "{what}: {}", outcomes[2].output);
    [0, 1, 3].map(|other: usize| &outcomes[other]).into_iter().for_each(Outcome::assert_success);
    let survivor = ended_in(&reported(&outcomes[1], "ended").expect("it ended"));
    assert_eq!(survivor.kind, "PeerLeft", "{what}: {}", survivor.text);
    assert_eq!(outcomes[0].reports("ended").len(), usize::from(policy == "fail"), "{what}");
}

pub(crate) fn a_reader_elsewhere_killed_at_any_step_is_missed_as_the_policy_says() {
    let machines = Machines::new(2);
    for step in [Some("half a message@20"), Some("said ack@40"), None] {
        for policy in ["fail", "go on", "await"] {
            kill_a_reader(&machines, policy, step);
        }
    }
}

pub(crate) fn a_writer_killed_at_any_step_is_told_to_every_reader_elsewhere() {
    let machines = Machines::new(2);
    let steps = [
        "heard hello@2",
        "sent challenge@2",
        "heard join@2",
        "sent welcome@2",
        "heard ack@1",
        "sent part@2",
        "heard ack@30",
    ];
    for step in steps.into_iter().map(Some).chain([None]) {
        let (mut ranks, _directory) = started(&machines, "fail", step.map(|step| (0, step)));
        let writer = ranks.pid(0);
        // On a busy machine a hello may be said twice, and the first reader meet the step.
        ranks.wait_for_report_that(1, &["open", "ended"], PATIENCE, |_| true);
        ranks.go(2);
        if step.is_none() {
            [1, 2].into_iter().for_each(|reader| wait_for_the_last(&mut ranks, reader));
            ranks.kill(0);
        }
        let died = wait_for_the_death(&mut ranks, 0);
        let mut slowest = 0.0f64;
        for reader in [1, 2] {
            let ended = ended_in(&ranks.wait_for_report(reader, "ended", PROMPT));
            let is_told = ended.kind == "LinkLost" && ended.named == [(0, writer)];
            // Who is not in yet does not know whom it has to do with.
            let is_not_in = ended.kind == "Meeting" && ranks.reports(reader, "open").is_empty();
            assert!(is_told || is_not_in, "{step:?}: reader {reader}: {}", ended.text);
            slowest = slowest.max(ended.at.saturating_sub(died) as f64 / 1e6);
        }
        note(&format!("writer killed ({step:?}): told {slowest:.1} ms later at the latest"));
        ranks.go(3); // Which finds nobody any more.
        let outcomes = ranks.wait_all(PATIENCE);
        assert!(outcomes[0].was_killed(), "{step:?}: {}", outcomes[0].output);
        outcomes[1..].iter().for_each(Outcome::assert_success);
    }
}

/// Process: 0 sends some messages and leaves when it is told to; 1 is stopped as soon as it has been let in.
pub(crate) fn leave_while_somebody_comes_in() {
    if common::own_number() == 1 {
        let mut reader = common::open(0);
        for number in 0..3u8 {
            assert_eq!(reader.recv_within(PATIENCE).expect("it was sent").to_vec(), [number]);
        }
        return common::tell(&reader.recv_within(PATIENCE).expect_err("the writer has left"));
    }
    let mut writer = crate::one_reader().create().expect("a queue");
    (0..3u8).for_each(|number| writer.send(&[number]).expect("there is room"));
    common::publish(&writer);
    harness::wait_for_go();
    drop(writer);
}

pub(crate) fn a_writer_that_leaves_while_a_reader_comes_in_has_left_and_is_not_lost() {
    let (builder, _directory) = processes("leave_while_somebody_comes_in", 1);
    let mut ranks = builder.env_for(1, "UNISONO_FAULT", "welcomed@1:stop").start();
    let reader = ranks.pid(1);
    crate::faults::soon("it is let in", || {
        unisono_os::process::state(reader) == Some(unisono_os::process::ProcessState::Stopped)
    });
    ranks.go(0);
    std::thread::sleep(Duration::from_millis(300)); // The writer is leaving.
    ranks.resume(1);
    let outcomes = ranks.all_succeed(PATIENCE);
    let ended = ended_in(&reported(&outcomes[1], "ended").expect("it ended"));
    assert_eq!(ended.kind, "PeerLeft", "{}", ended.text);
}
