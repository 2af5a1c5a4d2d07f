//! Promises 1 and 2, same bits and any order, between ranks that are threads: the conformance suite on the
//! in-process backend. ThreadSanitizer runs this program; with `UNISONO_TEST_QUICK` it does less.

mod conformance;

use std::time::Duration;

use conformance::{
    ALGORITHMS, arguments, asynchronous, leaving, order, registered, small_parameters, stream, subgroups,
    sweep, teams, threads, values,
};
use unisono::{Communicator, Parameters};

/// No operation of a test takes this long; a rank that would hang fails instead.
const PATIENCE: Duration = Duration::from_secs(120);

/// Whether the environment asks for less.
fn quick() -> bool {
    std::env::var_os("UNISONO_TEST_QUICK").is_some_and(|value| value != "0")
}

/// One or the other, as the environment asks.
fn full_or_quick<T>(full: T, quick_form: T) -> T {
    if quick() { quick_form } else { full }
}

/// Let every rank of a world do the same, each in a thread.
fn on_all_ranks(parameters: &Parameters, world: usize, act: impl Fn(Communicator) + Sync) {
    let ranks = Communicator::in_process_with(world, parameters).expect("threads always meet");
    let act = &act;
    std::thread::scope(|scope| {
        for comm in ranks {
            scope.spawn(move || act(comm.with_timeout(Some(PATIENCE))));
        }
    });
}

/// The same with parameters that make short messages long.
fn on_small_worlds(worlds: &[usize], act: impl Fn(Communicator) + Sync) {
    for &world in worlds {
        on_all_ranks(&small_parameters(world), world, &act);
    }
}

/// The sweep over everything, at fewer lengths if there is little time.
fn sweep_in(world: usize) {
    if quick() && world != 3 {
        return on_small_worlds(&[world], |comm| sweep::every_operation(&comm, |_| vec![5]));
    }
    // The larger the world, the more each length costs.
    let skip = if quick() { 4 } else { world.div_ceil(4) };
    let lengths = |dtype| sweep::lengths(dtype).into_iter().step_by(skip).collect();
    on_small_worlds(&[world], |comm| sweep::every_operation(&comm, lengths));
}

#[test]
fn every_operation_gives_the_bits_of_a_plain_loop_on_1_rank() {
    sweep_in(1);
}

#[test]
fn every_operation_gives_the_bits_of_a_plain_loop_on_2_ranks() {
    sweep_in(2);
}

#[test]
fn every_operation_gives_the_bits_of_a_plain_loop_on_3_ranks() {
    sweep_in(3);
}

#[test]
fn every_operation_gives_the_bits_of_a_plain_loop_on_4_ranks() {
    sweep_in(4);
}

#[test]
fn every_operation_gives_the_bits_of_a_plain_loop_on_6_ranks() {
    sweep_in(6);
}

#[test]
fn every_operation_gives_the_bits_of_a_plain_loop_on_8_ranks() {
    sweep_in(8);
}

#[test]
fn worlds_of_16_and_64_ranks_give_the_bits_of_a_plain_loop() {
    for (world, operations) in full_or_quick(&[(16, 120), (64, 40)][..], &[(16, 30)]) {
        on_small_worlds(&[*world], |comm| stream::random_operations(&comm, 64, *operations));
    }
}

#[test]
fn the_default_parameters_carry_data_of_several_chunks() {
    let bytes = full_or_quick(5 << 20, 1 << 20);
    for world in full_or_quick(vec![2, 3], vec![2]) {
        on_all_ranks(&Parameters::for_world(world), world, |comm| sweep::large_operations(&comm, bytes));
    }
}

#[test]
fn reductions_worked_out_by_hand() {
    on_small_worlds(&[3], |comm| values::reductions_worked_out_by_hand(&comm));
}

#[test]
fn a_thread_that_rounds_otherwise_gives_the_same_bits() {
    on_small_worlds(&[2, 3], |comm| values::a_thread_that_rounds_otherwise_gives_the_same_bits(&comm));
}

