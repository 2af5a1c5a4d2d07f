//! Machines in between: what a relay does to a connection is told at once; and a wrong key is a wrong key on any machine.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use unisono::queue::{Handle, Presence, Reader, Writer};

use crate::common::{self, PATIENCE, ended_in, processes};
use crate::faults::{note, reported, system, told};
use crate::harness;
use crate::machines::Machines;

/// A reset is told at once: sooner than any heartbeat could notice it.
const AT_ONCE: Duration = Duration::from_millis(1000);

/// Process: 0 writes now and then; 1 relays between the two, until it is told to reset both connections; 2 reads through the relay.
pub(crate) fn work_through_a_relay() {
    let end = match common::own_number() {
        0 => {
            let ip = told("CONNECT_IP").parse().expect("an address");
            let builder = Writer::builder().readers(0).remote_readers([0]).connect_ip(ip);
            let mut writer = builder.create().expect("a queue");
            common::publish(&writer);
            writer.wait_until_ready(PATIENCE).expect("it comes");
            loop {
                if let Err(error) = writer.send_within(b"now and then", PATIENCE) {
                    break error;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        1 => return relay(),
        _ => {
            let mut reader = Reader::open(&common::handle_of("relayed"), 0).expect("the relay is there");
            for _ in 0..10 {
                assert_eq!(reader.recv_within(PATIENCE).expect("it is sent").len(), 12);
            }
            harness::report("reads", "");
            loop {
                if let Err(error) = reader.recv_within(PATIENCE) {
                    break error;
                }
            }
        }
    };
    common::tell(&end);
}

fn relay() {
    let handle = common::handle_of("handle");
    let writer = handle.remote_address().expect("it has one");
    let door = TcpListener::bind((told("RELAY_IP"), 0)).expect("the address is ours");
    let here = door.local_addr().expect("it is bound");
    common::publish_as(&with_address(&handle, here), "relayed");
    let (from_reader, _) = door.accept().expect("a reader comes");
    let from_writer = TcpStream::connect(writer).expect("the writer is there");
    let is_to_reset = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            harness::wait_for_go();
            is_to_reset.store(true, Ordering::Relaxed);
        });
        let ways = [(&from_reader, &from_writer), (&from_writer, &from_reader)];
        for (from, _) in ways {
            from.set_read_timeout(Some(Duration::from_millis(1))).expect("an option");
        }
        let mut bytes = vec![0; 64 << 10];
        while !is_to_reset.load(Ordering::Relaxed) {
            for (mut from, mut to) in ways {
                match from.read(&mut bytes) {
                    Ok(count) => to.write_all(&bytes[..count]).expect("it goes on"),
                    Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    });
    crate::faults::tell_time("resets");
    [from_reader, from_writer].into_iter().for_each(system::reset);
}

/// The same handle with another address of the writer: of the same kind, so that its bytes are as many.
fn with_address(handle: &Handle, address: SocketAddr) -> Handle {
    let in_bytes = |address: SocketAddr| {
        let SocketAddr::V4(address) = address else { panic!("{address} is not of IPv4") };
        let port = address.port();
        // Seven bits in each byte, the lowest first.
        let port = [port as u8 | 0x80, (port >> 7) as u8 | 0x80, (port >> 14) as u8];
        [&address.ip().octets()[..], &port].concat()
    };
    let (old, new) = (in_bytes(handle.remote_address().expect("it has one")), in_bytes(address));
    let mut bytes = handle.to_bytes();
    let at = bytes.windows(old.len()).position(|window| window == old).expect("it holds the address");
    bytes[at..at + new.len()].copy_from_slice(&new);
    let changed = Handle::from_bytes(&bytes).expect("it is still a handle");
    assert_eq!(changed.remote_address(), Some(address));
    changed
}

pub(crate) fn a_reset_connection_is_told_at_once_on_both_sides() {
    let machines = Machines::new(3);
    let (mut builder, _directory) = processes("work_through_a_relay", 2);
    for process in 0..3 {
        builder = builder.wrapped(process, &machines.on(process));
    }
    let mut ranks = builder
        .env("CONNECT_IP", &machines.ipv4(0).to_string())
        .env("RELAY_IP", &machines.ipv4(1).to_string())
        .start();
    ranks.wait_for_report(2, "reads", PATIENCE);
    ranks.go(1);
    let at: u64 = ranks.wait_for_report(1, "resets", PATIENCE).parse().expect("a time");
    let (writer, reader) = (ranks.pid(0), ranks.pid(2));
    let outcomes = ranks.all_succeed(PATIENCE);
    for (process, named, address) in [(0, (0, reader), machines.ipv4(1)), (2, (0, writer), machines.ipv4(1))]
    {
        let ended = ended_in(&reported(&outcomes[process], "ended").expect("it said how it ended"));
        let took = Duration::from_nanos(ended.at.saturating_sub(at));
        note(&format!("reset: process {process} knew after {:.2} ms", took.as_secs_f64() * 1e3));
        assert_eq!((ended.kind.as_str(), ended.named[0]), ("LinkLost", named), "{}", ended.text);
        assert!(ended.text.contains(&address.to_string()), "{}", ended.text);
        assert!(took < AT_ONCE, "{took:?}: {}", ended.text);
    }
}

/// Process: 0 writes; 1 comes with another key, then with the queue's.
pub(crate) fn come_with_another_key() {
    if common::own_number() == 1 {
        let handle = common::handle_of("handle");
        let (mut bytes, key) = (handle.to_bytes(), handle.remote_key().expect("it has one"));
        let at = bytes.windows(32).position(|window| window == key).expect("it holds the key");
        bytes[at] ^= 1;
        let forged = Handle::from_bytes(&bytes).expect("it looks like one");
        crate::faults::tell_time("comes");
        common::tell(&Reader::open(&forged, 0).expect_err("the key is another"));
        harness::wait_for_go();
        let mut reader = Reader::open(&handle, 0).expect("the key is the queue's");
        assert_eq!(reader.recv_within(PATIENCE).expect("it was sent").to_vec(), b"for the key's holder");
        return drop(reader.recv_within(PATIENCE).expect_err("the writer leaves"));
    }
    let ip = told("CONNECT_IP").parse().expect("an address");
    let builder = Writer::builder().readers(0).remote_readers([0]).connect_ip(ip);
    let mut writer = builder.create().expect("a queue");
    writer.send(b"for the key's holder").expect("there is room");
    common::publish(&writer);
    harness::wait_for_go();
    assert_eq!(writer.readers()[0].presence, Presence::Awaited, "nobody has come in");
    harness::report("nobody", "");
    writer.wait_until_ready(PATIENCE).expect("it comes");
}

pub(crate) fn a_wrong_key_is_refused_between_machines() {
    let machines = Machines::new(2);
    for ip in [machines.ipv4(0), machines.ipv6(0)] {
        let (builder, _directory) = processes("come_with_another_key", 1);
        let builder = builder.wrapped(0, &machines.on(0)).wrapped(1, &machines.on(1));
        let mut ranks = builder.env("CONNECT_IP", &ip.to_string()).start();
        let refused = ended_in(&ranks.wait_for_report(1, "ended", PATIENCE));
        let came: u64 = ranks.wait_for_report(1, "comes", PATIENCE).parse().expect("a time");
        let took = Duration::from_nanos(refused.at.saturating_sub(came));
        assert!(refused.kind == "Meeting" && refused.text.contains("key"), "{}", refused.text);
        assert!(took < AT_ONCE, "{took:?}: {}", refused.text);
        note(&format!("a wrong key at {ip}: refused after {:.1} ms", took.as_secs_f64() * 1e3));
        ranks.go(0);
        ranks.wait_for_report(0, "nobody", PATIENCE);
        ranks.go(1);
        ranks.all_succeed(PATIENCE);
    }
}
