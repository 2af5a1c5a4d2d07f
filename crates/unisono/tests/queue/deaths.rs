//! Nobody waits for the dead: kill -9 of the writer and of readers at each step.

use std::time::Duration;

use unisono::queue::{WhenGone, Writer};

use crate::common::{self, PATIENCE, ended_in, number, processes};
use crate::faults::{self, PROMPT, note, reported};
use crate::harness::{self, Outcome, Ranks};

const GIB: usize = 1 << 30;

/// Process: the writer sends, readers receive, until somebody is dead; the victim says the time before each call.
pub(crate) fn send_or_receive_until_the_end() {
    let me = common::own_number();
    let victim = number("VICTIM") == me;
    let delay = Duration::from_millis(number(if victim { "DELAY_MS" } else { "OTHERS_DELAY_MS" }) as u64);
    let bytes = number("BYTES");
    let mut held = vec![0u8; if victim && std::env::var_os("WITH_MEMORY").is_some() { GIB } else { 0 }];
    held.chunks_mut(4096).for_each(|page| page[0] = 1);
    let before = || {
        std::thread::sleep(delay);
        if victim {
            faults::tell_time("enters");
        }
    };
    let message = vec![1u8; bytes];
    let end = if me == 0 {
        let mut writer =
            Writer::builder().ring_bytes(64 << 10).readers(common::readers()).create().expect("a queue");
        common::publish(&writer);
        writer.wait_until_ready(PATIENCE).expect("all come");
        loop {
            before();
            if let Err(error) = writer.send_within(&message, PATIENCE) {
                let again = writer.send(&message).expect_err("a queue that fails goes on failing");
                assert_eq!(again.to_string(), error.to_string());
                break error;
            }
        }
    } else {
        let mut reader = common::open(me - 1);
        reader.wait_until_ready(PATIENCE).expect("all come");
        loop {
            before();
            match reader.recv_within(PATIENCE) {
                Ok(message) => assert_eq!(message.len(), bytes),
                Err(error) => break error,
            }
        }
    };
    common::tell(&end);
}

struct Death<'a> {
    victim: usize,
    readers: usize,
    point: &'a str,
    pass: usize,
    /// How long the victim does something else before each call, and the others.
    delays_ms: [u64; 2],
    bytes: usize,
    with_memory: bool,
}

impl Death<'_> {
    /// Let it happen; see who is named to whom, and give how long the news took at most, in milliseconds.
    fn happens(&self) -> f64 {
        let Death { victim, readers, point, pass, .. } = *self;
        let (builder, _directory) = processes("send_or_receive_until_the_end", readers);
        let mut builder = builder
            .env("VICTIM", &victim.to_string())
            .env("DELAY_MS", &self.delays_ms[0].to_string())
            .env("OTHERS_DELAY_MS", &self.delays_ms[1].to_string())
            .env("BYTES", &self.bytes.to_string())
            .env_for(victim, "UNISONO_FAULT", &format!("{point}@{pass}"));
        if self.with_memory {
            builder = builder.env("WITH_MEMORY", "1");
        }
        let ranks = builder.start();
        let (pid, writer) = (ranks.pid(victim), ranks.pid(0));
        let outcomes = ranks.wait_all(PATIENCE);
        let what = format!("process {victim} killed at {point}");
        assert!(
            outcomes[victim].was_killed(),
            "{what}: {:?}\n{}",
            outcomes[victim].status,
            outcomes[victim].output
        );
        let entered: u64 = reported(&outcomes[victim], "enters").expect("it began").parse().expect("a time");
        let mut slowest = 0.0f64;
        for outcome in outcomes.iter().filter(|outcome| outcome.rank != victim) {
            outcome.assert_success();
            let ended = ended_in(&reported(outcome, "ended").expect("it ended"));
            // Readers outlive a reader's death: their end is that of the writer, which gives up.
            let hears_of_the_dead = victim == 0 || outcome.rank == 0;
            let (kind, named) = match (victim, outcome.rank) {
                (0, _) => ("PeerDied", (0, pid)),
                (_, 0) => ("PeerDied", (victim - 1, pid)),
                _ => ("PeerLeft", (0, writer)),
            };
            assert_eq!(
                (ended.kind.as_str(), &ended.named[..]),
                (kind, &[named][..]),
                "{what}: {}",
                ended.text
            );
            if hears_of_the_dead {
                slowest = slowest.max(ended.at.saturating_sub(entered) as f64 / 1e6);
            }
        }
        assert!(slowest < PROMPT.as_secs_f64() * 1e3, "{what}: heard of after {slowest:.1} ms");
        slowest
    }
}

