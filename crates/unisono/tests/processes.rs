//! Promises 1 and 2, same bits and any order, between real processes: the conformance suite on the processes
//! backend. With `UNISONO_TEST_QUICK` it does less, with worlds of two ranks alone.

mod conformance;
mod harness;

use std::time::Duration;

use conformance::{
    ALGORITHMS, arguments, asynchronous, leaving, order, registered, small_environment, stream, subgroups,
    sweep, threads, values,
};
use harness::{Builder, Named, Ranks, quick};
use unisono::{Communicator, Isa};

/// How long a test waits for its ranks; a rank's own deadline is shorter, so that it says what it waited for.
const PATIENCE: Duration = Duration::from_secs(180);
const PATIENCE_OF_A_RANK: &str = "120";

/// On a rank: a number that the test has put into the environment.
const OPERATIONS: &str = "UNISONO_TEST_OPERATIONS";

/// Functions under their own names.
macro_rules! named {
    ($($function:ident),* $(,)?) => {
        &[$((stringify!($function), $function as fn())),*]
    };
}

fn connect() -> Communicator {
    Communicator::from_env().unwrap_or_else(|error| panic!("the ranks meet: {error}"))
}

fn operations() -> u64 {
    std::env::var(OPERATIONS).ok().and_then(|number| number.parse().ok()).expect("the test sets it")
}

fn full_or_quick<T>(full: T, quick_form: T) -> T {
    if quick() { quick_form } else { full }
}

