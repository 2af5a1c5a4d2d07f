//! Coming in, step by step: whoever is killed in the middle of it, reader or writer, leaves nobody waiting and nothing
//! taken.

use std::time::Duration;

use unisono::queue::{Error, Reader, WhenGone, Writer};

use crate::common::{self, PATIENCE, ended_in, number, processes};
use crate::faults::{PROMPT, reported, told};
use crate::harness::{self, Outcome};

const MESSAGES: u64 = 500;

/// Process: 0 writes; 1 reads; 2 is killed as it claims the second rank; 3 claims it after that, and may have had it before.
pub(crate) fn claim_a_rank_whose_claimant_died() {
    let me = common::own_number();
    if me == 0 {
        let policy = if told("POLICY") == "fail" { WhenGone::Fail } else { WhenGone::AwaitReturn };
        let mut writer = Writer::builder().readers(2).when_gone(policy).create().expect("a queue");
        common::publish(&writer);
        for index in 0..MESSAGES {
            writer.send(&index.to_le_bytes()).unwrap_or_else(|error| panic!("message {index}: {error}"));
            std::thread::sleep(Duration::from_micros(100));
        }
        harness::wait_for_go();
        return;
    }
    let had_before = number("HAD_BEFORE") as u64;
    let read = |messages: std::ops::Range<u64>| {
        let mut reader = common::open(me.min(2) - 1);
        for index in messages {
            assert_eq!(reader.recv().expect("it was kept").to_vec(), index.to_le_bytes());
        }
        reader
    };
    if me == 3 {
        drop((had_before > 0).then(|| read(0..had_before)));
        harness::report("left", "yes");
    }
    if me > 1 {
        harness::wait_for_go();
    }
    let mut reader = read(if me == 3 { had_before } else { 0 }..MESSAGES);
    assert!(me != 2, "it was to be killed before it was in");
    harness::report("read", "all");
    assert!(matches!(reader.recv(), Err(Error::PeerLeft { .. })));
}

pub(crate) fn a_reader_killed_as_it_comes_in_takes_nothing_with_it() {
    let steps = ["connected", "asked", "mapped", "claimed"];
    // Who has said that it is ready is there; then a queue that fails without it would say so.
    let of_a_queue_that_fails = steps[..3].iter().map(|point| (*point, "fail", 0));
    let of_one_that_awaits = steps.iter().flat_map(|point| [(*point, "await", 0), (*point, "await", 100)]);
    for (point, policy, had_before) in of_a_queue_that_fails.chain(of_one_that_awaits) {
        let (builder, _directory) = processes("claim_a_rank_whose_claimant_died", 3);
        let mut ranks = builder
            .env("POLICY", policy)
            .env("HAD_BEFORE", &had_before.to_string())
            .env_for(2, "UNISONO_FAULT", &format!("{point}@1"))
            .start();
        ranks.wait_for_report(3, "left", PATIENCE);
        ranks.go(2);
        ranks.wait_others(&[0, 1, 3], PATIENCE);
        ranks.go(3);
        [1, 3].into_iter().for_each(|reader| drop(ranks.wait_for_report(reader, "read", PATIENCE)));
        ranks.go(0);
        let outcomes = ranks.wait_all(PATIENCE);
        assert!(outcomes[2].was_killed(), "{point}: {}", outcomes[2].output);
        [0, 1, 3].map(|other: usize| &outcomes[other]).into_iter().for_each(Outcome::assert_success);
    }
}

/// Process: 0 writes, and is killed as it lets the second reader in; 1 and 2 read.
pub(crate) fn come_in_to_a_writer_that_dies() {
    let me = common::own_number();
    if me == 0 {
        let mut writer = Writer::builder().readers(2).create().expect("a queue");
        common::publish(&writer);
        let ready = writer.wait_until_ready(PATIENCE);
        unreachable!("it was to be killed before: {ready:?}");
    }
    if me == 2 {
        harness::wait_for_go();
    }
    let come_and_wait = || {
        let mut reader = Reader::open_within(&common::handle_of("handle"), me - 1, PATIENCE)?;
        harness::report("open", "yes");
        reader.wait_until_ready(PATIENCE)?;
        reader.recv_within(PATIENCE).map(|message| message.len())
    };
    common::tell(&come_and_wait().expect_err("the writer dies"));
}

pub(crate) fn a_writer_killed_as_it_lets_a_reader_in_is_told_to_both() {
    for point in ["admitting", "let in", "hearing"] {
        let (builder, _directory) = processes("come_in_to_a_writer_that_dies", 2);
        let mut ranks = builder.env_for(0, "UNISONO_FAULT", &format!("{point}@2")).start();
        let writer = ranks.pid(0);
        ranks.wait_for_report(1, "open", PATIENCE);
        ranks.go(2);
        for reader in [1, 2] {
            let ended = ended_in(&ranks.wait_for_report(reader, "ended", PROMPT));
            let died = ended.kind == "PeerDied" && ended.named == [(0, writer)];
            // Who is not in yet does not know whom it has to do with.
            let gone = reader == 2 && ended.kind == "Meeting";
            assert!(died || gone, "{point}: reader {reader}: {}", ended.text);
        }
        let outcomes = ranks.wait_all(PATIENCE);
        assert!(outcomes[0].was_killed(), "{point}");
        outcomes[1..].iter().for_each(Outcome::assert_success);
    }
}

/// Process: 0 waits for three readers of which only two come, and one of them is killed before all are there.
pub(crate) fn wait_for_readers_of_which_one_dies() {
    if common::own_number() == 0 {
        let mut writer = Writer::builder().readers(3).create().expect("a queue");
        common::publish(&writer);
        let error = writer.wait_until_ready(PATIENCE).expect_err("one dies");
        return common::tell(&error);
    }
    let mut reader = common::open(common::own_number() - 1);
    harness::report("open", "yes");
    common::tell(&reader.wait_until_ready(PATIENCE).expect_err("one dies, then the writer gives up"));
}

pub(crate) fn a_reader_killed_before_all_are_ready_is_named() {
    let (builder, _directory) = processes("wait_for_readers_of_which_one_dies", 2);
    let mut ranks = builder.start();
    ranks.wait_for_report(1, "open", PATIENCE);
    ranks.wait_for_report(2, "open", PATIENCE);
    let dead = ranks.pid(2);
    ranks.kill(2);
    ranks.wait_for_report(0, "ended", PROMPT);
    let outcomes = ranks.wait_all(PATIENCE);
    let ended =
        [0, 1].map(|process: usize| ended_in(&reported(&outcomes[process], "ended").expect("it ended")));
    assert_eq!((ended[0].kind.as_str(), &ended[0].named[..]), ("PeerDied", &[(1, dead)][..]));
    assert_eq!(ended[1].kind, "PeerLeft");
    outcomes[..2].iter().for_each(Outcome::assert_success);
}
