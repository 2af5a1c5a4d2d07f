//! Every wait ends on both sides, and says for whom it was.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use unisono::queue::{Error, Handle, Presence, Reader, Result, WaitedFor, WhenGone, Writer};

use crate::faults::system;

/// Of time-outs in these tests; and what a busy machine may add.
const SHORT: Duration = Duration::from_millis(150);
const SLACK: Duration = Duration::from_secs(5);
pub(crate) const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn builder() -> unisono::queue::Builder {
    Writer::builder().readers(0).remote_readers([4]).connect_ip(LOCAL).ring_bytes(4096)
}

fn pair() -> (Writer, Reader) {
    let mut writer = builder().create().expect("a queue");
    let reader = Reader::open(writer.handle(), 4).expect("the writer is here");
    writer.wait_until_ready(SLACK).expect("it has come");
    (writer, reader)
}

fn fill(writer: &mut Writer) -> Error {
    loop {
        if let Err(error) = writer.send_within(&[0; 500], SHORT) {
            return error;
        }
    }
}

pub(crate) fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < SLACK, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn time_outs_are_exact_and_name_who_was_waited_for() {
    let (mut writer, mut reader) = pair();
    let pid = std::process::id();
    let start = Instant::now();
    let empty = reader.recv_within(SHORT).expect_err("nothing was sent");
    assert!(start.elapsed() >= SHORT && start.elapsed() < SHORT + SLACK);
    assert!(
        matches!(&empty, Error::Timeout { waited_for: WaitedFor::Writer { pid: found, .. }, .. } if *found == pid),
        "{empty}"
    );
    let address = writer.handle().remote_address().expect("it has one");
    assert!(empty.to_string().contains(&format!("(pid {pid} at {address}, alive, 0 messages")), "{empty}");
    let start = Instant::now();
    assert!(matches!(reader.recv_within(Duration::ZERO), Err(Error::Timeout { .. })), "a poll looks once");
    assert!(start.elapsed() < SLACK);

    let full = fill(&mut writer);
    let Error::Timeout { waited_for: WaitedFor::Readers(readers), waited, .. } = &full else {
        panic!("{full}")
    };
    assert!(*waited >= SHORT && *waited < SHORT + SLACK, "{waited:?}");
    let [status] = &readers[..] else { panic!("{full}") };
    assert_eq!((status.rank, status.pid, status.presence), (4, Some(pid), Presence::Alive));
    assert_eq!((status.lag_messages, status.lag_bytes), (8, 4000));
    assert!(full.to_string().contains("at 127.0.0.1"), "{full}");
    // A time-out changes nothing, and nothing is lost.
    assert_eq!(writer.messages(), 8);
    reader.recv_within(SLACK).expect("it is there");
    writer.send_within(&[1; 500], SLACK).expect("there is room again");
    for _ in 0..8 {
        assert_eq!(reader.recv_within(SLACK).expect("it is there").len(), 500);
    }
    assert!(reader.recv_within(Duration::ZERO).is_err());
    assert!(writer.readers()[0].last_step.is_some());
}

/// The wait ends with what `act` brings about, soon. It acts again and again: a wait may be cancelled only once it is
/// under way, and a busy machine may be late to begin it.
fn ends_soon(wait: impl FnOnce() -> Result<()> + Send, mut act: impl FnMut()) -> Error {
    std::thread::scope(|scope| {
        let waiting = scope.spawn(wait);
        std::thread::sleep(Duration::from_millis(60)); // It sleeps by now.
        let start = Instant::now();
        while !waiting.is_finished() {
            assert!(start.elapsed() < SLACK, "it never ends");
            act();
            std::thread::sleep(Duration::from_millis(5));
        }
        waiting.join().expect("it ends").expect_err("it was ended")
    })
}