fn worlds(full: &'static [usize]) -> &'static [usize] {
    full_or_quick(full, &[2])
}

fn ranks(scenario: &str, world: usize) -> Builder {
    Ranks::of(scenario, world).env("UNISONO_TIMEOUT", PATIENCE_OF_A_RANK)
}

/// Ranks whose parameters make short messages long.
fn small_ranks(scenario: &str, world: usize) -> Builder {
    let set = |ranks: Builder, (name, value): (&str, String)| ranks.env(name, &value);
    small_environment().into_iter().fold(ranks(scenario, world), set)
}

fn all_succeed(scenario: &str, on: &'static [usize]) {
    for &world in worlds(on) {
        small_ranks(scenario, world).start().all_succeed(PATIENCE);
    }
}

// What ranks do.

fn every_operation() {
    let comm = connect();
    // The larger the world, the more each length costs.
    let skip = if quick() { 3 } else { comm.world_size().div_ceil(4) };
    sweep::every_operation(&comm, |dtype| sweep::lengths(dtype).into_iter().step_by(skip).collect());
}

fn random_operations() {
    stream::random_operations(&connect(), 20, operations());
}

fn large_operations() {
    sweep::large_operations(&connect(), full_or_quick(5 << 20, 1 << 20));
}

fn float_reductions() {
    sweep::float_reductions(&connect());
}

fn known_values() {
    let comm = connect();
    values::reductions_worked_out_by_hand(&comm);
    values::a_thread_that_rounds_otherwise_gives_the_same_bits(&comm);
}

fn keep_an_order() {
    let comm = connect();
    order::a_root_does_not_wait_for_its_readers(&comm);
    order::rooted_operations_race_ahead(&comm);
    order::messages_arrive_in_order(&comm);
}

fn form_subgroups() {
    let comm = connect();
    subgroups::subgroups_have_the_ranks_that_named_their_color(&comm);
    subgroups::subgroups_and_parents_are_used_in_turn(&comm);
    subgroups::a_subgroup_outlives_its_parent(comm);
}

fn share_a_communicator() {
    let comm = connect();
    threads::threads_share_a_communicator(&comm, full_or_quick(600, 90));
    threads::equal_calls_need_no_order(&comm);
}

fn start_and_wait_later() {
    let comm = connect();
    asynchronous::both_kinds_follow_one_another(&comm, 21, full_or_quick(2000, 200));
    asynchronous::every_method_gives_its_buffers_back(&comm);
    asynchronous::a_scope_ends_after_its_operations(&comm);
    asynchronous::who_goes_finishes_what_it_started(comm);
}

fn leave() {
    leaving::who_left_is_missed_by_those_alone_who_need_it(connect());
}

fn make_mistakes() {
    arguments::an_argument_error_changes_nothing(&connect());
}

fn register_memory() {
    let comm = connect();
    registered::registered_buffers(&comm);
    registered::too_much_registered_memory_is_refused(&comm);
    if comm.world_size() > 1 {
        registered::mistakes_with_registered_memory(&comm);
    }
    sweep::registered_operations(&comm);
    if comm.world_size() > 1 {
        registered::an_allocation_has_a_deadline(&comm);
    }
}

const SCENARIOS: &[Named] = named![
    every_operation,
    random_operations,
    large_operations,
    float_reductions,
    known_values,
    keep_an_order,
    form_subgroups,
    share_a_communicator,
    start_and_wait_later,
    leave,
    make_mistakes,
    register_memory,
];

// What is promised of them.

fn every_operation_gives_the_bits_of_a_plain_loop() {
    all_succeed("every_operation", &[1, 2, 3, 4, 6, 8]);
}

fn random_operations_in(world: usize, operations: u64) {
    let operations = full_or_quick(operations, 300);
    let ranks = small_ranks("random_operations", world).env(OPERATIONS, &operations.to_string());
    ranks.start().all_succeed(PATIENCE);
}

fn twenty_thousand_random_operations_follow_one_another() {
    random_operations_in(full_or_quick(3, 2), 20_000);
}

fn random_operations_follow_one_another_in_other_worlds() {
    for &world in worlds(&[2, 4]) {
        random_operations_in(world, 3000);
    }
}

fn the_default_parameters_carry_data_of_several_chunks() {
    for &world in worlds(&[2, 3]) {
        ranks("large_operations", world).start().all_succeed(PATIENCE);
    }
}

fn every_mix_of_instruction_sets_gives_the_same_bits() {
    let available = Isa::available();
    let world = full_or_quick(available.len().max(2), 2);
    for shift in 0..available.len() {
        let set = |ranks: Builder, rank: usize| {
            ranks.env_for(rank, "UNISONO_ISA", available[(rank + shift) % available.len()].name())
        };
        (0..world).fold(ranks("float_reductions", world), set).start().all_succeed(PATIENCE);
    }
}

fn reductions_worked_out_by_hand() {
    small_ranks("known_values", 3).start().all_succeed(PATIENCE);
}

fn all_algorithms_give_the_same_bits() {
    for &world in worlds(&[2, 3, 4]) {
        for algorithm in ALGORITHMS {
            let ranks = ranks("float_reductions", world).env("UNISONO_ALGORITHM", algorithm.name());
            ranks.env("UNISONO_SWAP_BYTES", "4KiB").start().all_succeed(PATIENCE);
        }
    }
}

fn every_algorithm_carries_every_operation() {
    for algorithm in ALGORITHMS {
        let forced =
            |scenario: &str, world| small_ranks(scenario, world).env("UNISONO_ALGORITHM", algorithm.name());
        for &world in worlds(&[2, 3]) {
            forced("every_operation", world).start().all_succeed(PATIENCE);
            forced("random_operations", world).env(OPERATIONS, "1500").start().all_succeed(PATIENCE);
        }
    }
}

fn ranks_need_not_keep_step() {
    all_succeed("keep_an_order", &[2, 3, 4]);
}

fn subgroups_have_an_order_of_their_own() {
    all_succeed("form_subgroups", &[2, 4, 5]);
}

fn threads_share_a_communicator() {
    all_succeed("share_a_communicator", &[2, 3]);
}

fn asynchronous_and_synchronous_operations_follow_one_another() {
    all_succeed("start_and_wait_later", &[2, 3]);
}

fn who_left_is_missed_by_those_alone_who_need_it() {
    all_succeed("leave", &[2, 3, 5]);
}

fn an_argument_error_changes_nothing() {
    all_succeed("make_mistakes", &[2, 3]);
}

fn registered_memory_gives_the_bits_of_a_plain_loop() {
    for &world in worlds(&[1, 2, 3, 5]) {
        for push in ["0", "128", "64KiB"] {
            ranks("register_memory", world).env("UNISONO_PUSH_BYTES", push).start().all_succeed(PATIENCE);
        }
    }
}

fn several_threads_per_rank_give_the_bits_of_a_plain_loop() {
    for &world in worlds(&[2, 3]) {
        let threads = |ranks: Builder, rank: usize| {
            ranks.env_for(rank, "UNISONO_THREADS", &(rank + 2).to_string()).env("UNISONO_THREAD_BYTES", "64")
        };
        let ranks =
            small_ranks("random_operations", world).env(OPERATIONS, &full_or_quick(3000, 200).to_string());
        (0..world).fold(ranks, threads).start().all_succeed(PATIENCE);
        let ranks = ranks_with_threads("large_operations", world);
        ranks.start().all_succeed(PATIENCE);
    }
}

/// Ranks of two threads each that share what is worth it.
fn ranks_with_threads(scenario: &str, world: usize) -> Builder {
    ranks(scenario, world).env("UNISONO_THREADS", "2")
}

fn main() {
    harness::main(
        SCENARIOS,
        named![
            every_operation_gives_the_bits_of_a_plain_loop,
            twenty_thousand_random_operations_follow_one_another,
            random_operations_follow_one_another_in_other_worlds,
            the_default_parameters_carry_data_of_several_chunks,
            every_mix_of_instruction_sets_gives_the_same_bits,
            reductions_worked_out_by_hand,
            all_algorithms_give_the_same_bits,
            several_threads_per_rank_give_the_bits_of_a_plain_loop,
            every_algorithm_carries_every_operation,
            ranks_need_not_keep_step,
            subgroups_have_an_order_of_their_own,
            threads_share_a_communicator,
            asynchronous_and_synchronous_operations_follow_one_another,
            who_left_is_missed_by_those_alone_who_need_it,
            an_argument_error_changes_nothing,
            registered_memory_gives_the_bits_of_a_plain_loop,
        ],
    );
}
