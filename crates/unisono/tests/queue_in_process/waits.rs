//! Every wait ends: in time, when it is cancelled, when a side is shut down; and says for whom it was.

use std::time::{Duration, Instant};

use unisono::queue::{Error, Gather, Presence, Reader, Result, WaitedFor, WhenGone, Writer};

use crate::log::Warnings;

/// Of time-outs in these tests; and what a busy machine may add.
const SHORT: Duration = Duration::from_millis(150);
const SLACK: Duration = Duration::from_secs(2);

fn pair() -> (Writer, Reader) {
    let writer = Writer::builder().ring_bytes(4096).create().expect("a queue");
    let reader = Reader::open(writer.handle(), 0).expect("the writer is here");
    (writer, reader)
}

/// Send until there is no room.
fn fill(writer: &mut Writer) -> Error {
    loop {
        if let Err(error) = writer.send_within(&[0; 500], SHORT) {
            return error;
        }
    }
}

#[test]
fn time_outs_are_exact_and_name_who_was_waited_for() {
    let (mut writer, mut reader) = pair();
    let start = Instant::now();
    let empty = reader.recv_within(SHORT).expect_err("nothing was sent");
    let waited = start.elapsed();
    assert!(waited >= SHORT && waited < SHORT + SLACK, "{waited:?}");
    let pid = std::process::id();
    assert!(
        matches!(&empty, Error::Timeout { waited_for: WaitedFor::Writer { pid: found, messages: 0, .. }, .. } if *found == pid),
        "{empty}"
    );
    let start = Instant::now();
    assert!(matches!(reader.recv_within(Duration::ZERO), Err(Error::Timeout { .. })), "a poll looks once");
    assert!(start.elapsed() < SLACK);

    let full = fill(&mut writer);
    let Error::Timeout { waited_for: WaitedFor::Readers(readers), waited, .. } = &full else {
        panic!("{full}")
    };
    assert!(*waited >= SHORT && *waited < SHORT + SLACK, "{waited:?}");
    let [status] = &readers[..] else { panic!("{full}") };
    assert_eq!((status.rank, status.pid, status.presence), (0, Some(pid), Presence::Alive));
    assert_eq!(status.lag_messages, writer.messages());
    assert!(status.lag_bytes > 3000 && status.lag_bytes <= 4096, "{full}");
    let sent = writer.messages();
    assert!(full.to_string().contains(&format!("behind by {sent} messages")), "{full}");
    // A time-out changes nothing.
    reader.recv().expect("it is there");
    assert!(writer.readers()[0].last_step.is_some());
    writer.send_within(&[0; 400], SHORT).expect("there is room again");
    for _ in 0..sent {
        reader.recv_within(Duration::ZERO).expect("a poll finds what is there");
    }
}

#[test]
fn a_rank_that_never_comes_is_named() {
    let mut writer = Writer::builder().readers(3).ring_bytes(4096).create().expect("a queue");
    let mut reader = Reader::open(writer.handle(), 1).expect("the writer is here");
    let missing = |error: &Error| {
        let Error::Timeout { waited_for: WaitedFor::Readers(readers), .. } = error else { panic!("{error}") };
        readers.iter().map(|reader| (reader.rank, reader.presence)).collect::<Vec<_>>()
    };
    let not_ready = writer.wait_until_ready(SHORT).expect_err("two are missing");
    assert_eq!(missing(&not_ready), [(0, Presence::Awaited), (2, Presence::Awaited)]);
    assert!(matches!(reader.wait_until_ready(SHORT), Err(Error::Timeout { .. })));
    // Messages are kept for those who come late; then there is no more room.
    let full = fill(&mut writer);
    assert_eq!(missing(&full).len(), 3);
    while reader.recv_within(Duration::ZERO).is_ok() {}
    let full = fill(&mut writer);
    assert_eq!(missing(&full), [(0, Presence::Awaited), (2, Presence::Awaited)]);
    let mut late = [0, 2].map(|rank| Reader::open(writer.handle(), rank).expect("the writer is here"));
    writer.wait_until_ready(SLACK).expect("all have come");
    reader.wait_until_ready(SLACK).expect("all have come");
    for reader in &mut late {
        assert_eq!(reader.recv().expect("it was kept").len(), 500);
    }
    writer.send_within(&[0; 300], SLACK).expect("there is room again");
}

