//! A fake rank 1 meets a real rank 0.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use unisono::Parameters;
use unisono_os::socket::Connection;
use unisono_os::{memfd, pidfd, random};

use crate::faults::{self, Ended, PATIENCE, PROMPT, all_ended_with, ended, fresh_name};
use crate::harness::Ranks;
use crate::wire::{
    Message, VERSION, Welcome, header, hear, hello, knock, memory_bytes, memory_with, say, under,
};

/// Let a real rank 0 meet what `fake` does with its connection; give the error that rank 0 ends with.
fn against_rank_0(patience: &str, fake: impl FnOnce(&Connection)) -> Ended {
    let drawn = fresh_name("member");
    let ranks = under(&drawn, 2, patience).without(1).start();
    let connection = knock(&drawn);
    fake(&connection);
    drop(connection);
    let outcomes = ranks.wait_all(PATIENCE);
    outcomes[0].assert_success();
    ended(&outcomes[0])
}

/// Be seated and welcomed as rank 1 of 2.
fn be_welcomed(connection: &Connection) -> Welcome {
    say(connection, &Message::Hello(hello(1, 2)), &[]);
    assert!(matches!(hear(connection), Some((Message::Seated, _))));
    match hear(connection) {
        Some((Message::Welcome(welcome), _)) => welcome,
        other => panic!("expected a welcome, found {other:?}"),
    }
}

/// What the fake hands over as its memory, by what rank 0 must say about it.
fn bad_memories(welcome: &Welcome, bytes: usize) -> Vec<(&'static str, Vec<OwnedFd>)> {
    let right = header(welcome.nonce, bytes, 1, 2);
    let with = |index: usize, word: u64| {
        let mut header = right;
        header[index] = word;
        vec![memory_with(header, bytes)]
    };
    let scratch = std::env::temp_dir().join(fresh_name("unisono-file"));
    let file = std::fs::File::create(&scratch).expect("a file");
    file.set_len(bytes as u64).expect("a file has any size");
    std::fs::remove_file(&scratch).expect("it was made above");
    vec![
        ("expected the magic number", with(0, 0)),
        ("expected the magic number", with(0, u64::from_le_bytes(*b"unisono9"))),
        ("nonce", with(1, welcome.nonce ^ 1)),
        ("bytes", with(2, u64::MAX)),
        ("rank", with(3, header(welcome.nonce, bytes, 0, 2)[3])),
        ("world", with(3, header(welcome.nonce, bytes, 1, 3)[3])),
        ("expected the magic number", vec![memory_with([0; 4], bytes)]),
        ("bytes of sealed memory, found", vec![memory_with(right, bytes - 4096)]),
        ("bytes of sealed memory, found", vec![memory_with(right, bytes + 4096)]),
        ("lacks the seals", vec![unsealed(bytes)]),
        ("", vec![file.into()]),
        ("", vec![pidfd::open_self().expect("a pidfd")]),
        ("sent something else", vec![]),
        ("sent something else", (0..3).map(|_| memory_with(right, bytes)).collect()),
    ]
}

/// Memory that could be cut off under everybody's feet: what a fresh memfd is before anybody seals it.
fn unsealed(bytes: usize) -> OwnedFd {
    let descriptor = faults::system::memory_without_seals();
    let file = std::fs::File::from(descriptor);
    file.set_len(bytes as u64).expect("it can grow");
    file.into()
}

pub(crate) fn memory_that_is_not_what_it_should_be_is_refused() {
    let bytes = memory_bytes(2, &Parameters::for_world(2));
    let cases =
        bad_memories(&Welcome { nonce: 0, parameters: Parameters::for_world(2), crowded: false }, bytes)
            .len();
    for case in 0..cases {
        let mut expected = "";
        let found = against_rank_0("10", |connection| {
            let welcome = be_welcomed(connection);
            let (problem, descriptors) = bad_memories(&welcome, bytes).swap_remove(case);
            expected = problem;
            let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
            say(connection, &Message::Memory, &descriptors);
            while hear(connection).is_some() {}
        });
        assert_eq!(found.kind, "Rendezvous", "case {case}: {}", found.text);
        assert!(found.text.contains("rank 1"), "case {case}: {}", found.text);
        assert!(found.text.contains(expected), "case {case}: {expected:?} is not in: {}", found.text);
    }
    // What was refused above differs from this in one thing each: this is taken, and the fake is then waited for.
    let found = against_rank_0("10", |connection| {
        let welcome = be_welcomed(connection);
        let memory = memory_with(header(welcome.nonce, bytes, 1, 2), bytes);
        // Something that is no process in the place of the pidfd is not believed, and harms nobody.
        let no_process = memfd::create_sealed("no process", 4096).expect("memory");
        say(connection, &Message::Memory, &[memory.as_fd(), no_process.as_fd()]);
        assert!(matches!(hear(connection), Some((Message::Roster { .. }, _))));
        say(connection, &Message::Ready, &[]);
        assert!(matches!(hear(connection), Some((Message::Go, _))));
        std::thread::sleep(std::time::Duration::from_millis(1500));
    });
    assert!(["Timeout", "PeerDied"].contains(&found.kind.as_str()), "{}", found.text);
    assert_eq!(found.ranks, [1], "{}", found.text);
}

