//! Looking from outside: queues and communicators are seen as they stand, by their user alone, and looking disturbs nobody.

#[path = "../faults/mod.rs"]
#[macro_use]
mod faults;

mod communicators;
mod disturbance;
#[path = "../harness/mod.rs"]
mod harness;
mod queues;
mod strangers;

const SCENARIOS: &[harness::Named] = named! {
    queues::{write_or_read_some}
    communicators::{barrier_until_told, split_and_leave, meet_and_stay}
    disturbance::{add_up_until_a_death, exchange_until_told}
    strangers::{look_as_another_user, leave_a_forked_child, look_with_few_descriptors}
};

const PROMISES: &[harness::Named] = named! {
    queues::{
        a_queue_is_seen_with_those_who_lag_who_died_and_who_never_came,
        a_stopped_writer_is_told_soon,
    }
    communicators::{
        every_rank_is_seen_with_its_last_call_also_while_another_is_stopped_or_dead,
        sub_groups_are_seen_and_what_was_left_is_not,
        ranks_of_other_network_namespaces_are_seen_through_their_directory,
    }
    disturbance::{
        a_flood_at_the_sockets_of_ranks_holds_up_neither_calls_nor_the_news_of_a_death,
        a_flood_at_the_socket_of_a_queue_does_not_hold_it_up,
    }
    strangers::{
        another_user_sees_nothing,
        a_forked_child_that_outlives_the_dead_is_told_as_that,
        whoever_cannot_be_asked_for_want_of_descriptors_is_told_of,
    }
};

fn main() {
    harness::main(SCENARIOS, PROMISES);
}
