//! The queue from one writer to many readers, on real processes: what is sent arrives, what ends is told, what waits
//! sleeps.

#[path = "../faults/mod.rs"]
#[macro_use]
mod faults;

mod common;
mod deaths;
mod exchange;
#[path = "../harness/mod.rs"]
mod harness;

const SCENARIOS: &[harness::Named] = named! {
    exchange::{exchange_random_messages, exchange_every_length}
    deaths::{send_or_receive_until_the_end, consume_after_the_death, go_on_or_await}
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
};

fn main() {
    harness::main(SCENARIOS, PROMISES);
}
