//! Who does not come is named by those who did.

use crate::faults::{PATIENCE, all_ended_with, ended};
use crate::harness::Outcome;
use crate::meeting::meeting_of;

fn are_named(world: usize, absent: &[usize], expected: &[usize]) -> Vec<Outcome> {
    let setup = absent.iter().fold(meeting_of(world, "0.8"), |setup, rank| setup.without(*rank));
    let outcomes = setup.start().wait_all(PATIENCE);
    all_ended_with(&outcomes, absent, "Rendezvous", expected);
    outcomes
}

pub(crate) fn a_rank_that_never_comes_is_named_on_every_rank_that_did() {
    for (world, absent) in [(2, &[1][..]), (3, &[2]), (4, &[1]), (4, &[1, 3])] {
        let outcomes = are_named(world, absent, absent);
        for outcome in outcomes.iter().filter(|outcome| !absent.contains(&outcome.rank)) {
            let text = ended(outcome).text;
            assert!(text.contains(&format!("ranks {absent:?} never came")), "{text}");
            assert!(text.contains(&format!("of {world} ranks at 127.0.0.1:29500")), "{text}");
        }
    }
}

pub(crate) fn a_rank_0_that_never_comes_is_named_on_every_rank_that_did() {
    for world in [2, 3] {
        for outcome in &are_named(world, &[0], &[0])[1..] {
            let text = ended(outcome).text;
            assert!(text.contains("rank 0 never came"), "{text}");
        }
    }
}

pub(crate) fn a_rank_that_comes_late_is_waited_for() {
    for late in [0, 1, 2] {
        let outcomes = meeting_of(3, "20").env_for(late, "LATE_MS", "700").start().all_succeed(PATIENCE);
        assert!(outcomes.iter().all(|outcome| !outcome.reports("met").is_empty()));
    }
}
