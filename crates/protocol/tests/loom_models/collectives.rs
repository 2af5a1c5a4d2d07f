//! Models of the collectives' step sequences: no two ranks ever touch the same staging at once.

use crate::explore::{explore, explore_some};
use crate::scenarios::machine::Space;
use crate::scenarios::migrate::Wanted;
use crate::scenarios::push::Waits;
use crate::scenarios::swap::{Messages, Writers};
use crate::scenarios::{barrier, broadcast, migrate, pipeline, push, swap, window};

#[test]
fn two_spinning_ranks_meet_twice() {
    explore(3, || barrier::spinning_ranks_meet(2, 2));
}

#[test]
fn three_spinning_ranks_meet() {
    explore_some(3, || barrier::hurried_ranks_meet(3, 1));
}

#[test]
fn two_sleeping_ranks_meet_twice() {
    explore(3, || barrier::sleeping_ranks_meet(2, 2));
}

#[test]
fn three_sleeping_ranks_meet() {
    explore(2, || barrier::sleeping_ranks_meet(3, 1));
}

#[test]
fn swap_needs_no_acknowledgement_where_both_read() {
    // Without the space rule even: what a rank overwrites it has itself read.
    explore(3, || swap::two_ranks_swap(&[Writers::Both; 3], Messages::Plain, Space::Ignored));
}

#[test]
fn swap_with_the_space_rule_where_both_read() {
    explore(3, || swap::two_ranks_swap(&[Writers::Both; 3], Messages::Plain, Space::Kept));
}

#[test]
fn swap_where_one_side_writes() {
    explore(3, || swap::two_ranks_swap(&[Writers::Only(0); 4], Messages::Plain, Space::Kept));
}

#[test]
fn swap_where_the_writer_changes() {
    explore(3, || {
        swap::two_ranks_swap(
            &[Writers::Only(0), Writers::Only(1), Writers::Both, Writers::Only(0)],
            Messages::Plain,
            Space::Kept,
        )
    });
}

#[test]
fn packets_need_no_acknowledgement_where_both_read() {
    explore(3, || swap::two_ranks_swap(&[Writers::Both; 3], Messages::Packets, Space::Ignored));
}

#[test]
fn packets_with_the_space_rule_where_both_read() {
    explore(3, || swap::two_ranks_swap(&[Writers::Both; 3], Messages::Packets, Space::Kept));
}

#[test]
fn packets_where_one_side_writes() {
    explore(3, || swap::two_ranks_swap(&[Writers::Only(0); 4], Messages::Packets, Space::Kept));
}

#[test]
fn packets_where_the_writer_changes() {
    explore(3, || {
        swap::two_ranks_swap(
            &[Writers::Only(0), Writers::Only(1), Writers::Both, Writers::Only(0)],
            Messages::Packets,
            Space::Kept,
        )
    });
}

#[test]
fn migrate_to_all() {
    explore(3, || migrate::two_ranks_migrate(2, Wanted::ByAll, Space::Kept));
}

#[test]
fn migrate_to_a_root_while_the_other_runs_ahead() {
    explore(3, || migrate::two_ranks_migrate(2, Wanted::ByRoot(0), Space::Kept));
}

#[test]
fn a_pipeline_needs_no_acknowledgement() {
    // Without the space rule even: a half is written again two steps later, and each step waits for all reducers.
    explore(3, || pipeline::two_ranks_pipeline(3, Wanted::ByRoot(0), Space::Ignored));
}

#[test]
fn push_into_both_memories_twice() {
    explore(3, || push::ranks_push(2, 2, Waits::Both));
}

#[test]
fn pipeline_to_all() {
    explore(3, || pipeline::two_ranks_pipeline(3, Wanted::ByAll, Space::Kept));
}

#[test]
fn pipeline_to_a_root_while_the_other_runs_ahead() {
    explore(3, || pipeline::two_ranks_pipeline(3, Wanted::ByRoot(0), Space::Kept));
}

#[test]
fn broadcast_to_one_reader() {
    explore(3, || broadcast::root_runs_ahead(1, 3, Space::Kept));
}

#[test]
fn broadcast_to_two_readers() {
    explore_some(1, || broadcast::root_runs_ahead_of_the_hurried(2, 3));
}

#[test]
fn messages_through_a_window_of_one_line() {
    explore(3, || window::spinning_transfer(1, &[1, 1], Space::Kept));
}

#[test]
fn a_message_larger_than_its_window_of_two_lines() {
    explore(3, || window::spinning_transfer(2, &[1, 3], Space::Kept));
}

#[test]
fn both_sides_of_a_window_asleep() {
    explore(3, || window::sleeping_transfer(1, &[1, 1]));
}
