//! One writer, one arrival line: what is published is seen whole, and who sleeps on it is woken.

use unisono_protocol::{ArrivalLine, wait_until};

use super::machine::{Rank, Space, lines, words};
use super::platform::{Arc, Region, join_all, run_ranks, spawn};
use super::waits::{Beds, Sleeping, Spinning};

/// A line and the data of each of its steps.
struct Published {
    line: ArrivalLine,
    data: Vec<Region>,
}

/// Whoever has seen a step has seen its data and its fingerprint, step after step.
pub(crate) fn publishing_carries_data_and_fingerprints(steps: u64) {
    let shared = Arc::new(Published {
        line: ArrivalLine::default(),
        data: (0..steps).map(|_| Region::new(0)).collect(),
    });
    let writer = shared.clone();
    let writer = spawn(move || {
        for step in 1..=steps {
            writer.data[step as usize - 1].write(step * 7);
            writer.line.publish(step, step * 11, &Spinning);
        }
    });
    for step in 1..=steps {
        wait_until(1, step, |_| shared.line.word(), &mut Spinning).expect("nobody aborts");
        assert_eq!(shared.data[step as usize - 1].read(), step * 7, "the data of step {step}");
        assert_eq!(shared.line.fingerprint(step), step * 11, "the fingerprint of step {step}");
    }
    join_all([writer]);
}

/// Rank 0 never waits for data and so runs ahead; rank 1 reads the fingerprint of each step. Rank 0 may
/// be three steps ahead and no more, or it would write over a fingerprint that is still to be read.
pub(crate) fn fingerprint_slots_are_reused_after_all_have_passed(steps: u64, space: Space) {
    let lines = lines(2);
    let shared = Arc::new((lines, steps, space));
    run_ranks(2, &shared, |rank, (lines, steps, space)| {
        let mut rank = Rank::new(rank, lines, Spinning, *space);
        for _ in 0..*steps {
            rank.open_step()?;
            rank.publish();
            if rank.rank == 1 {
                rank.wait_for(1)?;
            }
        }
        Ok(())
    })
    .expect("nobody aborts");
}

struct Line {
    line: Vec<ArrivalLine>,
    beds: Beds,
}

/// Any number of sleepers wait for the last of the steps: all of them are woken.
pub(crate) fn no_wake_up_is_lost(sleepers: usize, steps: u64) {
    let line = lines(1);
    let beds = Beds::of(words(&line));
    let shared = Arc::new(Line { line, beds });
    let sleepers: Vec<_> = (0..sleepers)
        .map(|_| {
            let shared = shared.clone();
            spawn(move || {
                let word = shared.line[0].word();
                wait_until(1, steps, |_| word, &mut Sleeping(&shared.beds)).expect("nobody aborts");
            })
        })
        .collect();
    for step in 1..=steps {
        shared.line[0].publish(step, 0, &Sleeping(&shared.beds));
    }
    join_all(sleepers);
}
