//! The queue from one writer to many readers, on real processes: what is sent arrives, what ends is told, what waits
//! sleeps.

#[path = "../faults/mod.rs"]
#[macro_use]
mod faults;

mod claiming;
mod claims;
mod common;
mod deaths;
mod doors;
mod exchange;
#[path = "../harness/mod.rs"]
mod harness;
mod hostile;
mod impostors;
mod lost;

/// How the death of one reader is told here, the last step before it is ready, and a queue of one.
const LOST_WHEN_KILLED: &str = "PeerDied";
const NOT_YET_READY: &str = "mapped";

fn one_reader() -> unisono::queue::Builder {
    unisono::queue::Writer::builder().readers(1)
}

const SCENARIOS: &[harness::Named] = named! {
    exchange::{exchange_random_messages, exchange_every_length}
    deaths::{send_or_receive_until_the_end, consume_after_the_death, go_on_or_await}
    claims::{claim_one_rank_twice, open_as_another_user, leave_a_socket_file}
    claiming::{
        claim_a_rank_whose_claimant_died,
        come_in_to_a_writer_that_dies,
        wait_for_readers_of_which_one_dies,
    }
    doors::{work_beside_a_stopped_reader, work_beside_a_flood, come_to_a_writer_without_descriptors, receive_without_descriptors}
    lost::{send_no_more, lose_a_reader_and_get_another, lose_messages_to_one_who_never_was_ready}
    hostile::{work_at_a_queue_while_somebody_scribbles, go_back, wait_for_what_is_nowhere}
};

const PROMISES: &[harness::Named] = named! {
    exchange::{
        every_reader_gets_every_message_whole_and_in_order,
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
    claiming::{
        a_reader_killed_as_it_comes_in_takes_nothing_with_it,
        a_writer_killed_as_it_lets_a_reader_in_is_told_to_both,
        a_reader_killed_before_all_are_ready_is_named,
    }
    doors::{
        a_stopped_reader_delays_nobody_and_misses_nothing,
        a_crowd_of_strangers_keeps_no_reader_out,
        a_flood_of_another_users_knocks_keeps_neither_the_host_busy_nor_a_reader_out,
        a_writer_without_descriptors_rests_and_lets_in_when_it_has_some,
        a_large_message_that_cannot_arrive_is_told_and_is_no_death,
    }
    lost::{
        a_reader_gone_with_messages_unread_is_named_once_though_its_rank_is_taken_again,
        what_is_sent_while_one_comes_that_never_is_ready_is_not_lost_in_silence,
        a_reader_gone_with_the_last_messages_unread_is_named_in_the_log,
    }
    hostile::{
        both_sides_survive_whatever_the_other_writes,
        a_reader_that_goes_back_is_trusted_no_more,
        a_large_message_counts_its_time_out_once,
    }
    impostors::{
        a_reader_that_is_none_is_told_why_and_the_next_comes_in,
        a_reader_that_breaks_the_rules_is_named_to_the_writer,
        a_writer_that_is_none_is_told_from_one,
        a_writer_whose_words_make_no_sense_leads_nobody_astray,
    }
};

fn main() {
    harness::main(SCENARIOS, PROMISES);
}
