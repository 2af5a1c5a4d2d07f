//! What is seen of communicators.

use std::path::Path;
use std::time::Duration;

use unisono::observe::{self, CommunicatorFacts, LastCall, Process, RankFacts, RankState};

use crate::faults::{self, PATIENCE, Scratch, connect, needs_root, soon};
use crate::harness::{self, Ranks};

/// Rank: one barrier; then ranks 0 and 1 go into another, and the last waits for the test's word.
pub(crate) fn barrier_until_told() {
    let comm = connect();
    comm.barrier().expect("all have come");
    harness::report("met", "");
    if comm.rank() == comm.world_size() - 1 {
        harness::wait_for_go();
    }
    let waited = comm.barrier();
    if let Err(error) = &waited {
        faults::tell(error);
    }
    // The communicator is still there while the test looks.
    harness::report("after", "");
    harness::wait_for_go();
}

/// Those communicators of which this process is a rank.
fn of(pid: u32, directory: Option<&Path>) -> Vec<CommunicatorFacts> {
    let listing = observe::list(directory).expect("one may look");
    let has =
        |communicator: &CommunicatorFacts| communicator.ranks.iter().any(|rank| rank.process.pid == pid);
    listing.communicators.into_iter().filter(has).collect()
}

fn the_one_of(pid: u32) -> CommunicatorFacts {
    let mut all = of(pid, None);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

fn barrier(rank: &RankFacts) -> Option<(u64, bool)> {
    let LastCall { number, operation, finished, .. } = rank.last.as_ref()?;
    (*operation == "barrier").then_some((*number, *finished))
}

pub(crate) fn every_rank_is_seen_with_its_last_call_also_while_another_is_stopped_or_dead() {
    let mut ranks = Ranks::of("barrier_until_told", 3).start();
    (0..3).for_each(|rank| drop(ranks.wait_for_report(rank, "met", PATIENCE)));
    let pid = ranks.pid(1);
    soon("two ranks are inside of their second call", || {
        let seen = the_one_of(pid);
        // A step is noted where a rank begins to wait for long.
        let have_noted = seen.ranks.iter().all(|rank| rank.last_step.is_some());
        have_noted && [0, 1].iter().all(|rank| barrier(&seen.ranks[*rank]) == Some((2, false)))
    });
    std::thread::sleep(Duration::from_millis(300));
    let seen = the_one_of(pid);
    assert_eq!((seen.world_size, seen.stopped), (3, false));
    assert!(seen.name.contains("of 3 ranks at 127.0.0.1:29500"), "{}", seen.name);
    assert_eq!(barrier(&seen.ranks[2]), Some((1, true)), "{seen:?}");
    for (rank, facts) in seen.ranks.iter().enumerate() {
        assert_eq!((facts.rank, facts.process.pid), (rank, ranks.pid(rank)));
        assert!(facts.state == RankState::Alive && facts.answers, "{facts:?}");
        let ago = facts.last_step.expect("it took a step");
        assert!(ago >= Duration::from_millis(250) && ago < PATIENCE, "{facts:?}");
        assert!(facts.process.command.as_ref().is_some_and(|command| command.contains("observe")));
    }

    // One that is stopped does not answer, but the others know the same.
    ranks.stop(0);
    soon("it is seen to be stopped", || the_one_of(pid).ranks[0].process.state == Process::Stopped);
    let seen = the_one_of(pid);
    let stopped = &seen.ranks[0];
    assert!(stopped.state == RankState::Alive && !stopped.answers, "{stopped:?}");
    assert_eq!(barrier(stopped), Some((2, false)));
    assert!(seen.ranks[1].answers && seen.ranks[2].answers);
    ranks.resume(0);

    // One that died is dead, the communicator has ended, and what the dead did last is still seen.
    ranks.kill(2);
    [0, 1].iter().for_each(|rank| drop(ranks.wait_for_report(*rank, "after", PATIENCE)));
    let seen = the_one_of(pid);
    assert!(seen.stopped && seen.ranks[2].state == RankState::Dead, "{seen:?}");
    assert_eq!(barrier(&seen.ranks[2]), Some((1, true)));
    assert!(seen.ranks[0].state == RankState::Alive && seen.ranks[1].state == RankState::Alive);
    [0, 1].iter().for_each(|rank| ranks.go(*rank));
    ranks.wait_others(&[], PATIENCE);
    assert!(of(pid, None).is_empty(), "nobody is there");
}

/// Rank: split, leave the parent, stay in the sub-group until told.
pub(crate) fn split_and_leave() {
    let comm = connect();
    let part = comm.split(Some(7), 0).expect("all split").expect("it has a color");
    part.barrier().expect("all are there");
    harness::report("both", "");
    harness::wait_for_go();
    drop(comm);
    harness::report("one", "");
    harness::wait_for_go();
}

pub(crate) fn sub_groups_are_seen_and_what_was_left_is_not() {
    let mut ranks = Ranks::start("split_and_leave", 2);
    [0, 1].iter().for_each(|rank| drop(ranks.wait_for_report(*rank, "both", PATIENCE)));
    let names = |pid| of(pid, None).into_iter().map(|seen| seen.name).collect::<Vec<_>>();
    let both = names(ranks.pid(0));
    assert_eq!(both.len(), 2, "{both:?}");
    assert!(both[1].starts_with(&both[0]) && both[1].ends_with("color 7"), "{both:?}");
    ranks.go(0);
    ranks.wait_for_report(0, "one", PATIENCE);
    let parent = of(ranks.pid(1), None).into_iter().find(|seen| seen.name == both[0]).expect("one is in it");
    assert_eq!(parent.ranks[0].state, RankState::Left);
    ranks.go(1);
    ranks.wait_for_report(1, "one", PATIENCE);
    assert_eq!(names(ranks.pid(0)), both[1..]);
    [0, 1].iter().for_each(|rank| ranks.go(*rank));
    ranks.all_succeed(PATIENCE);
}

/// Rank: meet, and stay until told.
pub(crate) fn meet_and_stay() {
    let comm = connect();
    comm.barrier().expect("all have come");
    harness::report("met", "");
    harness::wait_for_go();
    if let Err(error) = comm.barrier() {
        faults::tell(&error);
    }
}

pub(crate) fn ranks_of_other_network_namespaces_are_seen_through_their_directory() {
    needs_root();
    let directory = Scratch::new("observed");
    let elsewhere = ["unshare", "--net"];
    let start = || {
        let ranks =
            Ranks::of("meet_and_stay", 2).env("UNISONO_DIR", directory.path()).all_wrapped(&elsewhere);
        let mut ranks = ranks.start();
        [0, 1].iter().for_each(|rank| drop(ranks.wait_for_report(*rank, "met", PATIENCE)));
        ranks
    };
    let mut ranks = start();
    let place = Some(Path::new(directory.path()));
    assert!(of(ranks.pid(0), None).is_empty());
    let seen = of(ranks.pid(0), place);
    assert!(seen.len() == 1 && seen[0].ranks.iter().all(|rank| rank.answers), "{seen:?}");
    [0, 1].iter().for_each(|rank| ranks.go(*rank));
    ranks.all_succeed(PATIENCE);
    assert_eq!(directory.entries(), [""; 0], "nothing is left");

    // What a killed rank leaves is taken away by the one that outlives it.
    let mut ranks = start();
    assert_eq!(directory.entries().len(), 2);
    ranks.kill(1);
    soon("its socket file goes", || directory.entries().len() == 1);
    ranks.go(0);
    ranks.wait_others(&[], PATIENCE);
    assert_eq!(directory.entries(), [""; 0], "nothing is left");
}
