//! Whoever does not belong to the group is refused, with a reason on both sides, and harms nobody.

use std::time::Duration;

use crate::faults::{self, PATIENCE, Scratch, ended};
use crate::harness::{Builder, Outcome, Ranks};
use crate::meeting::meeting_of;

/// The user without rights.
const NOBODY: &str = "65534";

fn refused_with(outcome: &Outcome, parts: &[&str]) {
    let ended = ended(outcome);
    assert_eq!(ended.kind, "Rendezvous", "rank {}: {}", outcome.rank, ended.text);
    for part in parts {
        assert!(ended.text.contains(part), "rank {}: {part:?} is not in: {}", outcome.rank, ended.text);
    }
    outcome.assert_success();
}

fn has_met(outcome: &Outcome) -> bool {
    outcome.assert_success();
    !outcome.reports("met").is_empty()
}

pub(crate) fn a_second_engine_under_the_same_name_is_refused_and_the_first_is_unharmed() {
    let run = faults::fresh_name("engines");
    let mut first = Ranks::of("meet_and_stay", 3).run_id(&run).env("UNISONO_TIMEOUT", "20").start();
    (0..3).for_each(|rank| drop(first.wait_for_report(rank, "met", PATIENCE)));
    let leader = first.pid(0).to_string();
    for outcome in meeting_of(3, "5").run_id(&run).start().wait_all(PATIENCE) {
        refused_with(&outcome, &[&format!("process {leader}")]);
        let prompt = Duration::from_secs(4);
        assert!(outcome.elapsed < prompt, "rank {} was refused after {:?}", outcome.rank, outcome.elapsed);
    }
    (0..3).for_each(|rank| first.go(rank));
    for outcome in first.all_succeed(PATIENCE) {
        assert_eq!(outcome.reports("proved"), ["yes"]);
    }
}

pub(crate) fn a_second_process_of_the_same_rank_is_refused_and_the_first_is_unharmed() {
    let run = faults::fresh_name("taken");
    let group = |late: &str| meeting_of(3, "20").run_id(&run).env("LATE_MS", late);
    let first = group("0").without(2).start();
    let (leader, one) = (first.pid(0), first.pid(1));
    // Of two that come at once either may be first; so the second comes late.
    let second = group("700").without(0).without(2).start();
    let two = second.pid(1);
    let refused = second.wait_all(PATIENCE);
    refused_with(
        &refused[1],
        &[&format!("process {two} wanted to be rank 1"), &format!("rank 1 is process {one} already")],
    );
    // A second rank 0 as well, while the group still gathers.
    let third = group("0").without(1).without(2).start().wait_all(PATIENCE);
    refused_with(&third[0], &[&format!("process {leader}")]);
    let last = group("0").without(0).without(1).start();
    assert!(first.wait_all(PATIENCE)[..2].iter().all(has_met));
    assert!(has_met(&last.wait_all(PATIENCE)[2]));
}

/// Ranks that meet under a name that the test drew.
fn by_exchange(scenario: &str, world: usize, drawn: &str, patience: &str) -> Builder {
    Ranks::of(scenario, world)
        .env("DRAWN", drawn)
        .env("UNISONO_RENDEZVOUS_TIMEOUT", patience)
        .env("UNISONO_TIMEOUT", "10")
}

pub(crate) fn a_rank_of_another_user_is_refused_on_both_sides() {
    faults::needs_root();
    let drawn = faults::fresh_name("users");
    let ranks = by_exchange("meet_by_exchange", 2, &drawn, "1.5").env_for(1, "AS_USER", NOBODY).start();
    let leader = ranks.pid(0);
    let outcomes = ranks.wait_all(PATIENCE);
    refused_with(&outcomes[0], &["ranks [1] never came"]);
    refused_with(&outcomes[1], &[&format!("process {leader} of user 0"), "only user 65534"]);
}

pub(crate) fn a_squatter_of_the_name_is_named_on_every_rank() {
    faults::needs_root();
    let drawn = faults::fresh_name("squatter");
    let mut squatter = Ranks::of("squat", 1).env("DRAWN", &drawn).env("AS_USER", NOBODY).start();
    squatter.wait_for_report(0, "squats", PATIENCE);
    let named = format!("process {} of user 65534", squatter.pid(0));
    for outcome in by_exchange("meet_by_exchange", 3, &drawn, "3").start().wait_all(PATIENCE) {
        refused_with(&outcome, &[&named]);
    }
    squatter.go(0);
    squatter.all_succeed(PATIENCE);
}

pub(crate) fn ranks_that_disagree_about_the_world_size_are_told() {
    // The name that ranks meet under holds the world size, so these wait for one another in vain.
    let outcomes = meeting_of(2, "1")
        .env_for(1, "WORLD_SIZE", "3")
        .env_for(1, "LOCAL_WORLD_SIZE", "3")
        .start()
        .wait_all(PATIENCE);
    refused_with(&outcomes[0], &["of 2 ranks", "ranks [1] never came"]);
    refused_with(&outcomes[1], &["of 3 ranks", "rank 0 never came", "world size"]);
    // A drawn name does not: these meet, and see it.
    let drawn = faults::fresh_name("worlds");
    for (different, numbers) in [(1, ("3 ranks", "one of 2")), (0, ("2 ranks", "one of 3"))] {
        let outcomes = by_exchange("meet_by_exchange", 2, &drawn, "10")
            .env_for(different, "WORLD_SIZE", "3")
            .start()
            .wait_all(PATIENCE);
        for outcome in &outcomes {
            refused_with(outcome, &["wants a world of", numbers.0, numbers.1]);
            assert!(outcome.elapsed < Duration::from_secs(5), "at once: {:?}", outcome.elapsed);
        }
    }
}

pub(crate) fn ranks_meet_through_an_exchange_of_the_caller() {
    for world in [1, 2, 3] {
        let directory = Scratch::new("exchange");
        let ranks = by_exchange("meet_by_exchange", world, "not used", "10")
            .env("EXCHANGE", directory.path())
            .start();
        assert!(ranks.wait_all(PATIENCE).iter().all(has_met));
    }
}

pub(crate) fn an_exchange_that_fails_is_a_clear_error() {
    for (drawn, part) in
        [("fail", "the exchange is out of order"), ("too few", "returned 1 entries for 2 ranks")]
    {
        for outcome in by_exchange("meet_by_exchange", 2, drawn, "5").start().wait_all(PATIENCE) {
            refused_with(&outcome, &[part]);
        }
    }
}