#[test]
fn no_more_messages_are_unread_than_are_allowed() {
    let mut writer = Writer::builder().max_chunks(3).create().expect("a queue");
    let mut reader = Reader::open(writer.handle(), 0).expect("the writer is here");
    (0..3u8).for_each(|number| writer.send_within(&[number], SHORT).expect("three are allowed"));
    for number in 3..100u8 {
        assert!(matches!(writer.send_within(&[number], Duration::ZERO), Err(Error::Timeout { .. })));
        reader.recv().expect("it is there");
        writer.send_within(&[number], SHORT).expect("one was read");
    }
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

#[test]
fn cancelling_and_shutting_down_end_every_wait_on_both_sides() {
    let (mut writer, mut reader) = pair();
    let control = reader.control();
    let ended = ends_soon(|| reader.recv_within(None).map(|_| ()), || control.cancel());
    assert!(matches!(ended, Error::Cancelled { .. }), "{ended}");
    writer.send(b"goes on").expect("there is room");
    assert_eq!(reader.recv().expect("a cancelled wait is over").to_vec(), b"goes on");
    let ended = ends_soon(|| reader.recv_within(None).map(|_| ()), || control.shut_down());
    assert!(matches!(ended, Error::ShutDown { .. }), "{ended}");
    assert!(matches!(reader.recv(), Err(Error::ShutDown { .. })), "for good");

    let (mut writer, _reader) = pair();
    fill(&mut writer);
    let control = writer.control();
    let ended = ends_soon(|| writer.send_within(&[0; 500], None), || control.cancel());
    assert!(matches!(ended, Error::Cancelled { .. }), "{ended}");
    let ended = ends_soon(|| writer.send_within(&[0; 500], None), || control.shut_down());
    assert!(matches!(ended, Error::ShutDown { .. }), "{ended}");
    assert!(matches!(writer.send(&[]), Err(Error::ShutDown { .. })), "for good");

    let mut lonely = Writer::builder().readers(2).create().expect("a queue");
    let mut reader = Reader::open(lonely.handle(), 0).expect("the writer is here");
    let control = lonely.control();
    let ended = ends_soon(|| lonely.wait_until_ready(None), || control.cancel());
    assert!(matches!(ended, Error::Cancelled { .. }), "{ended}");
    let control = reader.control();
    let ended = ends_soon(|| reader.wait_until_ready(None), || control.shut_down());
    assert!(matches!(ended, Error::ShutDown { .. }), "{ended}");
    let control = lonely.control();
    let ended = ends_soon(|| lonely.wait_until_ready(None), || control.shut_down());
    assert!(matches!(ended, Error::ShutDown { .. }), "{ended}");
}

#[test]
fn a_side_that_leaves_ends_the_other_sides_waits() {
    let (writer, mut reader) = pair();
    let ended = {
        let mut writer = Some(writer);
        ends_soon(|| reader.recv_within(None).map(|_| ()), || drop(writer.take()))
    };
    assert!(matches!(ended, Error::PeerLeft { .. }), "{ended}");
    let (mut writer, reader) = pair();
    fill(&mut writer);
    let ended = {
        let mut reader = Some(reader);
        ends_soon(|| writer.send_within(&[0; 500], None), || drop(reader.take()))
    };
    assert!(matches!(ended, Error::PeerLeft { rank: 0, .. }), "{ended}");
    let mut writer = Writer::builder().ring_bytes(4096).when_gone(WhenGone::GoOn).create().expect("a queue");
    let reader = Reader::open(writer.handle(), 0).expect("the writer is here");
    fill(&mut writer);
    drop(reader);
    writer.send_within(&[0; 500], SLACK).expect("it goes on without the reader");
}

#[test]
fn a_message_that_does_not_fit_its_buffer_stays_the_next() {
    let (mut writer, mut reader) = pair();
    writer.send(&[9; 100]).expect("there is room");
    assert!(matches!(reader.recv_into(&mut [0; 99]), Err(Error::InvalidArgument { .. })));
    let mut buffer = [0; 100];
    assert_eq!(reader.recv_into(&mut buffer).expect("it is still there"), 100);
    assert_eq!(buffer, [9; 100]);
    // A slot that is not committed never was.
    let slot = writer.reserve(50).expect("there is room");
    drop(slot);
    writer.send(b"after").expect("there is room");
    assert_eq!(reader.recv().expect("it is there").to_vec(), b"after");
}

#[test]
fn who_panics_with_a_message_in_hand_keeps_no_room() {
    let (mut writer, mut reader) = pair();
    for round in 0..50u8 {
        writer.send_within(&[round; 1000], SLACK).expect("there is room again");
        let panics = std::panic::AssertUnwindSafe(|| {
            let message = reader.recv().expect("it is there");
            assert_eq!(message.to_vec(), [round; 1000]);
            // Without the message that a panic prints.
            std::panic::resume_unwind(Box::new("in its user's code"));
        });
        assert!(std::panic::catch_unwind(panics).is_err());
    }
}

#[test]
fn a_gather_names_the_missing_and_never_mixes_rounds() {
    let mut workers: Vec<Writer> =
        (0..3).map(|rank| Writer::builder().rank(rank + 10).create().expect("a queue")).collect();
    let readers =
        workers.iter().map(|worker| Reader::open(worker.handle(), 0).expect("it is here")).collect();
    let mut gather = Gather::new(readers);
    for round in 0..3u8 {
        workers.iter_mut().for_each(|worker| worker.send(&[round]).expect("there is room"));
        let replies = gather.collect(SLACK).replies;
        assert_eq!(replies, vec![Some(vec![round]); 3]);
    }
    // The second is late in one round; its late reply is not taken for that of the next.
    workers[0].send(b"a").expect("there is room");
    workers[2].send(b"a").expect("there is room");
    let start = Instant::now();
    let round = gather.collect(SHORT);
    assert!(start.elapsed() >= SHORT && start.elapsed() < SHORT + SLACK);
    assert_eq!(round.replies, [Some(b"a".to_vec()), None, Some(b"a".to_vec())]);
    let [missing] = &round.missing[..] else { panic!("{round:?}") };
    assert_eq!((missing.index, missing.rank), (1, 11));
    assert!(matches!(missing.error, Error::Timeout { .. }), "{missing}");
    workers[1].send(b"late").expect("there is room");
    workers.iter_mut().for_each(|worker| worker.send(b"b").expect("there is room"));
    let round = gather.collect(SLACK);
    assert_eq!(round.replies, vec![Some(b"b".to_vec()); 3]);
    // One that is gone is told at once, and the others' replies are there.
    drop(workers.remove(0));
    workers.iter_mut().for_each(|worker| worker.send(b"c").expect("there is room"));
    let round = gather.collect(None);
    assert!(
        matches!(&round.missing[..], [missing] if missing.index == 0 && matches!(missing.error, Error::PeerLeft { .. }))
    );
    assert_eq!(round.replies[1..], [Some(b"c".to_vec()), Some(b"c".to_vec())]);
    let control = gather.control();
    let ended = ends_soon(|| Err(gather.collect(None).missing.remove(1).error), || control.cancel());
    assert!(matches!(ended, Error::Cancelled { .. }), "{ended}");
}

#[test]
fn a_stall_is_explained_in_the_log_and_idleness_is_not() {
    static WARNINGS: Warnings = Warnings::new();
    tracing::subscriber::with_default(&WARNINGS, || {
        let builder = Writer::builder().ring_bytes(4096).warn_interval(Duration::from_millis(100));
        let mut writer = builder.create().expect("a queue");
        let mut reader = Reader::open(writer.handle(), 0).expect("the writer is here");
        reader.set_warn_interval(Duration::from_millis(20));
        assert!(reader.recv_within(SHORT).is_err());
        assert_eq!(WARNINGS.words(), [""; 0], "nobody waits for work that was promised");
        fill(&mut writer);
        let before = WARNINGS.words().len();
        let second = Duration::from_secs(1);
        writer.send_within(&[0; 500], second).expect_err("it is full");
        let warnings = WARNINGS.words().split_off(before);
        assert!((3..=10).contains(&warnings.len()), "{warnings:?} in {second:?}");
        let sent = writer.messages();
        let expected = format!("rank 0 (pid {}, alive, behind by {sent} messages", std::process::id());
        assert!(warnings.iter().all(|words| words.contains(&expected)), "{warnings:?}");
    });
}

#[test]
fn a_reader_that_waits_for_the_others_says_so_in_the_log() {
    static WARNINGS: Warnings = Warnings::new();
    tracing::subscriber::with_default(&WARNINGS, || {
        let writer = Writer::builder().readers(2).create().expect("a queue");
        let mut reader = Reader::open(writer.handle(), 0).expect("the writer is here");
        reader.set_warn_interval(Duration::from_millis(50));
        let late = reader.wait_until_ready(Duration::from_millis(500)).expect_err("one never comes");
        assert!(
            matches!(late, Error::Timeout { waited, .. } if waited >= Duration::from_millis(500)),
            "{late}"
        );
        let warnings = WARNINGS.words();
        assert!((2..=9).contains(&warnings.len()), "{warnings:?}");
        let is_one = |words: &String| {
            words.starts_with("wait_until_ready has waited for") && words.contains("the writer, rank 0")
        };
        assert!(warnings.iter().all(is_one), "{warnings:?}");
    });
}