pub(crate) fn cancelling_and_shutting_down_end_every_wait_on_both_sides() {
    let (mut writer, mut reader) = pair();
    let control = reader.control();
    let ended = ends_soon(|| reader.recv_within(None).map(|_| ()), || control.cancel());
    assert!(matches!(ended, Error::Cancelled { .. }), "{ended}");
    writer.send(b"goes on").expect("there is room");
    assert_eq!(reader.recv().expect("a cancelled wait is over").to_vec(), b"goes on");
    let ended = ends_soon(|| reader.recv_within(None).map(|_| ()), || control.shut_down());
    assert!(matches!(ended, Error::ShutDown { .. }), "{ended}");
    assert!(matches!(reader.recv(), Err(Error::ShutDown { .. })), "for good");
    assert!(matches!(reader.wait_until_ready(None), Err(Error::ShutDown { .. })), "for good");

    let (mut writer, reader) = pair();
    fill(&mut writer);
    let control = writer.control();
    let ended = ends_soon(|| writer.send_within(&[0; 500], None), || control.cancel());
    assert!(matches!(ended, Error::Cancelled { .. }), "{ended}");
    let ended = {
        let mut reader = Some(reader);
        ends_soon(|| writer.send_within(&[0; 500], None), || drop(reader.take()))
    };
    assert!(matches!(ended, Error::PeerLeft { rank: 4, .. }), "{ended}");
    let ended = writer.send(&[]).expect_err("nobody came in its place");
    assert!(matches!(ended, Error::PeerLeft { rank: 4, .. }), "{ended}");

    let (mut writer, _reader) = pair();
    fill(&mut writer);
    let control = writer.control();
    let ended = ends_soon(|| writer.send_within(&[0; 500], None), || control.shut_down());
    assert!(matches!(ended, Error::ShutDown { .. }), "{ended}");

    let mut lonely = builder().create().expect("a queue");
    let control = lonely.control();
    let ended = ends_soon(|| lonely.wait_until_ready(None), || control.cancel());
    assert!(matches!(ended, Error::Cancelled { .. }), "{ended}");

    let (writer, mut reader) = pair();
    let ended = {
        let mut writer = Some(writer);
        ends_soon(|| reader.recv_within(None).map(|_| ()), || drop(writer.take()))
    };
    assert!(matches!(ended, Error::PeerLeft { rank: 0, .. }), "{ended}");
}

pub(crate) fn everybody_is_waited_for_here_and_elsewhere() {
    let mut writer = Writer::builder()
        .reader_ranks([1])
        .remote_readers([4, 5])
        .connect_ip(LOCAL)
        .create()
        .expect("a queue");
    let missing = |error: Error| {
        let Error::Timeout { waited_for: WaitedFor::Readers(readers), .. } = error else { panic!("{error}") };
        readers.iter().map(|reader| (reader.rank, reader.presence)).collect::<Vec<_>>()
    };
    let mut far = Reader::open(writer.handle(), 5).expect("the writer is here");
    wait_until("it is ready", || writer.readers()[2].presence == Presence::Alive);
    let not_ready = writer.wait_until_ready(SHORT).expect_err("two are missing");
    assert_eq!(missing(not_ready), [(1, Presence::Awaited), (4, Presence::Awaited)]);
    assert!(matches!(far.wait_until_ready(SHORT), Err(Error::Timeout { .. })));
    let mut near = Reader::open(writer.handle(), 1).expect("the writer is here");
    assert!(matches!(near.wait_until_ready(SHORT), Err(Error::Timeout { .. })));
    let mut last = Reader::open(writer.handle(), 4).expect("the writer is here");
    writer.wait_until_ready(SLACK).expect("all have come");
    for reader in [&mut near, &mut far, &mut last] {
        reader.wait_until_ready(SLACK).expect("all have come");
    }
}

pub(crate) fn a_rank_is_claimed_once_and_may_come_back() {
    let (mut writer, reader) = pair();
    let pid = std::process::id();
    let taken = Reader::open(writer.handle(), 4).expect_err("it is taken");
    assert!(matches!(taken, Error::RankTaken { rank: 4, pid: found } if found == pid), "{taken}");
    let unknown = Reader::open(writer.handle(), 0).expect_err("it is none");
    assert!(matches!(unknown, Error::UnknownRank { rank: 0, .. }), "{unknown}");
    drop(reader);
    wait_until("it has left", || writer.readers()[0].presence == Presence::Left);
    assert!(matches!(writer.send(b"lost on nobody"), Err(Error::PeerLeft { .. })));
    let mut returned = Reader::open(writer.handle(), 4).expect("it is free again");
    writer.wait_until_ready(SLACK).expect("it has come");
    writer.send(b"welcome back").expect("it is there");
    assert_eq!(returned.recv().expect("it is there").to_vec(), b"welcome back");
}

pub(crate) fn a_message_that_does_not_fit_its_buffer_stays_the_next() {
    let (mut writer, mut reader) = pair();
    writer.send(&[9; 100]).expect("there is room");
    writer.send(b"after").expect("there is room");
    assert!(matches!(reader.recv_into(&mut [0; 99]), Err(Error::InvalidArgument { .. })));
    let mut buffer = [0; 100];
    assert_eq!(reader.recv_into(&mut buffer).expect("it is still there"), 100);
    assert_eq!(buffer, [9; 100]);
    // A slot that is not committed never was.
    let mut slot = writer.reserve(50).expect("there is room");
    assert!(slot.write_at(10, b"never") && !slot.write_at(48, b"never"));
    drop(slot);
    let mut slot = writer.reserve(4).expect("there is room");
    assert!(slot.write_at(0, b"last"));
    slot.commit();
    assert_eq!(reader.recv().expect("it is there").to_vec(), b"after");
    assert_eq!(reader.recv().expect("it is there").to_vec(), b"last");
}