#[test]
fn all_algorithms_give_the_same_bits() {
    for algorithm in ALGORITHMS {
        let mut parameters = Parameters::for_world(3);
        (parameters.algorithm, parameters.swap_bytes) = (Some(algorithm), 4096);
        on_all_ranks(&parameters, 3, |comm| sweep::float_reductions(&comm));
    }
}

#[test]
fn registered_memory_gives_the_same_bits_whatever_its_size() {
    for &world in full_or_quick(&[2, 3, 5, 7, 8][..], &[2, 3]) {
        on_all_ranks(&registered::pushing(world), world, |comm| sweep::registered_operations(&comm));
    }
}

#[test]
fn registered_buffers() {
    for world in full_or_quick(vec![1, 2, 3, 4, 8], vec![1, 2, 3]) {
        for parameters in [Parameters::for_world(world), registered::pushing(world)] {
            on_all_ranks(&parameters, world, |comm| registered::registered_buffers(&comm));
        }
    }
}

#[test]
fn every_algorithm_carries_every_operation() {
    for algorithm in ALGORITHMS {
        for &world in full_or_quick(&[2, 3, 5][..], &[2]) {
            let mut parameters = small_parameters(world);
            parameters.algorithm = Some(algorithm);
            let lengths = |dtype| sweep::lengths(dtype).into_iter().step_by(full_or_quick(2, 6)).collect();
            on_all_ranks(&parameters, world, |comm| sweep::every_operation(&comm, lengths));
            let operations = full_or_quick(600, 100);
            on_all_ranks(&parameters, world, |comm| stream::random_operations(&comm, 7, operations));
        }
    }
}

#[test]
fn mistakes_with_registered_memory() {
    on_small_worlds(&[2, 3], |comm| registered::mistakes_with_registered_memory(&comm));
}

#[test]
fn too_much_registered_memory_is_refused() {
    on_small_worlds(&[1, 2, 3], |comm| registered::too_much_registered_memory_is_refused(&comm));
}

#[test]
fn an_allocation_has_a_deadline() {
    on_small_worlds(&[2, 3], |comm| registered::an_allocation_has_a_deadline(&comm));
}

#[test]
fn random_operations_of_any_kind_follow_one_another() {
    let operations = full_or_quick(3000, 300);
    on_small_worlds(full_or_quick(&[2, 3, 5], &[3]), |comm| {
        stream::random_operations(&comm, 3, operations);
    });
}

#[test]
fn rooted_operations_race_ahead() {
    on_small_worlds(full_or_quick(&[2, 3, 4, 7], &[3]), |comm| order::rooted_operations_race_ahead(&comm));
}

#[test]
fn a_root_does_not_wait_for_its_readers() {
    on_small_worlds(&[2, 4], |comm| order::a_root_does_not_wait_for_its_readers(&comm));
}

#[test]
fn messages_arrive_in_order() {
    on_small_worlds(&[1, 2, 3], |comm| order::messages_arrive_in_order(&comm));
}

#[test]
fn subgroups_have_the_ranks_that_named_their_color() {
    on_small_worlds(&[2, 4, 7], |comm| subgroups::subgroups_have_the_ranks_that_named_their_color(&comm));
}

#[test]
fn subgroups_and_parents_are_used_in_turn() {
    on_small_worlds(&[2, 6], |comm| subgroups::subgroups_and_parents_are_used_in_turn(&comm));
}

#[test]
fn a_subgroup_outlives_its_parent() {
    on_small_worlds(&[4, 5], subgroups::a_subgroup_outlives_its_parent);
}

#[test]
fn who_left_is_missed_by_those_alone_who_need_it() {
    on_small_worlds(&[2, 3, 5], leaving::who_left_is_missed_by_those_alone_who_need_it);
}

#[test]
fn threads_share_a_communicator() {
    let cases = full_or_quick(600, 90);
    on_small_worlds(&[1, 2, 3], |comm| threads::threads_share_a_communicator(&comm, cases));
}

