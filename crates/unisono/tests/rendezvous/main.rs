//! Promises 3 and 5 where ranks meet: who is missing is named, strangers are refused on both sides, and nothing is
//! left behind, whoever is killed and whenever.
//!
//! Some of it needs root: another user, namespaces, a control group. Without root those tests fail and say so.

#[path = "../faults/mod.rs"]
#[macro_use]
mod faults;

#[path = "../harness/mod.rs"]
mod harness;
mod meeting;
mod missing;
mod restarts;
mod settings;
mod strangers;
mod surroundings;
mod sweeping;

const SCENARIOS: &[harness::Named] = named! {
    meeting::{meet, meet_and_register, meet_and_split, meet_and_stay, meet_by_exchange, squat}
};

const PROMISES: &[harness::Named] = named! {
    missing::{
        a_rank_that_never_comes_is_named_on_every_rank_that_did,
        a_rank_0_that_never_comes_is_named_on_every_rank_that_did,
        a_rank_that_comes_late_is_waited_for,
    }
    strangers::{
        a_second_engine_under_the_same_name_is_refused_and_the_first_is_unharmed,
        a_second_process_of_the_same_rank_is_refused_and_the_first_is_unharmed,
        a_rank_of_another_user_is_refused_on_both_sides,
        a_squatter_of_the_name_is_named_on_every_rank,
        ranks_that_disagree_about_the_world_size_are_told,
        ranks_meet_through_an_exchange_of_the_caller,
        an_exchange_that_fails_is_a_clear_error,
    }
    restarts::{
        after_all_ranks_were_killed_nothing_is_left_and_the_next_start_works_at_once,
        a_name_that_a_forked_child_of_the_killed_still_holds_is_a_clear_error_until_it_ends,
        a_start_whose_ranks_were_killed_at_random_moments_does_not_harm_the_next,
    }
    sweeping::{
        the_socket_file_of_a_killed_rank_0_is_swept_by_the_next_start_under_another_name,
        the_socket_file_of_a_killed_rank_0_is_swept_by_the_ranks_that_outlive_it,
        a_start_that_makes_no_socket_file_sweeps_too,
    }
    surroundings::{
        ranks_in_different_network_namespaces_meet_in_a_given_directory,
        ranks_in_different_network_namespaces_meet_without_being_told_where,
        a_full_shared_memory_file_system_does_not_matter,
        a_memory_limit_that_is_too_small_is_refused_with_both_numbers,
        an_allocation_beyond_the_memory_limit_is_refused_on_all_ranks_and_harms_nobody,
        subgroups_of_different_sizes_are_compared_with_the_limit_by_their_sum,
    }
    settings::{
        every_variable_of_the_sources_is_tried_here,
        a_variable_set_on_one_rank_only_never_breaks_the_group,
        ranks_that_are_told_different_names_do_not_meet_and_say_so,
        a_value_that_makes_no_sense_is_named,
    }
};

fn main() {
    harness::main(SCENARIOS, PROMISES);
}
