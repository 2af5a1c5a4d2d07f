//! The socket file of a rank 0 that was killed while ranks gathered goes with the next occasion, and nothing else does.

use std::os::unix::net::UnixListener;
use std::time::Duration;

use unisono_os::socket::{Address, Listener};

use crate::faults::{PATIENCE, Scratch, all_ended_with, needs_root, soon};
use crate::harness::Ranks;
use crate::meeting::meeting_of;

/// Wait until rank 0 has made its socket file in this directory.
fn wait_for_socket_file(directory: &Scratch, others: usize) {
    soon("rank 0 makes a socket file", || directory.entries().len() > others);
}

fn kill_and_wait(ranks: Ranks, victims: &[usize]) {
    victims.iter().for_each(|rank| ranks.kill(*rank));
    let outcomes = ranks.wait_all(PATIENCE);
    assert!(victims.iter().all(|rank| outcomes[*rank].was_killed()));
}

/// Meet in a directory under a name of one's own, and leave only what is to stay there.
fn the_next_start_leaves(directory: &Scratch, mut staying: Vec<String>) {
    for outcome in meeting_of(2, "20").env("UNISONO_DIR", directory.path()).start().all_succeed(PATIENCE) {
        assert!(!outcome.reports("met").is_empty(), "{}", outcome.output);
    }
    let mut left = directory.entries();
    left.sort_unstable();
    staying.sort_unstable();
    assert_eq!(left, staying);
}

pub(crate) fn the_socket_file_of_a_killed_rank_0_is_swept_by_the_next_start_under_another_name() {
    for victims in [&[0][..], &[0, 1]] {
        let directory = Scratch::new("swept");
        let mut gathering = meeting_of(3, "20").env("UNISONO_DIR", directory.path()).without(2);
        if !victims.contains(&1) {
            gathering = gathering.without(1);
        }
        let ranks = gathering.start();
        wait_for_socket_file(&directory, 0);
        kill_and_wait(ranks, victims);
        assert_eq!(directory.entries().len(), 1, "what is to be swept is there");

        // Others' files of such a name: somebody listens, or they are no sockets.
        let name = |digit: &str| format!("unisono-{}.sock", digit.repeat(32));
        let place = |name: &str| std::path::Path::new(directory.path()).join(name);
        let _listener = Listener::bind(&Address::File(place(&name("1")))).expect("the name is free");
        std::fs::write(place(&name("2")), "precious").expect("a file");
        std::os::unix::fs::symlink(place("linked-to.sock"), place(&name("3"))).expect("a link");
        drop(UnixListener::bind(place("linked-to.sock")).expect("a socket of another name"));
        let staying = [name("1"), name("2"), name("3"), "linked-to.sock".to_string()];
        the_next_start_leaves(&directory, staying.to_vec());

        // A group that still gathers is not harmed by others that come and go.
        let mut gathering = meeting_of(2, "20")
            .env("UNISONO_DIR", directory.path())
            .env_for(1, "LATE_MS", "1500")
            .run_id(&crate::faults::fresh_name("gathering"))
            .start();
        wait_for_socket_file(&directory, staying.len());
        let with_its_file = directory.entries();
        the_next_start_leaves(&directory, with_its_file);
        gathering.wait_for_report(0, "met", PATIENCE);
        gathering.all_succeed(PATIENCE);
        the_next_start_leaves(&directory, staying.to_vec());
    }
}

pub(crate) fn the_socket_file_of_a_killed_rank_0_is_swept_by_the_ranks_that_outlive_it() {
    let directory = Scratch::new("outlived");
    let ranks = meeting_of(3, "2").env("UNISONO_DIR", directory.path()).without(2).start();
    wait_for_socket_file(&directory, 0);
    std::thread::sleep(Duration::from_millis(100)); // Rank 1 is seated, or comes to a dead rank 0: both end the same.
    ranks.kill(0);
    let outcomes = ranks.wait_all(PATIENCE);
    assert!(outcomes[0].was_killed());
    let ended = crate::faults::ended(&outcomes[1]);
    assert_eq!(ended.kind, "Rendezvous", "{}", ended.text);
    assert_eq!(directory.entries(), [""; 0], "rank 1 has swept: {}", ended.text);
    // A rank that never meets a rank 0 sweeps as well.
    drop(
        UnixListener::bind(format!("{}/unisono-{}.sock", directory.path(), "0".repeat(32)))
            .expect("a socket"),
    );
    let alone = meeting_of(2, "0.3").env("UNISONO_DIR", directory.path()).without(0).start();
    all_ended_with(&alone.wait_all(PATIENCE), &[0], "Rendezvous", &[0]);
    assert_eq!(directory.entries(), [""; 0]);
}

pub(crate) fn a_start_that_makes_no_socket_file_sweeps_too() {
    needs_root();
    let directory = Scratch::new("shm");
    // The ranks see this directory in the place of the one that all groups share.
    let script = format!("mount --bind {} /dev/shm && exec \"$0\"", directory.path());
    let elsewhere = ["unshare", "--mount", "sh", "-c", &script];
    let ranks = meeting_of(2, "20").all_wrapped(&elsewhere).without(1).start();
    wait_for_socket_file(&directory, 0);
    kill_and_wait(ranks, &[0]);
    assert_eq!(directory.entries().len(), 1, "what is to be swept is there");
    meeting_of(2, "20").all_wrapped(&elsewhere).start().all_succeed(PATIENCE);
    assert_eq!(directory.entries(), [""; 0]);
}
