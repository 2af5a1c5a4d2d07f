//! Readers in the writer's memory and elsewhere get the same messages, whatever their sizes and the readers' speeds.

use std::net::IpAddr;
use std::time::Duration;

use unisono::queue::{Error, Reader, Writer};

use crate::common::{self, Dice, PATIENCE, number, processes};
use crate::faults::told;
use crate::harness;
use crate::machines::Machines;
use crate::waits::LOCAL;

/// The length of message `index`: log-uniform up to `longest`.
fn length_of(index: u64, longest: u64) -> usize {
    let mut dice = Dice::new(index + 1);
    dice.roll();
    let below = 1u64 << dice.below(64 - u64::from(longest.leading_zeros()));
    (below / 2 + dice.below(below.div_ceil(2))).min(longest) as usize
}

fn fill(bytes: &mut [u8], index: u64) {
    for (at, chunk) in bytes.chunks_mut(8).enumerate() {
        let word = (index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(at as u64 * 0xd134_2543);
        chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
    }
}

fn send_all(writer: &mut Writer, count: u64, longest: u64) {
    for index in 0..count {
        let mut message = vec![0; length_of(index, longest)];
        fill(&mut message, index);
        writer.send_within(&message, PATIENCE).unwrap_or_else(|error| panic!("message {index}: {error}"));
    }
}

/// Take them all, at a speed that changes, and compare each.
fn take_all(reader: &mut Reader, count: u64, longest: u64) {
    let (mut expected, mut dice) = (Vec::new(), Dice::new(reader.rank() as u64));
    for index in 0..count {
        let message = reader.recv_within(PATIENCE).unwrap_or_else(|error| panic!("message {index}: {error}"));
        expected.resize(length_of(index, longest), 0);
        fill(&mut expected, index);
        assert!(message.to_vec() == expected && message.number() == index, "message {index}");
        drop(message);
        if dice.below(1000) == 0 {
            std::thread::sleep(Duration::from_millis(dice.below(20)));
        }
    }
    let end = reader.recv_within(PATIENCE).expect_err("there is nothing more");
    assert!(matches!(end, Error::PeerLeft { .. }), "{end}");
}

/// Process: 0 writes; those up to `NEAR` read in its memory, the others elsewhere.
pub(crate) fn exchange_messages() {
    let (me, near) = (common::own_number(), number("NEAR"));
    let (count, longest) = (number("COUNT") as u64, number("LONGEST") as u64);
    if me > 0 {
        return take_all(&mut common::open(me - 1), count, longest);
    }
    let ip: IpAddr = told("CONNECT_IP").parse().expect("an address");
    let builder =
        Writer::builder().reader_ranks(0..near).remote_readers(near..common::readers()).connect_ip(ip);
    let mut writer = builder.create().expect("a queue");
    assert_eq!(writer.handle().remote_address().map(|address| address.ip()), Some(ip));
    common::publish(&writer);
    // They come while it sends: nothing is lost of what was sent before.
    send_all(&mut writer, count, longest);
    assert_eq!(writer.messages(), count);
}

fn exchange(near: usize, far: usize, count: u64, longest: u64) {
    let (builder, _directory) = processes("exchange_messages", near + far);
    let count = if harness::quick() { count / 20 } else { count };
    builder
        .env("NEAR", &near.to_string())
        .env("CONNECT_IP", "127.0.0.1")
        .env("COUNT", &count.to_string())
        .env("LONGEST", &longest.to_string())
        .start()
        .all_succeed(PATIENCE);
}

pub(crate) fn readers_here_and_elsewhere_get_the_same_messages() {
    exchange(2, 2, 20_000, 64 << 10);
}

pub(crate) fn readers_elsewhere_alone_need_no_ring() {
    exchange(0, 1, 20_000, 16 << 10);
}

pub(crate) fn large_messages_pass() {
    let mut writer =
        Writer::builder().readers(1).remote_readers([1]).connect_ip(LOCAL).create().expect("a queue");
    let mut readers = [0, 1].map(|rank| Reader::open(writer.handle(), rank).expect("the writer is here"));
    let lengths = [64 << 20, 0, (64 << 20) + 1, 300 << 20];
    std::thread::scope(|scope| {
        for reader in &mut readers {
            scope.spawn(move || {
                for (index, bytes) in lengths.iter().enumerate() {
                    let message = reader.recv_within(PATIENCE).expect("it was sent");
                    assert_eq!(message.len(), *bytes);
                    let mut middle = vec![0; bytes / 2 + 8];
                    let copied = message.copy_to(&mut middle);
                    let expected = ((bytes / 2) as u64 + index as u64).to_le_bytes();
                    assert!(*bytes == 0 || middle[copied - 8..copied] == expected);
                }
            });
        }
        for (index, bytes) in lengths.iter().enumerate() {
            let mut slot = writer.reserve_within(*bytes, PATIENCE).expect("there is room");
            assert_eq!(slot.len(), *bytes);
            let marked = slot.write_at(bytes / 2, &((bytes / 2) as u64 + index as u64).to_le_bytes());
            assert!(marked || *bytes == 0);
            slot.commit();
        }
    });
}

pub(crate) fn machines_exchange_over_both_protocols() {
    let machines = Machines::new(2);
    for ip in [machines.ipv4(0), machines.ipv6(0)] {
        let (builder, _directory) = processes("exchange_messages", 2);
        builder
            .wrapped(0, &machines.on(0))
            .wrapped(1, &machines.on(1))
            .wrapped(2, &machines.on(1))
            .env("NEAR", "0")
            .env("CONNECT_IP", &ip.to_string())
            .env("COUNT", "2000")
            .env("LONGEST", "1048576")
            .start()
            .all_succeed(PATIENCE);
    }
}
