//! Ends: abort against publish against sleep, a peer that dies after it has published, a peer that leaves.

use unisono_protocol::atomics::{AtomicU32, Ordering};
use unisono_protocol::{ArrivalLine, CauseRecord, Ended, Sequence, wait_until};

use super::machine::{lines, words};
use super::platform::{Arc, Region, join_all, spawn};
use super::waits::{Beds, Either, Sleeping};

const CAUSE: u32 = 5;
const DATA: u64 = 42;

/// Whether those who wait look again or sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiters {
    Spin,
    Sleep,
}

/// What the threads of these scenarios share.
struct Scene {
    lines: Vec<ArrivalLine>,
    beds: Beds,
    /// What each rank writes before it publishes its first step.
    data: Vec<Region>,
    cause: CauseRecord,
    left: AtomicU32,
    waiters: Waiters,
}

fn scene(publishers: usize, waiters: Waiters) -> Arc<Scene> {
    let lines = lines(publishers);
    let beds = Beds::of(words(&lines));
    let data = (0..publishers).map(|_| Region::new(0)).collect();
    Arc::new(Scene { lines, beds, data, cause: CauseRecord::default(), left: AtomicU32::new(0), waiters })
}

impl Scene {
    fn futex(&self) -> Either<'_> {
        match self.waiters {
            Waiters::Spin => Either::Spins,
            Waiters::Sleep => Either::Sleeps(Sleeping(&self.beds)),
        }
    }

    fn wait(&self, peers: u64, target: u64) -> Result<(), Ended> {
        wait_until(peers, target, |peer| self.lines[peer].word(), &mut self.futex())
    }

    /// The first step of `rank`: its data, then its arrival.
    fn publish(&self, rank: usize) {
        self.data[rank].write(DATA);
        self.lines[rank].publish(1, 1, &self.futex());
    }

    /// As the library's `Members::stop`: first the cause, then ABORT in every word, each with a wake-up.
    fn stop(&self) {
        self.cause.write(CAUSE, &[1, 2, 3]);
        for line in &self.lines {
            line.word().abort(&self.futex());
        }
    }

    /// As the library's `Members::leave`: first the note, then ABORT in the own words, then who sleeps on others is roused.
    fn leave(&self, rank: usize) {
        self.left.store(1, Ordering::Release);
        self.lines[rank].word().abort(&self.futex());
        for line in &self.lines {
            line.word().rouse(&self.futex());
        }
    }

    fn has_published(&self, rank: usize) -> bool {
        self.lines[rank].look().sequence().has_reached(Sequence::of(1))
    }

    fn assert_data_is_there(&self, rank: usize) {
        assert_eq!(self.data[rank].read(), DATA, "whoever sees the step sees its data");
    }

    fn assert_cause_is_known(&self) {
        let (kind, fields) = self.cause.read().expect("whoever sees ABORT finds the cause");
        assert_eq!((kind, &fields[..4]), (CAUSE, &[1, 2, 3, 0][..]));
    }
}

/// One rank publishes its last step, another thread aborts, a third waits for a step that never comes: it always
/// ends, knows why, and has the data of the step that it saw.
pub(crate) fn an_abort_reaches_who_waits_for_more(waiters: Waiters) {
    let scene = scene(1, waiters);
    let (publisher, aborter) = (scene.clone(), scene.clone());
    let threads = [spawn(move || publisher.publish(0)), spawn(move || aborter.stop())];
    assert_eq!(scene.wait(1, 2), Err(Ended::Aborted(1)));
    scene.assert_cause_is_known();
    if scene.has_published(0) {
        scene.assert_data_is_there(0);
    }
    join_all(threads);
    assert!(scene.lines[0].look().is_aborted(), "ABORT stays");
    assert!(scene.has_published(0), "and so does the step");
}

/// The same, but the waiter waits for the very step: it has it, or knows why not.
pub(crate) fn an_abort_or_the_step_it_races_with(waiters: Waiters) {
    let scene = scene(1, waiters);
    let (publisher, aborter) = (scene.clone(), scene.clone());
    let threads = [spawn(move || publisher.publish(0)), spawn(move || aborter.stop())];
    match scene.wait(1, 1) {
        Ok(()) => scene.assert_data_is_there(0),
        Err(ended) => {
            assert_eq!(ended, Ended::Aborted(1));
            scene.assert_cause_is_known();
        }
    }
    join_all(threads);
    assert!(scene.lines[0].look().is_aborted(), "ABORT stays");
}

/// Of two peers one publishes, the other publishes and then dies, which a watcher tells everybody. What was
/// published before the death counts: the dead one is never among those who are missing.
pub(crate) fn what_the_dead_published_counts(waiters: Waiters, dying: usize) {
    let scene = scene(2, waiters);
    let (alive, dead) = (scene.clone(), scene.clone());
    let threads = [
        spawn(move || alive.publish(1 - dying)),
        spawn(move || {
            dead.publish(dying);
            dead.stop();
        }),
    ];
    match scene.wait(0b11, 1) {
        Ok(()) => scene.assert_data_is_there(1 - dying),
        Err(ended) => {
            assert_eq!(ended, Ended::Aborted(1 << (1 - dying)), "the one that died has arrived");
            scene.assert_cause_is_known();
        }
    }
    scene.assert_data_is_there(dying);
    join_all(threads);
}

/// A rank publishes its last step and leaves: who waits for that step has it, who waits for another one learns that
/// the rank has left.
pub(crate) fn who_needs_a_rank_that_left_is_told(waiters: Waiters) {
    let scene = scene(1, waiters);
    let leaver = scene.clone();
    let leaver = spawn(move || {
        leaver.publish(0);
        leaver.leave(0);
    });
    assert_eq!(scene.wait(1, 1), Ok(()));
    scene.assert_data_is_there(0);
    assert_eq!(scene.wait(1, 2), Err(Ended::Aborted(1)));
    assert_eq!(scene.left.load(Ordering::Acquire), 1, "whoever sees the end sees the goodbye");
    join_all([leaver]);
}

/// One peer leaves without having done its part, and another never comes: the waiter, which may sleep on the word of
/// that one, is told all the same.
pub(crate) fn a_leaver_is_noticed_beside_a_peer_that_never_comes(waiters: Waiters) {
    let scene = scene(2, waiters);
    let leaver = scene.clone();
    let leaver = spawn(move || leaver.leave(1));
    assert_eq!(scene.wait(0b11, 1), Err(Ended::Aborted(0b11)));
    assert_eq!(scene.left.load(Ordering::Acquire), 1);
    join_all([leaver]);
}

/// One peer leaves without having done its part while another is late.
pub(crate) fn a_leaver_is_noticed_beside_a_late_peer(waiters: Waiters) {
    let scene = scene(2, waiters);
    let (late, leaver) = (scene.clone(), scene.clone());
    let threads = [spawn(move || late.publish(0)), spawn(move || leaver.leave(1))];
    let ended = scene.wait(0b11, 1).expect_err("one of the two never comes");
    assert!(matches!(ended, Ended::Aborted(missing) if missing & 0b10 != 0), "{ended:?}");
    assert_eq!(scene.left.load(Ordering::Acquire), 1);
    if ended == Ended::Aborted(0b10) {
        scene.assert_data_is_there(0);
    }
    join_all(threads);
}
