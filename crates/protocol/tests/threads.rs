//! The scenarios of the models on the machine's own atomics, thousands of times: for ThreadSanitizer
//! (`cargo xtask sanitize`), which sees an access that nothing orders, and for processors that really reorder.

#![cfg(not(loom))]
#![allow(unsafe_code)]

mod scenarios;

use scenarios::machine::Space;
use scenarios::migrate::Wanted;
use scenarios::push::Waits;
use scenarios::stop::{self, Waiters};
use scenarios::swap::{Messages, Writers};
use scenarios::team::{self, Joining};
use scenarios::{barrier, broadcast, calls, migrate, pipeline, push, records, ring, swap, window, words};

/// Steps of a scenario that goes on.
const STEPS: u64 = 3_000;
/// Runs of a scenario that ends.
const RUNS: usize = 300;

#[test]
fn a_step_that_is_seen_brings_its_data() {
    for _ in 0..RUNS {
        // No more than three steps ahead: this writer waits for nobody.
        words::publishing_carries_data_and_fingerprints(3);
    }
}

#[test]
fn a_fingerprint_stays_until_all_have_passed_its_step() {
    words::fingerprint_slots_are_reused_after_all_have_passed(STEPS, Space::Kept);
}

#[test]
fn of_two_writers_that_differ_each_notices_or_is_told() {
    for differ_from in [1, 2, 5, 10, 20] {
        (0..RUNS).for_each(|_| calls::writers_look_back(20, differ_from));
    }
    calls::writers_look_back(STEPS, STEPS + 1);
}

#[test]
fn all_sleepers_are_woken() {
    for _ in 0..RUNS {
        words::no_wake_up_is_lost(3, 3);
    }
}

#[test]
fn ranks_meet_round_after_round() {
    for world in 2..=4 {
        barrier::spinning_ranks_meet(world, STEPS);
        barrier::sleeping_ranks_meet(world, STEPS);
    }
}

#[test]
fn swap_needs_no_acknowledgement_where_both_read() {
    for messages in [Messages::Plain, Messages::Packets] {
        swap::two_ranks_swap(&[Writers::Both; STEPS as usize], messages, Space::Kept);
    }
}

#[test]
fn swap_with_any_mix_of_writers() {
    let mixes = [Writers::Only(0), Writers::Only(1), Writers::Both, Writers::Only(0), Writers::Only(0)];
    let uses: Vec<Writers> = mixes.into_iter().cycle().take(STEPS as usize).collect();
    for messages in [Messages::Plain, Messages::Packets] {
        swap::two_ranks_swap(&uses, messages, Space::Kept);
    }
}

#[test]
fn migrate_to_all_and_to_a_root() {
    for wanted in [Wanted::ByAll, Wanted::ByRoot(0), Wanted::ByRoot(1)] {
        migrate::two_ranks_migrate(STEPS, wanted, Space::Kept);
        pipeline::two_ranks_pipeline(STEPS, wanted, Space::Kept);
    }
}

#[test]
fn push_into_the_memories_of_all() {
    for world in 2..=4 {
        push::ranks_push(world, STEPS, Waits::Both);
    }
}

#[test]
fn broadcast_to_one_and_to_three() {
    for readers in [1, 3] {
        broadcast::root_runs_ahead(readers, STEPS, Space::Kept);
    }
}

#[test]
fn messages_of_any_length_through_windows_of_any_length() {
    let messages: Vec<u64> = (0..STEPS).map(|message| 1 + message % 11).collect();
    for lines in [1, 2, 8, 13] {
        window::spinning_transfer(lines, &messages, Space::Kept);
    }
    window::sleeping_transfer(8, &messages);
}

#[test]
fn messages_reach_every_reader_of_a_ring() {
    for readers in [1, 3] {
        ring::spinning_ring(readers, STEPS, 4, Space::Kept);
        ring::sleeping_ring(readers, STEPS, 4);
    }
}

#[test]
fn ends_and_newcomers_at_a_ring() {
    for _ in 0..RUNS {
        ring::an_end_reaches_who_waits();
        ring::a_death_wakes_whom_the_dead_left_asleep(ring::News::WakesAll);
        ring::a_reader_comes_while_the_writer_writes(ring::Claim::ToldFirst);
    }
}

#[test]
fn ends_reach_everybody() {
    for _ in 0..RUNS {
        for waiters in [Waiters::Spin, Waiters::Sleep] {
            stop::an_abort_reaches_who_waits_for_more(waiters);
            stop::an_abort_or_the_step_it_races_with(waiters);
            stop::what_the_dead_published_counts(waiters, 0);
            stop::what_the_dead_published_counts(waiters, 1);
            stop::who_needs_a_rank_that_left_is_told(waiters);
            stop::a_leaver_is_noticed_beside_a_late_peer(waiters);
            stop::a_leaver_is_noticed_beside_a_peer_that_never_comes(waiters);
        }
    }
}

#[test]
fn records_are_read_whole() {
    records::a_call_record_is_read_whole(STEPS, STEPS);
    for _ in 0..RUNS {
        records::the_newest_call_is_read_whole(5);
        records::a_cause_is_read_whole_at_any_moment();
        records::the_first_cause_stands(records::Stopping::InTurn);
    }
}

#[test]
fn threads_of_a_team_share_the_work() {
    for members in [2, 3, 5] {
        team::spinning_members_share_the_work(members, 7, STEPS, Joining::AtTheGate);
        team::sleeping_members_are_woken(members, 7, STEPS);
    }
}
