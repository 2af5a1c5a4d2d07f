//! Promise 3, never a silent hang: deaths, departures, deadlines, aborts, forks and calls that differ, between real
//! processes that are killed at named points of the protocol.

#[path = "../faults/mod.rs"]
#[macro_use]
mod faults;

mod deadlines;
#[path = "../harness/mod.rs"]
mod harness;
mod killed;
mod left;
mod mismatches;

const SCENARIOS: &[harness::Named] = named! {
    killed::{repeat_until_error, wait_for_the_late, die_in_a_subgroup, consume_what_was_published}
    left::{
        go_as_told, leave_after_the_last_operation, wait_for_one_who_left_and_one_who_is_late, close_together,
    }
    deadlines::{
        all_reduce_until_error, wait_with_several_patiences, wait_for_an_abort, fork_and_go_on,
        register_without_descriptors, wait_behind_another_thread, wait_beside_strangers,
    }
    mismatches::{call_differently, write_differently, receive_differently}
};

const PROMISES: &[harness::Named] = named! {
    killed::{
        a_rank_killed_in_a_small_all_reduce_is_named_to_every_survivor,
        a_rank_killed_in_a_large_all_reduce_is_named_to_every_survivor,
        a_rank_killed_in_a_broadcast_is_named_to_every_survivor,
        a_rank_killed_in_a_gather_is_named_to_every_survivor,
        a_rank_killed_in_a_send_is_named_to_every_survivor,
        a_rank_killed_in_a_barrier_is_named_to_every_survivor,
        a_rank_killed_while_it_registers_or_pushes_is_named_to_every_survivor,
        a_rank_killed_in_asynchronous_operations_is_named_to_every_survivor,
        a_rank_killed_while_its_threads_share_the_work_is_named_to_every_survivor,
        a_rank_killed_in_its_sleep_is_named_to_every_survivor,
        a_killed_rank_is_named_in_time_though_it_held_a_gibibyte,
        a_killed_rank_is_named_though_a_forked_child_of_it_holds_its_sockets,
        a_rank_killed_in_a_subgroup_is_named_there_and_in_the_parent,
        what_was_published_is_consumed_before_a_death_is_reported,
    }
    left::{
        a_rank_that_drops_its_communicator_has_left_and_is_not_dead,
        a_rank_whose_thread_panics_has_left,
        a_rank_that_exits_without_leaving_is_dead,
        closing_where_others_do_not_is_a_mismatch_on_all,
        leaving_after_the_last_operation_harms_nobody,
        a_rank_that_left_is_named_though_another_is_late,
        after_closing_together_every_call_says_closed,
    }
    deadlines::{
        a_stopped_rank_is_named_in_a_timeout_on_every_other_rank,
        deadlines_hold_per_communicator_and_per_call_and_can_be_none,
        an_abort_from_another_thread_ends_the_waits_of_all_ranks,
        a_forked_child_is_told_and_its_parent_goes_on,
        nobody_waits_for_a_rank_that_has_no_descriptor_left_for_an_allocation,
        a_thread_that_waits_for_another_has_a_deadline_too,
        a_deadline_is_kept_beside_strangers_that_never_yield,
    }
    mismatches::{
        ranks_that_call_differently_are_all_told_both_calls,
        ranks_that_only_write_are_told_at_the_next_call,
        a_recv_that_does_not_fit_the_send_is_a_mismatch_on_both,
    }
};

fn main() {
    harness::main(SCENARIOS, PROMISES);
}
