//! Who may read: one process for each rank, of the same user, with a handle of this queue.

use std::io::Write;
use std::time::{Duration, Instant};

use unisono::queue::{Error, Presence, Reader, WhenGone, Writer};

use crate::common::{self, PATIENCE, ended_in, processes};
use crate::faults::{Scratch, needs_root, reported, system};
use crate::harness;

/// Process: process 0 writes; 1 opens rank 0; 2 tries the same and is refused; 2 tries again when 1 was killed.
pub(crate) fn claim_one_rank_twice() {
    match common::own_number() {
        0 => {
            let mut writer = Writer::builder().when_gone(WhenGone::GoOn).create().expect("a queue");
            common::publish(&writer);
            harness::wait_for_go();
            writer.send(b"for the second").expect("the second reads");
            harness::wait_for_go();
        }
        1 => {
            let _reader = common::open(0);
            harness::report("open", "yes");
            harness::wait_for_go();
        }
        _ => {
            harness::wait_for_go();
            let handle = common::handle_of("handle");
            common::tell(&Reader::open(&handle, 0).expect_err("the rank is taken"));
            harness::wait_for_go();
            let mut reader = Reader::open(&handle, 0).expect("the rank is free again");
            harness::report("open", "yes");
            assert_eq!(reader.recv().expect("it is sent").to_vec(), b"for the second");
        }
    }
}

pub(crate) fn a_rank_is_claimed_once_and_free_again_at_once_when_its_reader_was_killed() {
    let (builder, _directory) = processes("claim_one_rank_twice", 2);
    let mut ranks = builder.start();
    ranks.wait_for_report(1, "open", PATIENCE);
    let first = ranks.pid(1);
    ranks.go(2);
    let refused = ended_in(&ranks.wait_for_report(2, "ended", PATIENCE));
    assert_eq!(
        (refused.kind.as_str(), &refused.named[..]),
        ("RankTaken", &[(0, first)][..]),
        "{}",
        refused.text
    );
    ranks.kill(1);
    ranks.wait_others(&[0, 2], PATIENCE);
    ranks.go(2);
    ranks.wait_for_report(2, "open", PATIENCE);
    ranks.go(0);
    ranks.wait_others(&[0, 1], PATIENCE);
    ranks.go(0);
    let outcomes = ranks.wait_all(PATIENCE);
    outcomes[0].assert_success();
    outcomes[2].assert_success();
}

pub(crate) fn handles_that_do_not_fit_are_told_at_once() {
    let start = Instant::now();
    let writer = Writer::builder().reader_ranks([3, 5]).create().expect("a queue");
    let unknown = Reader::open(writer.handle(), 4).expect_err("there is no such rank");
    assert!(matches!(&unknown, Error::UnknownRank { rank: 4, ranks } if ranks[..] == [3, 5]), "{unknown}");
    let handle = writer.handle().clone();
    drop(writer);
    let gone = Reader::open(&handle, 3).expect_err("the writer is gone");
    assert!(matches!(gone, Error::Meeting { .. }) && gone.to_string().contains("nobody listens"), "{gone}");
    assert!(start.elapsed() < Duration::from_secs(5));
    for refused in [
        Writer::builder().reader_ranks([1, 2, 1]).create(),
        Writer::builder().readers(65).create(),
        Writer::builder().max_chunks(0).create(),
        Writer::builder().ring_bytes(usize::MAX).create(),
    ] {
        assert!(matches!(refused, Err(Error::InvalidArgument { .. })), "{refused:?}");
    }
}

/// Process: another user's.
pub(crate) fn open_as_another_user() {
    system::become_user(65_534);
    // The handle came through the environment, which needs no rights.
    let bytes: Vec<u8> =
        crate::faults::told("HANDLE").split(',').map(|byte| byte.parse().expect("a byte")).collect();
    let handle = unisono::queue::Handle::from_bytes(&bytes).expect("it arrives");
    common::tell(&Reader::open(&handle, 0).expect_err("another user may not read"));
}

pub(crate) fn another_user_is_refused() {
    needs_root();
    let writer = Writer::builder().create().expect("a queue");
    let bytes: Vec<String> = writer.handle().to_bytes().iter().map(ToString::to_string).collect();
    let outcomes = harness::Ranks::of("open_as_another_user", 1)
        .env("HANDLE", &bytes.join(","))
        .start()
        .all_succeed(PATIENCE);
    let refused = ended_in(&reported(&outcomes[0], "ended").expect("it was refused"));
    assert!(refused.kind == "Meeting" && refused.text.contains("user"), "{}", refused.text);
    assert_eq!(writer.readers()[0].presence, Presence::Awaited);
}

/// Process: make a queue with a socket file, and be killed.
pub(crate) fn leave_a_socket_file() {
    let _writer = Writer::builder().create().expect("a queue");
    harness::kill_myself();
}

