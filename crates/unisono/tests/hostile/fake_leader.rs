//! A fake rank 0 meets a real rank 1.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use unisono::Parameters;
use unisono_os::memfd;
use unisono_os::socket::{Connection, Listener};

use crate::faults::{Ended, MemoryGroup, PATIENCE, abstract_name, ended, fresh_name};
use crate::wire::{Message, Welcome, header, hear, memory_bytes, memory_with, say, soon, under};

const NONCE: u64 = 77;

/// Let a real rank 1 meet what `fake` does with its connection; give the error that rank 1 ends with.
fn against_rank_1(fake: impl FnOnce(&Connection)) -> Ended {
    against_rank_1_started_through(&[], fake)
}

fn against_rank_1_started_through(command: &[&str], fake: impl FnOnce(&Connection)) -> Ended {
    let drawn = fresh_name("leader");
    let listener = Listener::bind(&abstract_name(drawn.as_bytes())).expect("the name is free");
    let ranks = under(&drawn, 2, "1.5").without(0).wrapped(1, command).start();
    let connection = listener.accept(soon()).expect("rank 1 comes");
    assert!(matches!(hear(&connection), Some((Message::Hello(_), _))));
    fake(&connection);
    // Nobody is there any more for a rank that tries again.
    drop((connection, listener));
    let outcomes = ranks.wait_all(PATIENCE);
    outcomes[1].assert_success();
    ended(&outcomes[1])
}

fn welcome(connection: &Connection, parameters: Parameters) {
    say(connection, &Message::Seated, &[]);
    say(connection, &Message::Welcome(Welcome { nonce: NONCE, parameters, crowded: false }), &[]);
}

/// Take rank 1's memory; give it and what rank 1 takes for rank 0's.
fn exchange(connection: &Connection, own: OwnedFd) -> Vec<OwnedFd> {
    welcome(connection, Parameters::for_world(2));
    let Some((Message::Memory, mut descriptors)) = hear(connection) else {
        panic!("rank 1 hands over its memory")
    };
    descriptors.truncate(1);
    descriptors.insert(0, own);
    descriptors
}

fn roster(connection: &Connection, own: OwnedFd, pids: usize, descriptors: usize) {
    let set = exchange(connection, own);
    let borrowed: Vec<BorrowedFd<'_>> = set.iter().map(AsFd::as_fd).cycle().take(descriptors).collect();
    say(connection, &Message::Roster { pids: vec![1; pids], has_pidfd: vec![false; pids] }, &borrowed);
    while hear(connection).is_some() {}
}

fn odd_parameters(change: impl FnOnce(&mut Parameters)) -> Parameters {
    let mut parameters = Parameters::for_world(2);
    change(&mut parameters);
    parameters
}

pub(crate) fn a_rank_0_that_breaks_the_rules_is_an_error_on_the_others() {
    let bytes = memory_bytes(2, &Parameters::for_world(2));
    let right = header(NONCE, bytes, 0, 2);
    let see = |expected: &str, found: &Ended| {
        assert!(["Rendezvous", "Setting"].contains(&found.kind.as_str()), "{expected}: {}", found.text);
        assert!(found.text.contains(expected), "{expected:?} is not in: {}", found.text);
    };
    see("rank 0 sent something else: Go", &against_rank_1(|rank_1| say(rank_1, &Message::Go, &[])));
    see("cannot be understood", &against_rank_1(|rank_1| drop(rank_1.send(&[0xee; 300], &[], None))));
    see(
        "no thanks",
        &against_rank_1(|rank_1| {
            say(
                rank_1,
                &Message::Refused { problem: "no thanks".to_string(), missing: vec![usize::MAX; 3] },
                &[],
            );
        }),
    );
    see("rank 0 left before", &against_rank_1(|rank_1| say(rank_1, &Message::Seated, &[])));
    see("rank 0 never came", &against_rank_1(|_| {}));
    for parameters in [
        odd_parameters(|odd| odd.chunk_bytes = usize::MAX),
        odd_parameters(|odd| odd.swap_bytes = 0),
        odd_parameters(|odd| odd.window_bytes = usize::MAX / 2),
        odd_parameters(|odd| odd.broadcast_bytes = 1),
        odd_parameters(|odd| odd.small_bytes = usize::MAX),
        odd_parameters(|odd| odd.packet_bytes = usize::MAX),
        odd_parameters(|odd| odd.pipeline_bytes = 0),
        odd_parameters(|odd| odd.algorithm = Some(unisono::Algorithm::Window)),
    ] {
        see(
            "expected",
            &against_rank_1(|rank_1| {
                welcome(rank_1, parameters);
                while hear(rank_1).is_some() {}
            }),
        );
    }
    // One right memory, for comparison: with it rank 1 gets as far as waiting for the word to start.
    see(
        "rank 0 sent something else: Welcome",
        &against_rank_1(|rank_1| {
            let set = exchange(rank_1, memory_with(right, bytes));
            let set: Vec<BorrowedFd<'_>> = set.iter().map(AsFd::as_fd).collect();
            say(rank_1, &Message::Roster { pids: vec![1; 2], has_pidfd: vec![false; 2] }, &set);
            assert!(matches!(hear(rank_1), Some((Message::Ready, _))));
            welcome(rank_1, Parameters::for_world(2));
            say(rank_1, &Message::Go, &[]);
            while hear(rank_1).is_some() {}
        })
        .or_welcomed(),
    );
    for (own, expected) in [
        (memory_with([0; 4], bytes), "expected the magic number"),
        (memory_with(header(NONCE + 1, bytes, 0, 2), bytes), "nonce"),
        (memory_with(right, bytes / 2), "bytes of sealed memory, found"),
        (memfd::create_sealed("tiny", 1).expect("memory"), "bytes of sealed memory, found"),
        (crate::faults::system::memory_without_seals(), "lacks the seals"),
    ] {
        see(expected, &against_rank_1(|rank_1| roster(rank_1, own, 2, 2)));
    }
    for (pids, descriptors) in [(2, 0), (2, 1), (2, 3), (1, 2), (0, 0), (1000, 200)] {
        let own = memory_with(right, bytes);
        see("rank 0 sent something else", &against_rank_1(|rank_1| roster(rank_1, own, pids, descriptors)));
    }
}

pub(crate) fn a_rank_0_that_asks_for_more_than_there_is_kills_nobody() {
    const GIB: usize = 1 << 30;
    let group = MemoryGroup::new(256 << 20);
    let all = odd_parameters(|odd| {
        (odd.small_bytes, odd.chunk_bytes, odd.swap_bytes, odd.broadcast_bytes, odd.window_bytes) =
            (0, GIB, GIB, GIB, GIB);
    });
    let found = against_rank_1_started_through(&["sh", "-c", &group.enter_and_run()], |rank_1| {
        welcome(rank_1, all);
        while hear(rank_1).is_some() {}
    });
    assert_eq!(found.kind, "OutOfMemory", "{}", found.text);
    assert!(found.text.contains(&group.path()), "{}", found.text);
}

impl Ended {
    /// `Seated` comes before the second welcome in what this fake says, and is as wrong.
    fn or_welcomed(mut self) -> Self {
        self.text = self.text.replace("something else: Seated", "something else: Welcome");
        self
    }
}
