//! Seeded bugs: each of them must be caught, or the models prove nothing.
//!
//! Here the protocol's words are sound and those who use them break a rule. Bugs inside a word are in
//! [`super::flawed_word`].

use crate::explore::explore;
use crate::scenarios::machine::Space;
use crate::scenarios::migrate::Wanted;
use crate::scenarios::push::Waits;
use crate::scenarios::records::{self, Stopping};
use crate::scenarios::ring::{self, Claim, News};
use crate::scenarios::swap::{Messages, Writers};
use crate::scenarios::team::{self, Joining};
use crate::scenarios::{broadcast, migrate, push, swap, window, words};

#[test]
#[should_panic(expected = "the fingerprint of rank")]
fn a_fingerprint_overwritten_too_early() {
    explore(3, || words::fingerprint_slots_are_reused_after_all_have_passed(5, Space::Ignored));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_swap_region_overwritten_before_it_was_read() {
    explore(3, || swap::two_ranks_swap(&[Writers::Only(0); 3], Messages::Plain, Space::Ignored));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_migrate_slot_overwritten_before_it_was_reduced() {
    explore(3, || migrate::two_ranks_migrate(2, Wanted::ByRoot(0), Space::Ignored));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn registered_memory_read_before_its_input_was_there() {
    explore(3, || push::ranks_push(2, 1, Waits::OnlyAfter));
}

#[test]
#[should_panic(expected = "in round 0")]
fn registered_memory_used_before_its_result_was_there() {
    explore(3, || push::ranks_push(2, 1, Waits::OnlyBefore));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_packet_overwritten_before_it_was_read() {
    explore(3, || swap::two_ranks_swap(&[Writers::Only(0); 3], Messages::Packets, Space::Ignored));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_packet_whose_tag_is_written_before_its_data() {
    explore(3, || swap::two_ranks_swap(&[Writers::Both; 1], Messages::PacketsTaggedTooEarly, Space::Kept));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_broadcast_buffer_overwritten_before_it_was_read() {
    explore(3, || broadcast::root_runs_ahead(1, 3, Space::Ignored));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_window_line_overwritten_before_it_was_read() {
    explore(3, || window::spinning_transfer(1, &[1, 1], Space::Ignored));
}

/// The second of two threads is told that a cause stands while the first is still writing it: if it sets ABORT then,
/// a peer finds no cause. Hence the threads of a rank take turns.
#[test]
#[should_panic(expected = "whoever sees ABORT finds a cause")]
fn two_threads_that_stop_the_group_at_once() {
    explore(3, || records::the_first_cause_stands(Stopping::AtOnce));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_member_that_works_without_having_joined() {
    explore(3, || team::spinning_members_share_the_work(2, 2, 2, Joining::WithoutAsking));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_record_overwritten_before_it_was_read() {
    explore(3, || ring::spinning_ring(1, 2, 1, Space::Ignored));
}

/// A reader that starts where the writer stood before it was told of the reader: the writer may have gone on since, and
/// over what the reader is to read.
#[test]
#[should_panic(expected = "message 0")]
fn a_reader_that_comes_in_at_a_position_seen_too_early() {
    explore(3, || ring::a_reader_comes_while_the_writer_writes(Claim::PositionFirst));
}

/// A waker that dies between taking out that somebody sleeps and waking them leaves a sleeper behind who looks awake.
#[test]
#[should_panic(expected = "deadlock")]
fn a_death_that_wakes_only_those_who_look_asleep() {
    explore(3, || ring::a_death_wakes_whom_the_dead_left_asleep(News::WakesSleepers));
}