#[test]
fn equal_calls_need_no_order() {
    on_small_worlds(&[2, 3], |comm| threads::equal_calls_need_no_order(&comm));
}

#[test]
fn an_argument_error_changes_nothing() {
    on_small_worlds(&[2, 3], |comm| arguments::an_argument_error_changes_nothing(&comm));
}

#[test]
fn several_threads_per_rank_give_the_bits_of_a_plain_loop() {
    let (skip, operations) = full_or_quick((3, 2000), (5, 200));
    for world in full_or_quick(vec![1, 2, 3, 4], vec![2]) {
        on_small_worlds(&[world], |comm| {
            teams::take_threads(&comm);
            sweep::every_operation(&comm, |dtype| sweep::lengths(dtype).into_iter().step_by(skip).collect());
            stream::random_operations(&comm, 6, operations);
        });
    }
    on_all_ranks(&Parameters::for_world(3), 3, |comm| {
        teams::take_threads(&comm);
        sweep::large_operations(&comm, full_or_quick(5 << 20, 1 << 20));
    });
}

#[test]
fn threads_of_the_callers_share_the_work() {
    let operations = full_or_quick(500, 60);
    on_small_worlds(&[1, 2, 3], |comm| teams::threads_of_the_callers_share_the_work(&comm, operations));
}

#[test]
fn threads_that_do_not_come_are_named() {
    teams::threads_that_do_not_come_are_named();
}

#[test]
fn who_helps_a_thread_that_panics_is_told() {
    teams::who_helps_a_thread_that_panics_is_told();
}

#[test]
fn asynchronous_and_synchronous_operations_follow_one_another() {
    let operations = full_or_quick(1500, 150);
    on_small_worlds(full_or_quick(&[1, 2, 3, 5], &[2]), |comm| {
        asynchronous::both_kinds_follow_one_another(&comm, 8, operations);
        asynchronous::every_method_gives_its_buffers_back(&comm);
    });
}

#[test]
fn asynchronous_operations_are_shared_by_threads() {
    on_small_worlds(&[2], |comm| {
        teams::take_threads(&comm);
        asynchronous::both_kinds_follow_one_another(&comm, 9, full_or_quick(500, 60));
    });
}

#[test]
fn a_scope_ends_after_its_operations() {
    on_small_worlds(&[1, 2, 3], |comm| asynchronous::a_scope_ends_after_its_operations(&comm));
}

#[test]
fn who_goes_finishes_what_it_started() {
    on_small_worlds(&[2, 3], asynchronous::who_goes_finishes_what_it_started);
}

#[test]
fn an_abort_ends_what_is_pending() {
    on_small_worlds(&[2, 3], |comm| asynchronous::an_abort_ends_what_is_pending(&comm));
}

#[test]
fn waiting_for_an_operation_has_an_end() {
    let ranks = Communicator::in_process_with(2, &small_parameters(2)).expect("threads always meet");
    asynchronous::waiting_has_an_end(&ranks[0]);
}

#[test]
fn an_operation_does_not_wait_for_a_later_one() {
    on_small_worlds(&[1, 2], |comm| asynchronous::an_operation_does_not_wait_for_a_later_one(&comm));
}

#[test]
fn allocations_of_both_kinds_follow_one_another() {
    on_small_worlds(&[1, 2], |comm| asynchronous::allocations_of_both_kinds_follow_one_another(&comm));
}

#[test]
fn threads_of_an_operation_make_its_calls() {
    on_small_worlds(&[1, 2], |comm| asynchronous::threads_of_an_operation_make_its_calls(&comm));
}

#[test]
fn an_abort_ends_the_wait_for_ones_turn() {
    on_small_worlds(&[1], |comm| asynchronous::an_abort_ends_the_wait_for_ones_turn(&comm));
}

#[test]
fn a_handle_may_be_awaited() {
    on_small_worlds(&[1, 2], |comm| asynchronous::a_handle_may_be_awaited(&comm));
}
