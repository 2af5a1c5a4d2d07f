//! Nothing is lost in silence: whoever went with messages unread is named to the writer, however fast its rank was taken again.

use unisono::queue::WhenGone;

use crate::common::{self, PATIENCE, ended_in, processes};
use crate::faults::told;
use crate::harness::{self, Outcome};
use crate::{LOST_WHEN_KILLED, one_reader};

const SENT_BEFORE: u8 = 3;

/// Process: 0 writes; 1 goes, as it is told to; 2 takes its rank before 0 sends again.
pub(crate) fn lose_a_reader_and_get_another() {
    match common::own_number() {
        0 => send_before_and_after(),
        1 => read_and_go(),
        _ => {
            harness::wait_for_go();
            let mut reader = common::open(0);
            harness::report("open", "yes");
            assert_eq!(reader.recv_within(PATIENCE).expect("it is sent").to_vec(), b"after");
        }
    }
}

fn send_before_and_after() {
    let policy = if told("POLICY") == "go on" { WhenGone::GoOn } else { WhenGone::Fail };
    let mut writer = one_reader().when_gone(policy).create().expect("a queue");
    common::publish(&writer);
    writer.wait_until_ready(PATIENCE).expect("it comes");
    (0..SENT_BEFORE).for_each(|number| writer.send(&[number]).expect("it is there"));
    harness::report("sent", "all");
    harness::wait_for_go();
    while let Err(error) = writer.send_within(b"after", PATIENCE) {
        common::tell(&error);
    }
    harness::report("goes", "on");
}

fn read_and_go() {
    let mut reader = common::open(0);
    harness::wait_for_go();
    let reads = if told("HOW") == "all read" { SENT_BEFORE } else { 1 };
    for number in 0..reads {
        assert_eq!(reader.recv_within(PATIENCE).expect("it was sent").to_vec(), [number]);
    }
    let in_hand = (told("HOW") == "in hand").then(|| reader.recv_within(PATIENCE).expect("it was sent"));
    if told("HOW") != "left" && told("HOW") != "all read" {
        harness::kill_myself();
    }
    drop(in_hand);
}

/// Kinds of errors that the writer got, each of which named the first reader.
fn told_to_the_writer(how: &str, policy: &str) -> Vec<String> {
    let (builder, _directory) = processes("lose_a_reader_and_get_another", 2);
    let mut ranks = builder.env("HOW", how).env("POLICY", policy).start();
    ranks.wait_for_report(0, "sent", PATIENCE);
    ranks.go(1);
    ranks.wait_others(&[0, 2], PATIENCE);
    let gone = ranks.pid(1);
    ranks.go(2);
    ranks.wait_for_report(2, "open", PATIENCE);
    ranks.go(0);
    ranks.wait_for_report(0, "goes", PATIENCE);
    let outcomes = ranks.wait_all(PATIENCE);
    [&outcomes[0], &outcomes[2]].into_iter().for_each(Outcome::assert_success);
    let errors = outcomes[0].reports("ended");
    let errors = errors.iter().map(|line| ended_in(line));
    errors
        .map(|error| {
            assert_eq!(error.named, [(0, gone)], "{how}: {}", error.text);
            error.kind
        })
        .collect()
}

pub(crate) fn a_reader_gone_with_messages_unread_is_named_once_though_its_rank_is_taken_again() {
    assert_eq!(told_to_the_writer("killed", "fail"), [LOST_WHEN_KILLED]);
    assert_eq!(told_to_the_writer("in hand", "fail"), [LOST_WHEN_KILLED]);
    assert_eq!(told_to_the_writer("left", "fail"), ["PeerLeft"]);
    // Of nobody is told where nothing was lost, or where the queue goes on whatever happens.
    assert_eq!(told_to_the_writer("all read", "fail"), [""; 0]);
    assert_eq!(told_to_the_writer("killed", "go on"), [""; 0]);
}
