//! Nothing is left behind by ranks that were killed, and whoever starts next meets as if they had never been.

use std::time::{Duration, Instant};

use unisono_os::{process, random};

use crate::faults::{self, PATIENCE, note};
use crate::harness::Ranks;
use crate::meeting::meeting_of;

/// What tells the shared memories of a process from all others: their files' numbers.
fn memories_of(pid: &str) -> Vec<String> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let memory = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(5)?.starts_with("/memfd:unisono").then(|| fields[4].to_string())
    };
    maps.lines().filter_map(memory).collect()
}

/// Processes that map one of these memories.
fn holders_of(memories: &[String]) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").expect("it is mounted").filter_map(Result::ok);
    let names = processes.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|pid| memories_of(pid).iter().any(|memory| memories.contains(memory))).collect()
}

fn shared_memory_files() -> Vec<String> {
    let entries = std::fs::read_dir("/dev/shm").expect("it is mounted").filter_map(Result::ok);
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

pub(crate) fn after_all_ranks_were_killed_nothing_is_left_and_the_next_start_works_at_once() {
    let before = shared_memory_files();
    for (world, held) in [(2, 0usize), (3, 0), (2, 1 << 30)] {
        let run = faults::fresh_name("killed");
        let mut ranks =
            Ranks::of("meet_and_stay", world).run_id(&run).env("HELD_BYTES", &held.to_string()).start();
        (0..world).for_each(|rank| drop(ranks.wait_for_report(rank, "met", PATIENCE)));
        let memories = memories_of(&ranks.pid(0).to_string());
        assert!(memories.len() >= world, "rank 0 maps the memory of all: {memories:?}");
        (0..world).for_each(|rank| ranks.kill(rank));
        let killed = Instant::now();
        // The killed are still dying, and the next are there already.
        meeting_of(world, "20").run_id(&run).start().all_succeed(PATIENCE).iter().for_each(|outcome| {
            assert!(!outcome.reports("met").is_empty(), "rank {}:\n{}", outcome.rank, outcome.output);
        });
        note(&format!(
            "killed {world} ranks of {held} bytes; the next have met and worked after {:.0?}",
            killed.elapsed()
        ));
        assert!(killed.elapsed() < Duration::from_secs(8), "{:?}", killed.elapsed());
        assert!(ranks.wait_all(PATIENCE).iter().all(|outcome| outcome.was_killed()));
        assert_eq!(holders_of(&memories), [""; 0], "somebody still maps the memory of the killed");
    }
    let left: Vec<String> = shared_memory_files()
        .into_iter()
        .filter(|name| name.starts_with("unisono-") && !before.contains(name))
        .collect();
    // Other tests on this machine may be meeting right now: their socket files exist for less than a second.
    faults::soon(&format!("{left:?} are gone"), || {
        left.iter().all(|name| !shared_memory_files().contains(name))
    });
}

pub(crate) fn a_name_that_a_forked_child_of_the_killed_still_holds_is_a_clear_error_until_it_ends() {
    let run = faults::fresh_name("orphan");
    let mut ranks = Ranks::of("meet_and_stay", 2).run_id(&run).env_for(0, "WITH_CHILD", "1").start();
    let child = ranks.wait_for_report(0, "child", PATIENCE).parse().expect("a process number");
    ranks.wait_for_report(1, "met", PATIENCE);
    let killed = ranks.pid(0);
    (0..2).for_each(|rank| ranks.kill(rank));
    assert!(ranks.wait_all(PATIENCE).iter().all(|outcome| outcome.was_killed()));
    for outcome in meeting_of(2, "1").run_id(&run).start().wait_all(PATIENCE) {
        let ended = faults::ended(&outcome);
        assert_eq!(ended.kind, "Rendezvous", "rank {}: {}", outcome.rank, ended.text);
        if outcome.rank == 0 {
            let text = ended.text;
            assert!(
                text.contains(&format!("process {killed} ")) && text.contains("a child that it forked"),
                "{text}"
            );
        }
    }
    process::kill(child, process::Signal::Kill).expect("it has outlived its parent");
    let next = meeting_of(2, "20").run_id(&run).start().all_succeed(PATIENCE);
    assert!(next.iter().all(|outcome| !outcome.reports("met").is_empty()));
}

pub(crate) fn a_start_whose_ranks_were_killed_at_random_moments_does_not_harm_the_next() {
    let run = faults::fresh_name("random");
    let drawn = |below: u64| u64::from_le_bytes(random::bytes().expect("random bytes")) % below;
    for round in 0..6 {
        let victim = if round % 2 == 0 { 0 } else { 1 + drawn(2) as usize };
        let mut ranks = meeting_of(3, "1").run_id(&run).start();
        std::thread::sleep(Duration::from_micros(drawn(40_000)));
        ranks.kill(victim);
        // The others end with an error or, if they had met and were done before, without; but they end.
        ranks.wait_others(&[], PATIENCE);
        for outcome in ranks.wait_all(PATIENCE).iter().filter(|outcome| outcome.rank != victim) {
            // A rank that had met and lost the victim in its proof says so by a panic with the error.
            let text = &outcome.output;
            let had_met =
                !outcome.reports("met").is_empty() || text.contains("PeerDied") || text.contains("PeerLeft");
            if !had_met {
                let ended = faults::ended(outcome);
                assert_eq!(ended.kind, "Rendezvous", "round {round}, rank {}: {}", outcome.rank, ended.text);
            }
        }
        for outcome in meeting_of(3, "20").run_id(&run).start().all_succeed(PATIENCE) {
            assert!(!outcome.reports("met").is_empty(), "round {round}:\n{}", outcome.output);
        }
    }
}