/// Kill a process at each of the steps, in small and in large company; says what was measured.
fn die_at_each(who: &str, steps: &[(&str, usize, [u64; 2], usize)]) {
    let mut slowest = 0.0f64;
    for (index, (point, pass, delays_ms, bytes)) in steps.iter().copied().enumerate() {
        for readers in [1, 3] {
            let victim = if who == "writers" { 0 } else { 1 + index % readers };
            let death = Death { victim, readers, point, pass, delays_ms, bytes, with_memory: false };
            slowest = slowest.max(death.happens());
        }
    }
    note(&format!("{who} killed: told after {slowest:.2} ms at the latest"));
}

pub(crate) fn a_reader_killed_at_any_step_is_named_to_the_writer() {
    const IN_THE_RING: usize = 100;
    const FILLS_THE_RING: usize = 12_000;
    const LARGE: usize = 100_000;
    let steps = [
        // With a message in hand, before and as it gives the room back.
        ("taken", 40, [0, 0], IN_THE_RING),
        ("read", 40, [0, 0], IN_THE_RING),
        ("passed", 40, [0, 0], IN_THE_RING),
        // Asleep, for messages that come seldom.
        ("asleep", 6, [0, 5], IN_THE_RING),
        // Slow, while the writer sleeps because there is no room.
        ("taken", 3, [30, 0], FILLS_THE_RING),
        ("read", 3, [30, 0], FILLS_THE_RING),
        ("passed", 3, [30, 0], FILLS_THE_RING),
        // With a large message in hand, whose memory is its writer's.
        ("taken", 2, [20, 0], LARGE),
        ("read", 2, [20, 0], LARGE),
        ("passed", 2, [20, 0], LARGE),
        // Between taking out that the writer sleeps and waking it.
        ("waking", 2, [30, 0], FILLS_THE_RING),
    ];
    die_at_each("readers", &steps);
}

pub(crate) fn a_writer_killed_at_any_step_is_named_to_every_reader() {
    const IN_THE_RING: usize = 100;
    const FILLS_THE_RING: usize = 12_000;
    const LARGE: usize = 100_000;
    let steps = [
        ("reserved", 50, [0, 0], IN_THE_RING),
        ("written", 50, [0, 0], IN_THE_RING),
        ("published", 50, [0, 0], IN_THE_RING),
        // While all readers sleep.
        ("reserved", 3, [30, 0], IN_THE_RING),
        ("written", 3, [30, 0], IN_THE_RING),
        ("published", 3, [30, 0], IN_THE_RING),
        // Asleep, because there is no room.
        ("asleep", 3, [0, 2], FILLS_THE_RING),
        // When the first reader has been told of a large message's memory; before it is written; with it.
        ("told", 1, [20, 0], LARGE),
        ("reserved", 3, [20, 0], LARGE),
        ("written", 3, [20, 0], LARGE),
        ("published", 3, [20, 0], LARGE),
        // Between taking out that a reader sleeps and waking it; the first of these are of the meeting.
        ("waking", 40, [10, 0], IN_THE_RING),
    ];
    die_at_each("writers", &steps);
}

pub(crate) fn a_death_is_told_in_time_though_the_dead_held_a_gibibyte() {
    let mut slowest = 0.0f64;
    for (victim, point) in [(0, "published"), (1, "passed")] {
        let death =
            Death { victim, readers: 2, point, pass: 3, delays_ms: [20, 0], bytes: 100, with_memory: true };
        slowest = slowest.max(death.happens());
    }
    note(&format!("holders of 1 GiB killed: told after {slowest:.2} ms at the latest"));
}