pub(crate) fn a_killed_writers_socket_file_goes_with_the_next_queue() {
    let directory = Scratch::new("queue-file");
    let killed = harness::Ranks::of("leave_a_socket_file", 1).env("UNISONO_DIR", directory.path()).start();
    assert!(killed.wait_all(PATIENCE)[0].was_killed());
    let left = directory.entries();
    assert_eq!(left.len(), 1, "{left:?}");
    let first = Writer::builder().directory(directory.path()).create().expect("a queue");
    let own = directory.entries();
    assert!(own.len() == 1 && own != left, "{own:?}");
    let second = Writer::builder().directory(directory.path()).create().expect("a queue");
    assert!(
        directory.entries().len() == 2 && directory.entries().contains(&own[0]),
        "a living writer's stays"
    );
    drop((first, second));
    assert!(directory.entries().is_empty());
}

pub(crate) fn everybody_is_ready_when_the_queue_goes_on_without_those_who_are_not() {
    let mut writer = Writer::builder().readers(2).when_gone(WhenGone::GoOn).create().expect("a queue");
    let mut reader = Reader::open(writer.handle(), 0).expect("the writer is here");
    drop(Reader::open(writer.handle(), 1).expect("the writer is here"));
    writer.wait_until_ready(PATIENCE).expect("who has left is not waited for");
    reader.wait_until_ready(PATIENCE).expect("readers see it, too");
}

pub(crate) fn a_reader_that_left_may_come_back() {
    // Where sending fails without it.
    let mut writer = Writer::builder().create().expect("a queue");
    let mut reader = Reader::open(writer.handle(), 0).expect("the writer is here");
    writer.send(b"first").expect("it is here");
    assert_eq!(reader.recv().expect("it is there").to_vec(), b"first");
    drop(reader);
    let left = wait_for_error(&mut writer);
    assert!(matches!(left, Error::PeerLeft { rank: 0, .. }), "{left}");
    let mut reader = Reader::open(writer.handle(), 0).expect("the rank is free");
    writer.send(b"second").expect("it is back");
    assert_eq!(reader.recv().expect("it is there").to_vec(), b"second");
    // Where what it has not read is kept.
    let mut writer = Writer::builder().when_gone(WhenGone::AwaitReturn).create().expect("a queue");
    let mut reader = Reader::open(writer.handle(), 0).expect("the writer is here");
    (0..4u8).for_each(|number| writer.send(&[number]).expect("there is room"));
    assert_eq!(reader.recv().expect("it is there").to_vec(), [0]);
    reader.recv().expect("it is there").keep();
    drop(reader);
    writer.send(&[4]).expect("it is kept");
    writer.send(&vec![5; 2 << 20]).expect("it is kept, too");
    let mut reader = Reader::open(writer.handle(), 0).expect("the rank is free");
    for number in 1..6u8 {
        assert_eq!(reader.recv().expect("it was kept").to_vec()[0], number);
    }
}

fn wait_for_error(writer: &mut Writer) -> Error {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Err(error) = writer.send_within(b"?", Duration::from_secs(1)) {
            return error;
        }
        assert!(Instant::now() < until, "the writer hears of it");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn a_forked_child_is_told_and_its_parent_goes_on() {
    let mut writer = Writer::builder().create().expect("a queue");
    let mut reader = Reader::open(writer.handle(), 0).expect("the writer is here");
    writer.send(b"for the parent").expect("there is room");
    let child = system::fork_child(|| {
        let sent = matches!(writer.send(b"x"), Err(Error::Forked { .. }));
        let received = matches!(reader.recv(), Err(Error::Forked { .. }));
        let waited = matches!(reader.wait_until_ready(PATIENCE), Err(Error::Forked { .. }));
        writer.control().cancel();
        writer.control().shut_down();
        reader.control().cancel();
        reader.control().shut_down();
        i32::from(!(sent && received && waited && writer.readers().is_empty()))
    });
    assert_eq!(system::exit_code_of(child), Some(0));
    // What is under way when the child comes is the parent's, too.
    let mut slot = Some(writer.reserve(4).expect("there is room"));
    let mut message = Some(reader.recv().expect("it is there"));
    let child = system::fork_child(|| {
        let (mut slot, message) = (slot.take().expect("it is there"), message.take().expect("it is there"));
        let wrote = slot.write_at(0, b"less") || slot.write(b"less").is_ok();
        slot.commit();
        let read = message.copy_to(&mut [0; 4]) > 0 || !message.to_vec().is_empty();
        drop(message);
        i32::from(wrote || read)
    });
    assert_eq!(system::exit_code_of(child), Some(0));
    assert_eq!(message.take().expect("it is the parent's").to_vec(), b"for the parent");
    let mut slot = slot.take().expect("it is the parent's");
    assert!(slot.write_at(0, b"more"));
    slot.commit();
    drop(message);
    assert_eq!(reader.recv().expect("it is there").to_vec(), b"more");
}
