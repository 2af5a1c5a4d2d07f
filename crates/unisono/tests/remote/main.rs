//! Readers on other machines: the same promises as in one memory, over a network that may be cut.
//!
//! The machines are network namespaces, which only root can make: without that these tests fail and say so.

#[path = "../queue/common.rs"]
#[allow(dead_code, reason = "shared with the queue's tests")]
mod common;
#[path = "../faults/mod.rs"]
#[macro_use]
mod faults;

mod deaths;
mod exchange;
#[path = "../harness/mod.rs"]
mod harness;
mod links;
#[path = "../queue/lost.rs"]
mod lost;
mod machines;
mod relays;
mod steps;
mod waits;

/// How the death of one reader is told here, the last step before it is ready, and a queue of one.
const LOST_WHEN_KILLED: &str = "LinkLost";
const NOT_YET_READY: &str = "welcomed";

fn one_reader() -> unisono::queue::Builder {
    unisono::queue::Writer::builder().readers(0).remote_readers([0]).connect_ip(waits::LOCAL)
}

const SCENARIOS: &[harness::Named] = named! {
    exchange::{exchange_messages}
    deaths::{work_until_the_end, go_on_or_await}
    lost::{send_no_more, lose_a_reader_and_get_another, lose_messages_to_one_who_never_was_ready}
    steps::{exchange_while_somebody_dies, leave_while_somebody_comes_in}
    relays::{work_through_a_relay, come_with_another_key}
    links::{work_until_the_link_is_lost, be_slow, wait_for_a_long_message, take_the_rank_of_the_lost, wait_for_nothing}
};

const PROMISES: &[harness::Named] = named! {
    exchange::{
        readers_here_and_elsewhere_get_the_same_messages,
        readers_elsewhere_alone_need_no_ring,
        large_messages_pass,
        machines_exchange_over_both_protocols,
    }
    waits::{
        time_outs_are_exact_and_name_who_was_waited_for,
        cancelling_and_shutting_down_end_every_wait_on_both_sides,
        everybody_is_waited_for_here_and_elsewhere,
        a_rank_is_claimed_once_and_may_come_back,
        a_message_that_does_not_fit_its_buffer_stays_the_next,
        a_writer_goes_on_without_a_reader_or_keeps_its_messages,
        a_wrong_key_is_told,
        an_address_that_is_not_ours_is_told_with_the_systems_reason,
        a_forked_child_is_told_and_its_parent_goes_on,
    }
    deaths::{
        a_killed_writer_is_told_to_every_reader_elsewhere,
        a_killed_reader_elsewhere_is_named_to_the_writer,
        a_queue_goes_on_without_a_dead_reader_elsewhere,
        a_queue_keeps_messages_for_a_dead_reader_elsewhere,
    }
    lost::{
        a_reader_gone_with_messages_unread_is_named_once_though_its_rank_is_taken_again,
        what_is_sent_while_one_comes_that_never_is_ready_is_not_lost_in_silence,
        a_reader_gone_with_the_last_messages_unread_is_named_in_the_log,
    }
    steps::{
        a_reader_elsewhere_killed_as_it_comes_in_takes_nothing_with_it,
        a_reader_elsewhere_killed_at_any_step_is_missed_as_the_policy_says,
        a_writer_killed_at_any_step_is_told_to_every_reader_elsewhere,
        a_writer_that_leaves_while_a_reader_comes_in_has_left_and_is_not_lost,
    }
    relays::{a_reset_connection_is_told_at_once_on_both_sides, a_wrong_key_is_refused_between_machines}
    links::{
        a_link_that_goes_down_is_told_within_seconds_on_both_sides,
        a_message_that_comes_slowly_is_explained_in_the_log_and_idleness_is_not,
        a_rank_whose_reader_cannot_be_reached_is_had_as_soon_as_that_is_noticed,
        a_slow_reader_is_waited_for_and_named_and_loses_nothing,
        a_stopped_reader_is_lost_within_seconds_and_told_when_it_goes_on,
        both_sides_sleep_while_they_wait,
    }
};

fn main() {
    harness::main(SCENARIOS, PROMISES);
}
