//! The queue from one writer to many readers, on real processes: what is sent arrives, what ends is told, what waits
//! sleeps.

#[path = "../faults/mod.rs"]
#[macro_use]
mod faults;

mod claims;
mod common;
mod deaths;
mod exchange;
#[path = "../harness/mod.rs"]
mod harness;
mod hostile;
mod waits;

const SCENARIOS: &[harness::Named] = named! {
    exchange::{exchange_random_messages, exchange_every_length}
    deaths::{send_or_receive_until_the_end, consume_after_the_death, go_on_or_await}
    claims::{claim_one_rank_twice, open_as_another_user}
    hostile::{work_at_a_queue_while_somebody_scribbles}
};

const PROMISES: &[harness::Named] = named! {
    exchange::{
        every_reader_gets_every_message_in_order,
        messages_larger_than_the_ring_allows_arrive_in_order_with_the_others,
        very_large_messages_arrive,
        messages_of_every_length_pass_the_smallest_ring,
    }
    deaths::{
        a_reader_killed_at_any_step_is_named_to_the_writer,
        a_writer_killed_at_any_step_is_named_to_every_reader,
        a_death_is_told_in_time_though_the_dead_held_a_gibibyte,
        what_was_published_is_read_before_the_death_is_told,
        a_queue_goes_on_without_a_dead_reader,
        a_queue_keeps_messages_for_a_dead_reader_that_returns,
    }
    claims::{
        a_rank_is_claimed_once_and_free_again_at_once_when_its_reader_was_killed,
        handles_that_do_not_fit_are_told_at_once,
        another_user_is_refused,
        a_killed_writers_socket_file_goes_with_the_next_queue,
        everybody_is_ready_when_the_queue_goes_on_without_those_who_are_not,
        a_reader_that_left_may_come_back,
        a_forked_child_is_told_and_its_parent_goes_on,
    }
    waits::{
        time_outs_are_exact_and_name_who_was_waited_for,
        a_rank_that_never_comes_is_named,
        no_more_messages_are_unread_than_are_allowed,
        cancelling_and_shutting_down_end_every_wait_on_both_sides,
        a_side_that_leaves_ends_the_other_sides_waits,
        a_message_that_does_not_fit_its_buffer_stays_the_next,
        a_gather_names_the_missing_and_never_mixes_rounds,
        a_stall_is_explained_in_the_log_and_idleness_is_not,
    }
    hostile::{both_sides_survive_whatever_the_other_writes}
};

fn main() {
    harness::main(SCENARIOS, PROMISES);
}
