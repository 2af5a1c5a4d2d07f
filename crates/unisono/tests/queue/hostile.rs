//! One side writes whatever it likes into all memory of the queue: the other has errors, time-outs or wrong messages, and
//! never crashes or waits past its deadline.
//!
//! The scribbler writes through `/proc/self/mem` to where its process maps the memories: what any process of the same
//! user could do.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use unisono::queue::{Error, Reader, WhenGone, Writer};

use crate::common::{self, Dice, PATIENCE, number, processes};
use crate::faults::{note, told};
use crate::harness;

const DEADLINE: Duration = Duration::from_millis(100);
const SLACK: Duration = Duration::from_secs(3);
/// How long one queue is under attack.
const ROUND: Duration = Duration::from_millis(100);

/// Where this process maps memories of queues, and can write: address and length of each, and its place in the memory.
fn mappings() -> Vec<(u64, u64, u64)> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("a process sees its own mappings");
    let memory = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (start, end) = fields[0].split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        let (start, end) = (number(start)?, number(end)?);
        (fields.get(5)?.starts_with("/memfd:unisono") && fields[1].contains('w')).then_some((
            start,
            end - start,
            number(fields[2])?,
        ))
    };
    maps.lines().filter_map(memory).collect()
}

fn memories() -> Vec<(u64, u64)> {
    mappings().into_iter().map(|(start, length, _)| (start, length)).collect()
}

/// Where a page of either kind says how far its owner is.
const POSITION_AT: u64 = 128;

fn own_memory() -> std::fs::File {
    let opened = std::fs::OpenOptions::new().read(true).write(true).open("/proc/self/mem");
    opened.expect("a process may write its own memory")
}

fn scribble(seed: u64, stop: &AtomicBool) -> u64 {
    let mut dice = Dice::new(seed + 7);
    let memories = memories();
    assert!(!memories.is_empty());
    let own_memory = own_memory();
    let telling =
        [0u64, 1, 2, u64::MAX, 1 << 56, 2 << 56, (2 << 56) | 16, (1 << 56) | 4000, 1 << 63, 1 << 30];
    let mut writes = 0;
    while !stop.load(Ordering::Relaxed) {
        let (start, length) = memories[dice.below(memories.len() as u64) as usize];
        // Mostly the first lines, where the words are.
        let bytes = if dice.below(4) == 0 { length } else { length.min(640) };
        let place = start + dice.below(bytes / 8) * 8;
        let noise = match dice.below(3) {
            0 => dice.roll(),
            1 => telling[dice.below(telling.len() as u64) as usize],
            _ => dice.below(10_000) * 8,
        };
        writes += u64::from(own_memory.write_at(&noise.to_le_bytes(), place).is_ok());
        if dice.below(64) == 0 {
            std::thread::sleep(Duration::from_micros(dice.below(200)));
        }
    }
    writes
}

fn in_time<T>(what: &str, call: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let start = Instant::now();
    let result = call();
    assert!(start.elapsed() < DEADLINE + SLACK, "{what} took {:?}", start.elapsed());
    result.inspect_err(|error| assert!(!error.to_string().is_empty()))
}

fn write_for_a_round(writer: &mut Writer, dice: &mut Dice) -> (u64, u64) {
    let (mut done, mut failed, begin) = (0, 0, Instant::now());
    let message = vec![5; 40_000];
    while begin.elapsed() < ROUND {
        let longest = if dice.below(50) == 0 { 40_000 } else { 700 };
        let bytes = dice.below(longest) as usize;
        match in_time("send", || writer.send_within(&message[..bytes], DEADLINE)) {
            Ok(()) => done += 1,
            Err(_) => failed += 1,
        }
        let _ = format!("{:?}", writer.readers());
    }
    (done, failed)
}

fn read_for_a_round(reader: &mut Reader) -> (u64, u64) {
    let (mut done, mut failed, begin) = (0, 0, Instant::now());
    let mut buffer = vec![0; 1 << 20];
    while begin.elapsed() < ROUND {
        match in_time("recv", || reader.recv_within(DEADLINE).map(|message| message.copy_to(&mut buffer))) {
            Ok(_) => done += 1,
            Err(_) => failed += 1,
        }
    }
    (done, failed)
}

