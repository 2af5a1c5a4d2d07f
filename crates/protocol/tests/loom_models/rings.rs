//! Models of the ring from one writer to many readers: data, space, wake-ups, ends and newcomers.

use crate::explore::explore;
use crate::scenarios::machine::Space;
use crate::scenarios::ring::{self, Claim, News};

#[test]
fn a_record_that_is_seen_brings_its_contents() {
    explore(3, || ring::spinning_ring(1, 2, 2, Space::Kept));
}

#[test]
fn a_record_stays_until_its_reader_has_passed() {
    explore(3, || ring::spinning_ring(1, 3, 1, Space::Kept));
}

#[test]
fn no_wake_up_is_lost_at_a_full_and_an_empty_ring() {
    explore(3, || ring::sleeping_ring(1, 3, 1));
}

#[test]
fn no_wake_up_is_lost_with_two_readers() {
    explore(2, || ring::sleeping_ring(2, 2, 1));
}

#[test]
fn an_end_wakes_who_sleeps_and_loses_nothing() {
    explore(3, ring::an_end_reaches_who_waits);
}

#[test]
fn a_death_wakes_whom_the_dead_left_asleep() {
    explore(3, || ring::a_death_wakes_whom_the_dead_left_asleep(News::WakesAll));
}

#[test]
fn a_reader_comes_while_the_writer_writes() {
    explore(3, || ring::a_reader_comes_while_the_writer_writes(Claim::ToldFirst));
}
