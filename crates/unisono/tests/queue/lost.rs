//! Nothing is lost in silence: whoever went with messages unread is named to the writer, however fast its rank was taken again.

use std::time::Duration;

use unisono::queue::{Presence, WhenGone, Writer};

use crate::common::{self, PATIENCE, ended_in, processes};
use crate::faults::log::Warnings;
use crate::faults::told;
use crate::harness::{self, Outcome};
use crate::{LOST_WHEN_KILLED, NOT_YET_READY, one_reader};

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

/// Process: 0 sends and ends, without a further call, once 1 is gone, as it is told to.
pub(crate) fn send_no_more() {
    if common::own_number() == 1 {
        return read_and_go();
    }
    static WARNINGS: Warnings = Warnings::new();
    tracing::subscriber::set_global_default(&WARNINGS).expect("it is the first");
    let mut writer = writer_with_the_policy();
    send_all_before(&mut writer);
    let is_there = |writer: &Writer| writer.readers()[0].presence == Presence::Alive;
    while is_there(&writer) {
        std::thread::sleep(Duration::from_millis(1));
    }
    if told("HOW") == "told" {
        common::tell(&writer.send_within(b"after", PATIENCE).expect_err("its reader has left"));
    }
    drop(writer);
    let of_losses = WARNINGS.words().into_iter().filter(|words| words.contains("unread"));
    of_losses.for_each(|words| harness::report("logged", &words));
}

fn send_before_and_after() {
    let mut writer = writer_with_the_policy();
    send_all_before(&mut writer);
    harness::wait_for_go();
    while let Err(error) = writer.send_within(b"after", PATIENCE) {
        common::tell(&error);
    }
    harness::report("goes", "on");
}

fn writer_with_the_policy() -> Writer {
    let policy = match &told("POLICY")[..] {
        "go on" => WhenGone::GoOn,
        "await" => WhenGone::AwaitReturn,
        _ => WhenGone::Fail,
    };
    let writer = one_reader().when_gone(policy).create().expect("a queue");
    common::publish(&writer);
    writer
}

fn send_all_before(writer: &mut Writer) {
    writer.wait_until_ready(PATIENCE).expect("it comes");
    (0..SENT_BEFORE).for_each(|number| writer.send(&[number]).expect("it is there"));
    harness::report("sent", "all");
}

fn read_and_go() {
    let mut reader = common::open(0);
    harness::wait_for_go();
    let reads = if told("HOW") == "all read" { SENT_BEFORE } else { 1 };
    for number in 0..reads {
        assert_eq!(reader.recv_within(PATIENCE).expect("it was sent").to_vec(), [number]);
    }
    let in_hand = (told("HOW") == "in hand").then(|| reader.recv_within(PATIENCE).expect("it was sent"));
    if told("HOW") == "killed" || told("HOW") == "in hand" {
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

/// How often the log named the reader that went, of a writer that was dropped after that.
fn logged(how: &str, policy: &str) -> usize {
    let (builder, _directory) = processes("send_no_more", 1);
    let mut ranks = builder.env("HOW", how).env("POLICY", policy).start();
    let gone = ranks.pid(1);
    ranks.wait_for_report(0, "sent", PATIENCE);
    ranks.go(1);
    let outcomes = ranks.wait_all(PATIENCE);
    outcomes[0].assert_success();
    let logged = outcomes[0].reports("logged");
    let names_it = |words: &String| words.contains("rank 0") && words.contains(&format!("pid {gone}"));
    assert!(logged.iter().all(names_it), "{how}: {logged:?}");
    logged.len()
}

pub(crate) fn a_reader_gone_with_the_last_messages_unread_is_named_in_the_log() {
    assert_eq!(logged("killed", "fail"), 1);
    assert_eq!(logged("left", "fail"), 1);
    assert_eq!(logged("left", "await"), 1);
    // Not where the writer was told, where all was read, or where the queue goes on whatever happens.
    assert_eq!(logged("told", "fail"), 0);
    assert_eq!(logged("all read", "fail"), 0);
    assert_eq!(logged("left", "go on"), 0);
}

/// Process: 0 writes; 1 reads all and leaves; 2 is stopped before it is ready; 3 takes the rank after that.
pub(crate) fn lose_messages_to_one_who_never_was_ready() {
    match common::own_number() {
        0 => {
            let mut writer = one_reader().create().expect("a queue");
            common::publish(&writer);
            writer.wait_until_ready(PATIENCE).expect("it comes");
            writer.send(b"read").expect("it is there");
            harness::wait_for_go();
            let error = loop {
                // Until it has heard that the reader has left.
                let Err(error) = writer.wait_until_ready(Some(Duration::ZERO)) else { continue };
                break error;
            };
            common::tell(&error);
            harness::wait_for_go();
            writer.send_within(b"lost", PATIENCE).expect("somebody comes");
            harness::report("lost", "one");
            harness::wait_for_go();
            while let Err(error) = writer.send_within(b"after", PATIENCE) {
                common::tell(&error);
            }
        }
        1 => {
            let mut reader = common::open(0);
            assert_eq!(reader.recv_within(PATIENCE).expect("it was sent").to_vec(), b"read");
        }
        _ => {
            harness::wait_for_go();
            let mut reader = common::open(0);
            harness::report("open", "yes");
            assert_eq!(reader.recv_within(PATIENCE).expect("it is sent").to_vec(), b"after");
        }
    }
}

pub(crate) fn what_is_sent_while_one_comes_that_never_is_ready_is_not_lost_in_silence() {
    let (builder, _directory) = processes("lose_messages_to_one_who_never_was_ready", 3);
    let mut ranks = builder.env_for(2, "UNISONO_FAULT", &format!("{NOT_YET_READY}@1:stop")).start();
    ranks.wait_others(&[0, 2, 3], PATIENCE);
    let left = ranks.pid(1);
    ranks.go(0);
    ranks.wait_for_report(0, "ended", PATIENCE);
    ranks.go(2);
    let coming = ranks.pid(2);
    crate::faults::soon("it is stopped", || {
        unisono_os::process::state(coming) == Some(unisono_os::process::ProcessState::Stopped)
    });
    ranks.go(0);
    ranks.wait_for_report(0, "lost", PATIENCE);
    ranks.kill(2);
    ranks.wait_others(&[0, 1, 3], PATIENCE);
    ranks.go(3);
    ranks.wait_for_report(3, "open", PATIENCE);
    ranks.go(0);
    let outcomes = ranks.wait_all(PATIENCE);
    [0, 1, 3].map(|other: usize| &outcomes[other]).into_iter().for_each(Outcome::assert_success);
    let told: Vec<_> = outcomes[0].reports("ended").iter().map(|line| ended_in(line)).collect();
    let told: Vec<_> = told.iter().map(|ended| (ended.kind.as_str(), &ended.named[..])).collect();
    // Once as long as nobody had the rank, once for what was sent since.
    assert_eq!(told, [("PeerLeft", &[(0, left)][..]); 2]);
}