/// Process: the writer sends some messages, one of them large, and dies; the reader begins to read after that.
pub(crate) fn consume_after_the_death() {
    if common::own_number() == 0 {
        let mut writer = Writer::builder().readers(1).create().expect("a queue");
        common::publish(&writer);
        writer.wait_until_ready(PATIENCE).expect("all come");
        for index in 0..10u8 {
            let bytes = if index == 5 { 3 << 20 } else { 100 };
            writer.send(&vec![index; bytes]).expect("the reader lives");
        }
        harness::kill_myself();
    }
    let mut reader = common::open(0);
    harness::wait_for_go();
    std::thread::sleep(Duration::from_millis(50)); // The news is here.
    for index in 0..10u8 {
        let message = reader.recv().expect("what was published before the death").to_vec();
        assert!(message.iter().all(|byte| *byte == index), "message {index}");
    }
    for _ in 0..2 {
        common::tell(&reader.recv().expect_err("then comes the death"));
    }
}

pub(crate) fn what_was_published_is_read_before_the_death_is_told() {
    let (builder, _directory) = processes("consume_after_the_death", 1);
    let mut ranks = builder.start();
    ranks.wait_others(&[1], PATIENCE);
    let pid = ranks.pid(0);
    ranks.go(1);
    let outcomes = ranks.wait_all(PATIENCE);
    outcomes[1].assert_success();
    let ended = outcomes[1].reports("ended");
    assert_eq!(ended.len(), 2);
    for line in ended {
        let ended = ended_in(&line);
        assert_eq!((ended.kind.as_str(), &ended.named[..]), ("PeerDied", &[(0, pid)][..]), "{}", ended.text);
    }
}

/// Process: the writer numbers its messages; reader 1 dies after some; process 3, if told to, takes its rank.
pub(crate) fn go_on_or_await() {
    const MESSAGES: u64 = 30_000;
    let awaits = std::env::var_os("AWAITS").is_some();
    let me = common::own_number();
    if me == 0 {
        let policy = if awaits { WhenGone::AwaitReturn } else { WhenGone::GoOn };
        let mut writer =
            Writer::builder().ring_bytes(16 << 10).readers(2).when_gone(policy).create().expect("a queue");
        common::publish(&writer);
        writer.wait_until_ready(PATIENCE).expect("all come");
        for index in 0..MESSAGES {
            writer
                .send_within(&index.to_le_bytes(), PATIENCE)
                .unwrap_or_else(|error| panic!("message {index}: {error}"));
        }
        return;
    }
    let rank = (me - 1).min(1);
    if me == 3 {
        harness::wait_for_go();
    }
    let mut reader = common::open(rank);
    let mut read = Vec::new();
    while let Ok(message) = reader.recv() {
        read.push(u64::from_le_bytes(message.to_vec().try_into().expect("eight bytes")));
        drop(message);
        if me == 2 && read.len() == 5000 {
            harness::report("last", &read[read.len() - 1].to_string());
            harness::kill_myself();
        }
    }
    let first = read.first().copied().unwrap_or(MESSAGES);
    assert!(read.iter().copied().eq(first..MESSAGES), "without a gap, to the end");
    harness::report("first", &first.to_string());
}

fn with_a_dead_reader(awaits: bool) -> Vec<Outcome> {
    let (builder, _directory) = processes("go_on_or_await", 3);
    let builder = if awaits { builder.env("AWAITS", "1") } else { builder };
    let mut ranks: Ranks = builder.start();
    ranks.wait_others(&[0, 1, 3], PATIENCE);
    if awaits {
        ranks.go(3);
    } else {
        ranks.wait_others(&[2, 3], PATIENCE);
        ranks.kill(3);
    }
    ranks.wait_all(PATIENCE)
}

pub(crate) fn a_queue_goes_on_without_a_dead_reader() {
    let outcomes = with_a_dead_reader(false);
    outcomes[..2].iter().for_each(Outcome::assert_success);
    assert_eq!(reported(&outcomes[1], "first").as_deref(), Some("0"));
}

pub(crate) fn a_queue_keeps_messages_for_a_dead_reader_that_returns() {
    let outcomes = with_a_dead_reader(true);
    [&outcomes[0], &outcomes[1], &outcomes[3]].into_iter().for_each(Outcome::assert_success);
    let last: u64 = reported(&outcomes[2], "last").expect("it read some").parse().expect("a number");
    let first: u64 = reported(&outcomes[3], "first").expect("it read the rest").parse().expect("a number");
    assert_eq!(first, last + 1, "it begins where the dead one ended");
    assert_eq!(reported(&outcomes[1], "first").as_deref(), Some("0"));
}
