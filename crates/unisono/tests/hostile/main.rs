//! Promise 6, trust nothing read from shared memory or heard at the rendezvous: whatever a hostile peer writes or sends,
//! a rank ends with an error, a time-out or wrong numbers, and never crashes or waits past its deadline.

#[path = "../faults/mod.rs"]
#[macro_use]
mod faults;

mod fake_leader;
mod fake_member;
#[path = "../harness/mod.rs"]
mod harness;
mod scribbler;
mod wire;

const SCENARIOS: &[harness::Named] = named! {
    wire::{meet_under_drawn_name}
    scribbler::{work_while_somebody_scribbles}
};

const PROMISES: &[harness::Named] = named! {
    fake_member::{
        memory_that_is_not_what_it_should_be_is_refused,
        a_member_that_breaks_the_rules_is_an_error_that_names_it,
        noise_at_the_door_keeps_nobody_out,
        a_flood_at_the_door_does_not_delay_the_news_of_a_death,
    }
    fake_leader::{
        a_rank_0_that_breaks_the_rules_is_an_error_on_the_others,
        a_rank_0_that_asks_for_more_than_there_is_kills_nobody,
    }
    scribbler::{ranks_survive_whatever_is_written_into_their_shared_memory}
};

fn main() {
    harness::main(SCENARIOS, PROMISES);
}