pub(crate) fn a_member_that_breaks_the_rules_is_an_error_that_names_it() {
    type Broken = fn(&Connection);
    let cases: [(&str, Broken); 7] = [
        ("left before the group was complete", |connection| {
            be_welcomed(connection);
        }),
        ("sent something else: Ready", |connection| {
            be_welcomed(connection);
            say(connection, &Message::Ready, &[]);
        }),
        ("sent something else: Welcome", |connection| {
            let welcome = be_welcomed(connection);
            say(connection, &Message::Welcome(welcome), &[]);
        }),
        ("cannot be understood", |connection| {
            be_welcomed(connection);
            let _ = connection.send(&[0xff; 1000], &[], None);
        }),
        ("out of paper", |connection| {
            be_welcomed(connection);
            say(connection, &Message::Failed { problem: "out of paper".to_string() }, &[]);
        }),
        ("longer", |connection| {
            be_welcomed(connection);
            let _ = connection.send(&[1; 100_000], &[], None);
        }),
        // It goes before anybody has welcomed it, and its seat is free again.
        ("ranks [1] never came", |connection| {
            say(connection, &Message::Hello(crate::wire::Hello { world: 2, ..hello(1, 2) }), &[]);
            say(connection, &Message::Hello(hello(1, 2)), &[]);
        }),
    ];
    for (expected, fake) in &cases[..5] {
        let found = against_rank_0("5", fake);
        assert_eq!(found.kind, "Rendezvous", "{expected}: {}", found.text);
        assert!(found.text.contains("rank 1"), "{}", found.text);
        assert!(found.text.contains(expected), "{expected:?} is not in: {}", found.text);
    }
    for (_, fake) in &cases[5..] {
        let found = against_rank_0("2", fake);
        assert_eq!(found.kind, "Rendezvous", "{}", found.text);
    }
}

pub(crate) fn noise_at_the_door_keeps_nobody_out() {
    let drawn = fresh_name("noise");
    let ranks = under(&drawn, 2, "20").without(1).start();
    let mut kept = Vec::new();
    for round in 0..60_usize {
        let connection = knock(&drawn);
        let length = usize::from(u16::from_le_bytes(random::bytes().expect("random bytes"))) % 3000 + 1;
        let noise: Vec<u8> = (0..length).flat_map(|_| random::bytes::<1>().expect("random bytes")).collect();
        match round % 4 {
            0 => drop(connection.send(&noise, &[], None)),
            1 => drop(connection.send(&[0], &[], None)), // The beginning of a hello.
            2 => {}
            _ => drop(connection.send(&vec![7; 70_000], &[], None)),
        }
        if round % 3 != 0 {
            kept.push(connection);
        }
    }
    // Hellos that are understood and refused.
    let refused = |hello| {
        let connection = knock(&drawn);
        say(&connection, &Message::Hello(hello), &[]);
        match hear(&connection) {
            Some((Message::Refused { problem, .. }, _)) => problem,
            other => panic!("expected a refusal, found {other:?}"),
        }
    };
    let mut newer = hello(1, 2);
    newer.version = VERSION + 1;
    for (hello, part) in [
        (newer, "speaks version"),
        (hello(0, 2), "rank 0 is process"),
        (hello(2, 2), "rank 2 does not exist"),
        (hello(usize::MAX, 2), "does not exist"),
    ] {
        let problem = refused(hello);
        assert!(problem.contains(part), "{problem}");
    }
    let other = under(&drawn, 2, "20").without(0).start();
    for outcome in [&ranks.wait_all(PATIENCE)[0], &other.wait_all(PATIENCE)[1]] {
        outcome.assert_success();
        assert_eq!(outcome.reports("met"), ["2"], "{}", outcome.output);
    }
    drop(kept);
}

pub(crate) fn a_flood_at_the_door_does_not_delay_the_news_of_a_death() {
    let drawn = fresh_name("flood");
    let mut ranks: Ranks = under(&drawn, 2, "20").env("STAY", "1").start();
    (0..2).for_each(|rank| drop(ranks.wait_for_report(rank, "met", PATIENCE)));
    // Each says nothing and stays, so that rank 0's watcher hears it out.
    let silent: Vec<Connection> = (0..40).map(|_| knock(&drawn)).collect();
    std::thread::sleep(std::time::Duration::from_millis(50));
    let killed = unisono_os::clock::monotonic_nanoseconds();
    ranks.kill(1);
    let outcomes = ranks.wait_all(PATIENCE);
    all_ended_with(&outcomes, &[1], "PeerDied", &[1]);
    let after = std::time::Duration::from_nanos(ended(&outcomes[0]).at.saturating_sub(killed));
    assert!(after < PROMPT, "heard of after {after:?}");
    faults::note(&format!("killed while 40 strangers stand at the door: news after {after:.1?}"));
    drop(silent);
}
