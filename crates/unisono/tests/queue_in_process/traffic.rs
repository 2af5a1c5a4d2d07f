//! Messages to threads that come, go and come back, while others end their waits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use unisono::queue::{Error, Handle, Reader, WhenGone, Writer};

use super::quick;

const PATIENCE: Duration = Duration::from_secs(60);
const RING: usize = 16 << 10;

fn rounds(full: u64) -> u64 {
    if quick() { full / 20 } else { full }
}

/// Message `index`: of a length that often fills the ring and now and then is too large for it.
fn message(index: u64) -> Vec<u8> {
    let bytes = match index % 50 {
        49 => 100_000 + index as usize % 50_000,
        phase => phase as usize * 37,
    };
    let mut message = vec![index as u8; 8 + bytes];
    message[..8].copy_from_slice(&index.to_le_bytes());
    message
}

fn number_of(message: &[u8]) -> u64 {
    let (number, rest) = message.split_first_chunk::<8>().expect("its number");
    let number = u64::from_le_bytes(*number);
    assert!(rest.iter().all(|byte| *byte == number as u8) && message.len() == self::message(number).len());
    number
}

/// Read to the end, or `most` messages; says the first and the one after the last.
fn read_in_order(reader: &mut Reader, most: u64) -> (u64, u64) {
    let mut next = None;
    let mut first = 0;
    for _ in 0..most {
        let number = match reader.recv_within(PATIENCE) {
            Ok(message) => {
                assert_eq!(
                    message.number(),
                    number_of(&message.to_vec()),
                    "also where somebody came just now"
                );
                message.number()
            }
            Err(Error::PeerLeft { .. }) => break,
            Err(error) => panic!("after {next:?}: {error}"),
        };
        first = if next.is_none() { number } else { first };
        assert_eq!(number, next.unwrap_or(number), "in order, without a gap");
        next = Some(number + 1);
    }
    (first, next.unwrap_or(first))
}

#[test]
fn every_thread_gets_every_message() {
    let count = rounds(20_000);
    let mut writer = Writer::builder().readers(3).ring_bytes(RING).create().expect("a queue");
    let handle = writer.handle().clone();
    std::thread::scope(|scope| {
        for rank in 0..3 {
            let handle = &handle;
            scope.spawn(move || {
                let mut reader = Reader::open(handle, rank).expect("the writer is here");
                assert_eq!(read_in_order(&mut reader, u64::MAX), (0, count));
            });
        }
        for index in 0..count {
            writer.send_within(&message(index), PATIENCE).expect("all read");
        }
        writer.wait_until_ready(PATIENCE).expect("all have come");
        drop(writer);
    });
}

/// Readers that leave after a few messages and come back, with messages kept for them or not.
fn come_and_go(policy: WhenGone) {
    let count = rounds(10_000);
    let is_over = AtomicBool::new(false);
    let mut writer =
        Writer::builder().readers(3).ring_bytes(RING).when_gone(policy).create().expect("a queue");
    let handle = writer.handle().clone();
    let visit = |rank: usize, handle: &Handle| {
        let mut expected = 0;
        while !is_over.load(Ordering::Acquire) {
            // At the end the writer may be gone before the reader knows.
            let Ok(mut reader) = Reader::open(handle, rank) else { break };
            let (first, next) = read_in_order(&mut reader, 40 + 10 * rank as u64);
            match policy {
                WhenGone::AwaitReturn => assert!(first == expected || first == next),
                _ => assert!(first >= expected || first == next),
            }
            expected = next.max(expected);
        }
        expected
    };
    std::thread::scope(|scope| {
        let visitors: Vec<_> = (0..3)
            .map(|rank| {
                let (handle, visit) = (&handle, &visit);
                scope.spawn(move || visit(rank, handle))
            })
            .collect();
        for index in 0..count {
            writer.send_within(&message(index), PATIENCE).expect("all read");
        }
        is_over.store(true, Ordering::Release);
        drop(writer);
        for visitor in visitors {
            assert!(visitor.join().expect("it ends") <= count);
        }
    });
}

#[test]
fn threads_come_and_go_without_those_who_are_there_noticing() {
    come_and_go(WhenGone::GoOn);
}

#[test]
fn threads_come_back_to_what_was_kept_for_them() {
    come_and_go(WhenGone::AwaitReturn);
}

#[test]
fn other_threads_cancel_waits_look_on_and_lose_nothing() {
    let count = rounds(10_000);
    let mut writer = Writer::builder().ring_bytes(RING).create().expect("a queue");
    let mut reader = Reader::open(writer.handle(), 0).expect("the writer is here");
    let (controls, is_over) = ((writer.control(), reader.control()), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Acquire) {
                controls.0.cancel();
                controls.1.cancel();
                std::thread::sleep(Duration::from_micros(300));
            }
        });
        scope.spawn(move || {
            for index in 0..count {
                let message = message(index);
                loop {
                    match writer.send_within(&message, PATIENCE) {
                        Ok(()) => break,
                        Err(Error::Cancelled { .. }) => drop(writer.readers()),
                        Err(error) => panic!("message {index}: {error}"),
                    }
                }
            }
        });
        let mut next = 0;
        loop {
            match reader.recv_within(PATIENCE) {
                Ok(message) => assert_eq!(number_of(&message.to_vec()), next),
                Err(Error::Cancelled { .. }) => continue,
                Err(Error::PeerLeft { .. }) => break,
                Err(error) => panic!("message {next}: {error}"),
            }
            next += 1;
        }
        is_over.store(true, Ordering::Release);
        assert_eq!(next, count);
    });
}