/// Wait until all processes are in this round's queue: none begins, or is through with it, before.
fn meet(round: u64, me: usize) {
    let sign_of = |process: usize| PathBuf::from(told("HANDLE_IN")).join(format!("round-{round}-{process}"));
    std::fs::write(sign_of(me), "").expect("the directory is there");
    let until = Instant::now() + PATIENCE;
    while !(0..=common::readers()).all(|process| sign_of(process).exists()) {
        assert!(Instant::now() < until, "not all have come to round {round}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Process: write or read under attack, queue after queue; the process that is told to attacks, too.
pub(crate) fn work_at_a_queue_while_somebody_scribbles() {
    let (me, attacker, rounds) = (common::own_number(), number("ATTACKER"), number("ROUNDS"));
    let mut dice = Dice::new(me as u64);
    let (mut done, mut failed, writes) = (0, 0, AtomicU64::new(0));
    for round in 0..rounds as u64 {
        let name = format!("handle-{round}");
        let mut writer = (me == 0).then(|| {
            let policy = if round % 2 == 0 { WhenGone::GoOn } else { WhenGone::Fail };
            let builder = Writer::builder().ring_bytes(16 << 10).readers(common::readers()).when_gone(policy);
            let mut writer = builder.create().expect("a queue");
            common::publish_as(writer.handle(), &name);
            writer.wait_until_ready(PATIENCE).expect("nobody disturbs the meeting");
            writer
        });
        let mut reader = (me != 0)
            .then(|| Reader::open(&common::handle_of(&name), me - 1).expect("nobody disturbs the meeting"));
        meet(round, me);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            if me == attacker {
                scope.spawn(|| writes.fetch_add(scribble(round, &stop), Ordering::Relaxed));
            }
            let (worked, missed) = match (&mut writer, &mut reader) {
                (Some(writer), _) => write_for_a_round(writer, &mut dice),
                (_, Some(reader)) => read_for_a_round(reader),
                _ => unreachable!("a process is one of the two"),
            };
            (done, failed) = (done + worked, failed + missed);
            stop.store(true, Ordering::Relaxed);
        });
    }
    harness::report(
        "done",
        &format!("{}: {done} messages, {failed} errors, {} writes", told("RANK"), writes.into_inner()),
    );
}

pub(crate) fn both_sides_survive_whatever_the_other_writes() {
    for attacker in [0, 1] {
        let (builder, _directory) = processes("work_at_a_queue_while_somebody_scribbles", 2);
        let outcomes = builder
            .env("ATTACKER", &attacker.to_string())
            .env("ROUNDS", if harness::quick() { "4" } else { "40" })
            .start()
            .all_succeed(PATIENCE);
        let told: Vec<String> = outcomes.iter().flat_map(|outcome| outcome.reports("done")).collect();
        note(&format!("process {attacker} scribbles: {}", told.join("; ")));
    }
}

/// Process: a reader that says it is where it was before.
pub(crate) fn go_back() {
    /// What such a message takes of the ring.
    const RECORD: u64 = 208;
    let mut writer = Writer::builder().ring_bytes(4096).create().expect("a queue");
    let mut reader = Reader::open(writer.handle(), 0).expect("the writer is here");
    let mut send = |count: u32| (0..count).try_for_each(|_| writer.send_within(&[0; 200], DEADLINE));
    send(19).expect("there is room");
    (0..8).for_each(|_| drop(reader.recv().expect("it is there")));
    send(4).expect("there is room, since the writer looks where the reader is");
    let own_memory = own_memory();
    let says = |start: u64| {
        let mut bytes = [0; 8];
        own_memory.read_exact_at(&mut bytes, start + POSITION_AT).expect("it is mapped");
        u64::from_le_bytes(bytes)
    };
    let pages: Vec<u64> = memories().into_iter().map(|(start, _)| start).collect();
    let page = pages.into_iter().find(|start| says(*start) == 8 * RECORD).expect("the reader's page");
    own_memory.write_at(&u64::to_le_bytes(7 * RECORD), page + POSITION_AT).expect("it is mapped");
    let told = send(100).expect_err("nobody goes back");
    assert!(matches!(told, Error::PeerBroken { rank: 0, .. }), "{told}");
}

pub(crate) fn a_reader_that_goes_back_is_trusted_no_more() {
    harness::Ranks::start("go_back", 1).all_succeed(PATIENCE);
}

/// Process: wait for a message which, when it comes at last, is said to lie in a memory of which nothing is heard.
pub(crate) fn wait_for_what_is_nowhere() {
    const ELSEWHERE: u64 = 2 << 56 | 16;
    const TIMEOUT: Duration = Duration::from_secs(2);
    let writer = Writer::builder().ring_bytes(64 << 10).create().expect("a queue");
    let ring = mappings().into_iter().max_by_key(|(start, _, offset)| (*offset, u64::MAX - start));
    let page = mappings().into_iter().find(|(.., offset)| *offset == 0);
    let (ring, page) = (ring.expect("the writer maps it").0, page.expect("the writer maps it").0);
    let mut reader = Reader::open(writer.handle(), 0).expect("the writer is here");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(TIMEOUT / 2);
            for (place, value) in
                [(ring, ELSEWHERE), (ring + 8, 999), (ring + 16, 5), (page + POSITION_AT, 24)]
            {
                own_memory().write_at(&value.to_le_bytes(), place).expect("it is mapped");
            }
        });
        let start = Instant::now();
        let told = reader.recv_within(TIMEOUT).expect_err("it is nowhere");
        let took = start.elapsed();
        assert!(matches!(told, Error::Timeout { .. }), "{told}");
        assert!(took >= TIMEOUT && took < TIMEOUT * 3 / 2, "{took:?}");
    });
    let told = reader.recv_within(Duration::ZERO).expect_err("it is nowhere");
    assert!(matches!(told, Error::Timeout { .. }), "{told}");
    // The writer is told of, at last.
    drop(writer);
    let told = reader.recv_within(PATIENCE).expect_err("it is nowhere");
    assert!(matches!(told, Error::PeerLeft { .. }), "{told}");
}

pub(crate) fn a_large_message_counts_its_time_out_once() {
    harness::Ranks::start("wait_for_what_is_nowhere", 1).all_succeed(PATIENCE);
}
