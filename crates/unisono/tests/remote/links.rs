//! The way between machines: a cut is told within seconds, slowness only costs time.

use std::time::{Duration, Instant};

use unisono::queue::{Error, Presence, Reader, WaitedFor, WhenGone, Writer};

use crate::common::{self, PATIENCE, ended_in, processes};
use crate::faults::log::Warnings;
use crate::faults::{note, reported, told};
use crate::harness;
use crate::machines::Machines;

/// A cut is noticed by a heartbeat: two seconds, and what a busy machine adds.
const NOTICED_WITHIN: Duration = Duration::from_secs(4);

fn builder() -> unisono::queue::Builder {
    let ip = told("CONNECT_IP").parse().expect("an address");
    Writer::builder().readers(0).remote_readers([0]).connect_ip(ip).ring_bytes(1 << 20)
}

/// Process: 0 writes now and then, 1 reads, until either hears that the other is out of reach.
pub(crate) fn work_until_the_link_is_lost() {
    let end = if common::own_number() == 0 {
        let mut writer = builder().create().expect("a queue");
        common::publish(&writer);
        writer.wait_until_ready(PATIENCE).expect("it comes");
        harness::report("ready", "");
        loop {
            if let Err(error) = writer.send_within(b"now and then", PATIENCE) {
                break error;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    } else {
        let mut reader = common::open(0);
        harness::report("reads", "");
        loop {
            if let Err(error) = reader.recv_within(PATIENCE) {
                break error;
            }
        }
    };
    common::tell(&end);
}

pub(crate) fn a_link_that_goes_down_is_told_within_seconds_on_both_sides() {
    let machines = Machines::new(2);
    let (builder, _directory) = processes("work_until_the_link_is_lost", 1);
    let builder = builder.wrapped(0, &machines.on(0)).wrapped(1, &machines.on(1));
    let mut ranks = builder.env("CONNECT_IP", &machines.ipv4(0).to_string()).start();
    ranks.wait_for_report(1, "reads", PATIENCE);
    std::thread::sleep(Duration::from_millis(700)); // A heartbeat or two.
    let at = unisono_os::clock::monotonic_nanoseconds();
    machines.cut_off(1);
    for outcome in ranks.wait_all(PATIENCE) {
        outcome.assert_success();
        let ended = ended_in(&reported(&outcome, "ended").expect("it said how it ended"));
        let took = Duration::from_nanos(ended.at.saturating_sub(at));
        note(&format!("cut off: process {} knew after {:.2} s", outcome.rank, took.as_secs_f64()));
        assert_eq!(ended.kind, "LinkLost", "{}", ended.text);
        assert!(took < NOTICED_WITHIN, "{took:?}: {}", ended.text);
        let other = machines.ipv4(1 - outcome.rank).to_string();
        assert!(ended.text.contains(&other), "{} names {other}", ended.text);
    }
}

const MESSAGES: u64 = 400;
const BYTES: usize = 64 << 10;

/// Process: 0 writes faster than 1 reads, over a slow network; nothing is lost.
pub(crate) fn be_slow() {
    if common::own_number() == 1 {
        let mut reader = common::open(0);
        std::thread::sleep(Duration::from_secs(1));
        for number in 0..MESSAGES {
            let message = reader.recv_within(PATIENCE).expect("it was sent").to_vec();
            assert!(message.len() == BYTES && message[..8] == number.to_le_bytes(), "message {number}");
        }
        return;
    }
    let mut writer = builder().create().expect("a queue");
    common::publish(&writer);
    writer.wait_until_ready(PATIENCE).expect("it comes");
    let mut message = vec![7; BYTES];
    let (start, mut refused) = (Instant::now(), 0);
    for number in 0..MESSAGES {
        message[..8].copy_from_slice(&number.to_le_bytes());
        while let Err(error) = writer.send_within(&message, Duration::from_millis(100)) {
            let Error::Timeout { waited_for: WaitedFor::Readers(readers), .. } = &error else {
                panic!("{error}")
            };
            assert_eq!(readers[0].address.as_deref(), Some(&told("READER_IP")[..]), "{error}");
            assert!(readers[0].lag_bytes > (1 << 20) - 2 * BYTES as u64, "{error}");
            refused += 1;
        }
    }
    drop(writer); // Which waits until all has arrived.
    harness::report("took", &format!("{:.1} s, with {refused} time-outs", start.elapsed().as_secs_f64()));
    assert!(refused > 0);
}

pub(crate) fn a_slow_reader_is_waited_for_and_named_and_loses_nothing() {
    let machines = Machines::new(2);
    // 25 MiB in about four seconds: longer than any heartbeat is waited for.
    machines.slow_down(1, 50);
    let (builder, _directory) = processes("be_slow", 1);
    let outcomes = builder
        .wrapped(0, &machines.on(0))
        .wrapped(1, &machines.on(1))
        .env("CONNECT_IP", &machines.ipv6(0).to_string())
        .env("READER_IP", &machines.ipv6(1).to_string())
        .start()
        .all_succeed(PATIENCE);
    note(&format!("a slow reader: {}", reported(&outcomes[0], "took").unwrap_or_default()));
}

pub(crate) fn a_stopped_reader_is_lost_within_seconds_and_told_when_it_goes_on() {
    let (builder, _directory) = processes("work_until_the_link_is_lost", 1);
    let mut ranks = builder.env("CONNECT_IP", "127.0.0.1").start();
    ranks.wait_for_report(1, "reads", PATIENCE);
    // One that is stopped before the writer has heard that it is ready is no reader yet: the writer goes on waiting for one.
    ranks.wait_for_report(0, "ready", PATIENCE);
    let at = unisono_os::clock::monotonic_nanoseconds();
    ranks.stop(1);
    let writer = ended_in(&ranks.wait_for_report(0, "ended", PATIENCE));
    let took = Duration::from_nanos(writer.at.saturating_sub(at));
    assert_eq!((writer.kind.as_str(), writer.named[0]), ("LinkLost", (0, ranks.pid(1))), "{}", writer.text);
    assert!(took < NOTICED_WITHIN, "{took:?}: {}", writer.text);
    ranks.resume(1);
    let reader = ended_in(&ranks.wait_for_report(1, "ended", PATIENCE));
    assert!(["LinkLost", "PeerLeft"].contains(&reader.kind.as_str()), "{}", reader.text);
    ranks.all_succeed(PATIENCE);
}

const LONG: usize = 4 << 20;

/// Process: 0 writes one long message; 1 waits for it over a slow network, and looks at what is said of that.
pub(crate) fn wait_for_a_long_message() {
    if common::own_number() == 0 {
        let mut writer = builder().create().expect("a queue");
        common::publish(&writer);
        writer.wait_until_ready(PATIENCE).expect("it comes");
        harness::wait_for_go();
        writer.send_within(&vec![1; LONG], PATIENCE).expect("there is room");
        return;
    }
    static WARNINGS: Warnings = Warnings::new();
    tracing::subscriber::set_global_default(&WARNINGS).expect("it is the first");
    let mut reader = common::open(0);
    reader.set_warn_interval(Duration::from_millis(200));
    let idle = reader.recv_within(Duration::from_secs(1)).expect_err("nothing was sent");
    assert_eq!(WARNINGS.words(), [""; 0], "nobody waits for work that was promised");
    let address = reader.handle().remote_address().expect("it has one").to_string();
    assert!(
        idle.to_string().contains(&format!(" at {address}, alive, 0 messages so far, last step ")),
        "{idle}"
    );
    harness::report("idle", "yes");
    assert_eq!(reader.recv_within(PATIENCE).expect("it comes").len(), LONG);
    let warnings = WARNINGS.words();
    assert!(warnings.len() >= 2, "{warnings:?}");
    for words in warnings {
        assert!(words.starts_with("recv has waited for ") && words.contains(&address), "{words}");
        assert!(
            words.contains("of the next message ") && words.contains(&format!(" of {LONG} bytes")),
            "{words}"
        );
    }
}

pub(crate) fn a_message_that_comes_slowly_is_explained_in_the_log_and_idleness_is_not() {
    let machines = Machines::new(2);
    machines.slow_down(1, 10); // It takes more than three seconds.
    let (builder, _directory) = processes("wait_for_a_long_message", 1);
    let builder = builder.wrapped(0, &machines.on(0)).wrapped(1, &machines.on(1));
    let mut ranks = builder.env("CONNECT_IP", &machines.ipv4(0).to_string()).start();
    ranks.wait_for_report(1, "idle", PATIENCE);
    ranks.go(0);
    ranks.all_succeed(PATIENCE);
}

/// Process: 0 writes now and then, and goes on without readers; 1 reads; 2 takes its rank when it cannot be reached any more.
pub(crate) fn take_the_rank_of_the_lost() {
    if common::own_number() == 0 {
        let mut writer = builder().when_gone(WhenGone::GoOn).create().expect("a queue");
        common::publish(&writer);
        writer.wait_until_ready(PATIENCE).expect("it comes");
        while writer.readers()[0].presence != Presence::Left {
            writer.send_within(b"now and then", PATIENCE).expect("it goes on");
            std::thread::sleep(Duration::from_millis(10));
        }
        return;
    }
    if common::own_number() == 2 {
        harness::wait_for_go();
        let in_a_hurry = Reader::open_within(&common::handle_of("handle"), 0, Duration::from_secs(1));
        common::tell(&in_a_hurry.expect_err("nobody knows yet that it is lost"));
        let start = Instant::now();
        let mut reader = common::open(0);
        harness::report("open", &format!("after {:.2} s", start.elapsed().as_secs_f64()));
        reader.recv_within(PATIENCE).expect("it is sent");
        return;
    }
    let mut reader = common::open(0);
    harness::report("reads", "");
    while reader.recv_within(PATIENCE).is_ok() {}
}

pub(crate) fn a_rank_whose_reader_cannot_be_reached_is_had_as_soon_as_that_is_noticed() {
    let machines = Machines::new(3);
    let (mut builder, _directory) = processes("take_the_rank_of_the_lost", 2);
    for process in 0..3 {
        builder = builder.wrapped(process, &machines.on(process));
    }
    let mut ranks = builder.env("CONNECT_IP", &machines.ipv4(0).to_string()).start();
    ranks.wait_for_report(1, "reads", PATIENCE);
    let lost = ranks.pid(1);
    machines.cut_off(1);
    ranks.go(2);
    let refused = ended_in(&ranks.wait_for_report(2, "ended", PATIENCE));
    assert_eq!(
        (refused.kind.as_str(), &refused.named[..]),
        ("RankTaken", &[(0, lost)][..]),
        "{}",
        refused.text
    );
    note(&format!("cut off: its rank was had {}", ranks.wait_for_report(2, "open", NOTICED_WITHIN)));
    ranks.all_succeed(PATIENCE);
}

/// Process: a writer and its reader elsewhere, both idle.
pub(crate) fn wait_for_nothing() {
    let mut writer = builder().create().expect("a queue");
    let mut reader = Reader::open(writer.handle(), 0).expect("the writer is here");
    writer.wait_until_ready(PATIENCE).expect("it has come");
    writer.send(b"one").expect("there is room");
    drop(reader.recv().expect("it is there"));
    harness::report("waits", "");
    let ended = reader.recv_within(Duration::from_secs(8)).map(|_| ());
    assert!(matches!(ended, Err(Error::Timeout { .. })), "{ended:?}");
}

/// Nanoseconds that the threads of a process have had on a processor.
fn processor_time(pid: u32) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it lives");
    let of = |thread: std::fs::DirEntry| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).expect("it lives");
        text.split_whitespace().next().and_then(|time| time.parse::<u64>().ok()).expect("a number")
    };
    threads.flatten().map(of).sum()
}

pub(crate) fn both_sides_sleep_while_they_wait() {
    let (builder, _directory) = processes("wait_for_nothing", 0);
    let mut ranks = builder.env("CONNECT_IP", "127.0.0.1").start();
    ranks.wait_for_report(0, "waits", PATIENCE);
    std::thread::sleep(Duration::from_millis(200));
    let before = processor_time(ranks.pid(0));
    std::thread::sleep(Duration::from_secs(5));
    let used = Duration::from_nanos(processor_time(ranks.pid(0)) - before);
    note(&format!("an idle writer and its reader elsewhere: {:.2} ms in 5 s", used.as_secs_f64() * 1e3));
    assert!(used < Duration::from_millis(20), "ten milliseconds for each side: {used:?}");
    ranks.all_succeed(PATIENCE);
}