pub(crate) fn a_writer_goes_on_without_a_reader_or_keeps_its_messages() {
    let mut writer = builder().when_gone(WhenGone::GoOn).create().expect("a queue");
    let reader = Reader::open(writer.handle(), 4).expect("the writer is here");
    writer.wait_until_ready(SLACK).expect("it has come");
    fill(&mut writer);
    drop(reader);
    (0..100).for_each(|_| writer.send_within(&[0; 500], SLACK).expect("it goes on without the reader"));
    let mut newcomer = Reader::open(writer.handle(), 4).expect("its rank is free");
    wait_until("it is there", || writer.readers()[0].presence == Presence::Alive);
    writer.send(b"new").expect("there is room");
    assert_eq!(newcomer.recv().expect("it begins here").to_vec(), b"new");

    let mut writer = builder().when_gone(WhenGone::AwaitReturn).create().expect("a queue");
    let mut reader = Reader::open(writer.handle(), 4).expect("the writer is here");
    (0..5u8).for_each(|number| writer.send_within(&[number], SLACK).expect("there is room"));
    (0..2u8).for_each(|number| assert_eq!(reader.recv().expect("it was sent").to_vec(), [number]));
    reader.recv().expect("it was sent").keep();
    drop(reader);
    wait_until("it has left", || writer.readers()[0].presence == Presence::Left);
    assert_eq!(writer.readers()[0].lag_messages, 3);
    let full = fill(&mut writer);
    assert!(matches!(full, Error::Timeout { .. }), "{full}");
    let mut returned = Reader::open(writer.handle(), 4).expect("its rank is free");
    (2..5u8).for_each(|number| assert_eq!(returned.recv().expect("it was kept").to_vec(), [number]));
}

pub(crate) fn a_wrong_key_is_told() {
    let (writer, _reader) = pair();
    let queue = builder().create().expect("another queue");
    let mut bytes = queue.handle().to_bytes();
    let key = queue.handle().remote_key().expect("it has one");
    assert!(!format!("{:?}", queue.handle()).contains(&format!("{:?}", key)), "it is not printed");
    let at = bytes.windows(32).position(|window| window == key).expect("it holds the key");
    bytes[at] ^= 1;
    let forged = Handle::from_bytes(&bytes).expect("it looks like one");
    let start = Instant::now();
    let refused = Reader::open(&forged, 4).expect_err("the key is another");
    assert!(matches!(refused, Error::Meeting { .. }) && refused.to_string().contains("key"), "{refused}");
    assert!(start.elapsed() < SLACK);
    assert_eq!(queue.readers()[0].presence, Presence::Awaited);
    drop(writer);
}

pub(crate) fn an_address_that_is_not_ours_is_told_with_the_systems_reason() {
    let not_ours = builder().connect_ip(Ipv4Addr::new(192, 0, 2, 7).into()).create().expect_err("not ours");
    assert!(not_ours.to_string().contains("Cannot assign requested address"), "{not_ours}");
    let any = builder().connect_ip(Ipv4Addr::UNSPECIFIED.into()).create().expect_err("no address");
    assert!(matches!(any, Error::InvalidArgument { .. }), "{any}");
    let for_nobody = Writer::builder().connect_ip(LOCAL).create().expect_err("nobody is elsewhere");
    assert!(matches!(for_nobody, Error::InvalidArgument { .. }), "{for_nobody}");
    assert!(for_nobody.to_string().contains("remote_readers"), "{for_nobody}");
    // Two queues never race for a port.
    let queues: Vec<Writer> = (0..20).map(|_| builder().create().expect("a queue")).collect();
    let mut ports: Vec<u16> =
        queues.iter().map(|queue| queue.handle().remote_address().expect("it has one").port()).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), queues.len());
    // Without an address one of this machine is chosen.
    let chosen = Writer::builder().readers(0).remote_readers([4]).create().expect("a queue");
    assert!(!chosen.handle().remote_address().expect("it has one").ip().is_unspecified());
}

pub(crate) fn a_forked_child_is_told_and_its_parent_goes_on() {
    let (mut writer, mut reader) = pair();
    let child = system::fork_child(|| {
        let is_told = matches!(writer.send(b"child"), Err(Error::Forked { .. }))
            && matches!(reader.recv(), Err(Error::Forked { .. }))
            && writer.readers().is_empty();
        i32::from(!is_told)
    });
    assert_eq!(system::exit_code_of(child), Some(0));
    writer.send(b"parent").expect("there is room");
    assert_eq!(reader.recv().expect("it is there").to_vec(), b"parent");
}
