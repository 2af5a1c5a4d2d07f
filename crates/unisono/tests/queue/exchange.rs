//! Every reader gets every message, whole and in order, whatever their sizes and the readers' speeds.

use std::time::{Duration, Instant};

use unisono::queue::{Message, Writer};

use crate::common::{self, Dice, PATIENCE, number, processes};
use crate::faults::note;
use crate::harness;

/// What is exchanged, in one queue: messages that are copied through the ring, among them some that may be too large for it,
/// and a few that are huge.
const SMALL: u64 = 1_000_000;
const MEDIUM: u64 = 2000;
const HUGE: u64 = 50;
const LONGEST_SMALL: u64 = 64 << 10;
const LONGEST_MEDIUM: u64 = 4 << 20;
const HUGE_BYTES: usize = 64 << 20;

/// The length of message `index` of a mixture: the huge and the medium are spread evenly over the others.
fn length_of(index: u64) -> usize {
    const LARGER: u64 = MEDIUM + HUGE;
    const ALL: u64 = SMALL + LARGER;
    let larger_before = |index: u64| index * LARGER / ALL;
    let before = larger_before(index);
    if larger_before(index + 1) == before {
        log_uniform(index, LONGEST_SMALL)
    } else if before % (LARGER / HUGE) == LARGER / HUGE - 1 {
        HUGE_BYTES
    } else {
        log_uniform(index, LONGEST_MEDIUM)
    }
}

/// A length below `longest`, each order of magnitude as likely as any other.
fn log_uniform(index: u64, longest: u64) -> usize {
    let mut dice = Dice::new(index + 1);
    dice.roll();
    let bits = 64 - u64::leading_zeros(longest) as u64;
    let below = 1u64 << dice.below(bits);
    (below / 2 + dice.below(below.div_ceil(2))).min(longest) as usize
}

/// What word `at` of message `index` is.
fn word_of(index: u64, at: u64) -> u64 {
    (index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(at.wrapping_mul(0xd134_2543_de82_ef95))
}

fn fill(bytes: &mut [u8], index: u64) {
    let (words, rest) = bytes.as_chunks_mut::<8>();
    let last = word_of(index, words.len() as u64).to_le_bytes();
    rest.copy_from_slice(&last[..rest.len()]);
    for (word, at) in words.iter_mut().zip(0..) {
        *word = word_of(index, at).to_le_bytes();
    }
}

fn assert_is(message: &Message<'_>, index: u64, buffer: &mut [u8]) {
    let bytes = message.copy_to(buffer);
    assert_eq!(bytes, message.len(), "message {index}");
    let (words, rest) = buffer[..bytes].as_chunks::<8>();
    let last = word_of(index, words.len() as u64).to_le_bytes();
    // Every word is looked at, without a branch.
    let differs = |word: &[u8; 8], at: u64| u64::from_le_bytes(*word) ^ word_of(index, at);
    let difference = words.iter().zip(0..).fold(0, |found, (word, at)| found | differs(word, at));
    assert!(difference == 0 && *rest == last[..rest.len()], "message {index}, of {bytes} bytes");
}

/// Process: write or read messages of random sizes, readers at random speeds.
pub(crate) fn exchange_random_messages() {
    let count = number("COUNT") as u64;
    let me = common::own_number();
    let mut dice = Dice::new(me as u64 + 99);
    let mut buffer = vec![0; HUGE_BYTES];
    let dawdle = |dice: &mut Dice| match dice.below(20_000) {
        0 => std::thread::sleep(Duration::from_micros(dice.below(3000))),
        1..=20 => std::thread::yield_now(),
        _ => {}
    };
    if me == 0 {
        let mut writer = Writer::builder().readers(common::readers()).create().expect("a queue");
        common::publish(&writer);
        if dice.below(2) == 0 {
            writer.wait_until_ready(PATIENCE).expect("all come");
        }
        for index in 0..count {
            let bytes = length_of(index);
            if dice.below(2) == 0 {
                fill(&mut buffer[..bytes], index);
                writer.send(&buffer[..bytes]).expect("all live");
            } else {
                fill(&mut buffer[..bytes], index);
                let mut slot = writer.reserve(bytes).expect("all live");
                let half = bytes / 2;
                assert!(slot.write_at(half, &buffer[half..bytes]) && slot.write_at(0, &buffer[..half]));
                assert!(!slot.write_at(half + 1, &buffer[half..bytes]) || bytes == 0 || half == bytes);
                slot.commit();
            }
            dawdle(&mut dice);
        }
        return;
    }
    let mut reader = common::open(me - 1);
    for index in 0..count {
        let message = reader.recv().unwrap_or_else(|error| panic!("message {index}: {error}"));
        assert_eq!((message.len(), message.number()), (length_of(index), index), "message {index}");
        assert_is(&message, index, &mut buffer);
        drop(message);
        dawdle(&mut dice);
    }
    let end = reader.recv().expect_err("nothing comes after the last");
    assert!(matches!(end, unisono::queue::Error::PeerLeft { .. }), "{end}");
}

pub(crate) fn every_reader_gets_every_message_whole_and_in_order() {
    const READERS: usize = 4;
    let lengths = |count: u64| (0..count).map(length_of);
    let all = SMALL + MEDIUM + HUGE;
    assert_eq!(lengths(all).filter(|bytes| *bytes == HUGE_BYTES).count() as u64, HUGE);
    let start = Instant::now();
    let count = if harness::quick() { all / HUGE } else { all };
    let (builder, _directory) = processes("exchange_random_messages", READERS);
    builder.env("COUNT", &count.to_string()).start().all_succeed(PATIENCE * 15);
    let (gibibytes, took) = (lengths(count).sum::<usize>() as f64 / (1u64 << 30) as f64, start.elapsed());
    note(&format!("{count} messages, {gibibytes:.1} GiB, to {READERS} readers in {took:.1?}"));
}

/// Process: messages of every length around the places where something changes, through the smallest ring.
pub(crate) fn exchange_every_length() {
    let lengths = (0..700).chain(1000..1040).chain(4080..4110).chain([0, 1, 8191, 8192, 16384, 100_000, 0]);
    let lengths: Vec<usize> = lengths.collect();
    let mut buffer = vec![0; 1 << 20];
    if common::own_number() == 0 {
        let mut writer =
            Writer::builder().ring_bytes(1).readers(common::readers()).create().expect("a queue");
        common::publish(&writer);
        for (index, bytes) in lengths.iter().enumerate() {
            fill(&mut buffer[..*bytes], index as u64);
            writer.send(&buffer[..*bytes]).expect("all live");
        }
        return;
    }
    let mut reader = common::open(common::own_number() - 1);
    for (index, bytes) in lengths.iter().enumerate() {
        let message = reader.recv().expect("the writer lives");
        assert_eq!(message.len(), *bytes);
        assert_is(&message, index as u64, &mut buffer);
    }
}

pub(crate) fn messages_of_every_length_pass_the_smallest_ring() {
    let (builder, _directory) = processes("exchange_every_length", 2);
    builder.start().all_succeed(PATIENCE);
}
