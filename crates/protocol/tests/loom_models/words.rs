//! Models of one line: data, fingerprints, wake-ups and records.

use crate::explore::explore;
use crate::scenarios::machine::Space;
use crate::scenarios::{calls, records, words};

#[test]
fn a_step_that_is_seen_brings_its_data_and_its_fingerprint() {
    explore(3, || words::publishing_carries_data_and_fingerprints(2));
}

#[test]
fn a_fingerprint_stays_until_all_have_passed_its_step() {
    explore(3, || words::fingerprint_slots_are_reused_after_all_have_passed(5, Space::Kept));
}

#[test]
fn of_two_writers_that_differ_each_notices_or_is_told() {
    explore(3, || calls::writers_look_back(2, 1));
    explore(3, || calls::writers_look_back(3, 2));
}

#[test]
fn writers_that_do_not_differ_never_believe_so() {
    explore(2, || calls::writers_look_back(4, 5));
}

#[test]
fn a_sleeper_is_woken() {
    explore(3, || words::no_wake_up_is_lost(1, 2));
}

#[test]
fn two_sleepers_on_one_word_are_both_woken() {
    explore(3, || words::no_wake_up_is_lost(2, 1));
}

#[test]
fn a_call_record_is_never_read_torn() {
    explore(3, || records::a_call_record_is_read_whole(1, 1));
}

#[test]
fn the_newest_call_is_never_read_torn() {
    explore(3, || records::the_newest_call_is_read_whole(1));
}

#[test]
fn half_a_cause_is_never_read() {
    explore(3, records::a_cause_is_read_whole_at_any_moment);
}

#[test]
fn of_two_causes_the_first_stands_and_is_read_whole() {
    explore(3, || records::the_first_cause_stands(records::Stopping::InTurn));
}
