//! Promises 4 and 5 where nothing happens: waiting costs nothing, publishing to peers who are awake makes no system
//! call, and a communicator that is gone leaves nothing in its process.

#[path = "../faults/mod.rs"]
#[macro_use]
mod faults;

#[path = "../harness/mod.rs"]
mod harness;
mod leftovers;
mod queues;
mod quiet;
mod waiting;

const SCENARIOS: &[harness::Named] = named! {
    waiting::{wait_for_one_that_is_late}
    quiet::{talk_without_system_calls, be_killed_by_the_filter}
    leftovers::{meet_and_leave_many_times}
    queues::{
        wait_at_a_queue,
        send_and_receive_without_system_calls,
        send_many_large_messages,
        open_and_close_many_queues,
        have_eight_readers,
        work_until_killed,
    }
};

const PROMISES: &[harness::Named] = named! {
    waiting::{a_waiting_rank_uses_no_processor_and_stays_in_the_kernel}
    quiet::{
        publishing_to_peers_that_do_not_sleep_makes_no_system_call,
        the_filter_of_the_test_above_has_teeth,
    }
    leftovers::{a_communicator_that_is_gone_leaves_nothing_in_its_process}
    queues::{
        both_sides_of_a_queue_sleep_while_they_wait,
        sending_to_readers_that_do_not_sleep_makes_no_system_call,
        homes_of_large_messages_are_used_again,
        a_queue_takes_its_ring_and_none_of_dev_shm,
        a_queue_of_which_all_are_killed_leaves_nothing,
        a_queue_that_is_gone_leaves_nothing_in_its_process,
    }
};

fn main() {
    harness::main(SCENARIOS, PROMISES);
}
