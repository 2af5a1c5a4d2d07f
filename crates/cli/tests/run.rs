//! The promises of `unisono run`, kept on real processes.

mod common;

use std::time::{Duration, Instant};

use common::{Folder, is_alive, outcome, run, unisono, wait_for};
use unisono_os::process::{Signal, kill};

#[test]
fn every_line_carries_its_rank_and_goes_to_the_stream_it_was_written_to() {
    let script = "echo out $RANK of $WORLD_SIZE; echo err $LOCAL_RANK >&2; printf unfinished";
    let (code, out, err) = run(&["run", "-n", "3", "--", "sh", "-c", script]);
    assert_eq!(code, Some(0), "{err}");
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_string).collect();
        lines.sort();
        lines
    };
    assert_eq!(
        sorted(&out),
        [
            "[0] out 0 of 3",
            "[0] unfinished",
            "[1] out 1 of 3",
            "[1] unfinished",
            "[2] out 2 of 3",
            "[2] unfinished"
        ]
    );
    assert_eq!(sorted(&err), ["[0] err 0", "[1] err 1", "[2] err 2"]);
}

#[test]
fn lines_of_different_ranks_never_mix() {
    let script = "i=0; while [ $i -lt 200 ]; do echo begin-$RANK-$i-end; i=$((i+1)); done";
    let (code, out, _) = run(&["run", "-n", "4", "--", "sh", "-c", script]);
    assert_eq!((code, out.lines().count()), (Some(0), 800));
    for line in out.lines() {
        let rank = &line[1..2];
        assert!(
            line.starts_with(&format!("[{rank}] begin-{rank}-")) && line.ends_with("-end"),
            "mixed: {line:?}"
        );
    }
}

#[test]
fn output_without_prefix_is_left_as_it_is() {
    let (code, out, _) = run(&["run", "-n", "1", "--no-prefix", "--", "printf", "a\\nb"]);
    assert_eq!((code, out.as_str()), (Some(0), "a\nb"));
}

#[test]
fn all_ranks_of_a_run_share_an_id_and_a_port_and_the_next_run_has_others() {
    let script = "echo $MASTER_ADDR $MASTER_PORT $TORCHELASTIC_RUN_ID $UNISONO_GROUP";
    let meeting = || {
        let (_, out, _) = run(&["run", "-n", "2", "--group", "mine", "--", "sh", "-c", script]);
        let lines: Vec<String> = out.lines().map(|line| line[4..].to_string()).collect();
        assert_eq!(lines[0], lines[1]);
        assert!(lines[0].starts_with("127.0.0.1 ") && lines[0].ends_with(" mine"), "{lines:?}");
        lines[0].clone()
    };
    assert_ne!(meeting(), meeting());
}

#[test]
fn the_exit_code_is_that_of_the_rank_that_failed_first() {
    let (code, _, err) = run(&["run", "-n", "3", "--", "sh", "-c", "[ $RANK = 1 ] && exit 7; sleep 60"]);
    assert_eq!(code, Some(7), "{err}");
    assert!(err.contains("rank 1 (pid ") && err.contains("exited with code 7"), "{err}");
    assert!(err.contains("ending ranks 0 and 2"), "{err}");
}

#[test]
fn a_killed_rank_is_named_with_its_signal_although_a_survivor_ended_before_it_could_be_seen() {
    let script = "[ $RANK = 0 ] && exit 1; [ $RANK = 2 ] && { sleep 0.05; kill -KILL $$; }; sleep 60";
    let (code, _, err) = run(&["run", "-n", "3", "--", "sh", "-c", script]);
    assert_eq!(code, Some(137), "{err}");
    assert!(err.contains("rank 2 (pid ") && err.contains("was killed by SIGKILL"), "{err}");
}

#[test]
fn ranks_that_ignore_the_request_to_end_are_killed_after_the_grace_time() {
    let begin = Instant::now();
    let script = "[ $RANK = 0 ] && { sleep 0.2; exit 4; }; trap '' TERM; while :; do sleep 0.1; done";
    let (code, _, err) = run(&["run", "-n", "2", "--grace", "0.3", "--", "sh", "-c", script]);
    assert_eq!(code, Some(4), "{err}");
    assert!(err.contains("killed now: rank 1"), "{err}");
    assert!(begin.elapsed() < Duration::from_secs(10));
}

#[test]
fn signals_are_passed_on_to_every_rank() {
    let folder = Folder::new();
    let script = "trap 'echo got it; exit 0' USR1; echo $$ > $0/$RANK; while :; do sleep 0.05; done";
    let path = folder.path().to_str().unwrap();
    let process = unisono(&["run", "-n", "2", "--", "sh", "-c", script, path]).spawn().unwrap();
    folder.pids(&["0", "1"]);
    kill(process.id(), Signal::User1).unwrap();
    let (code, out, err) = outcome(&process.wait_with_output().unwrap());
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("[0] got it") && out.contains("[1] got it"), "{out}");
}

#[test]
fn an_interrupted_run_ends_as_shells_expect() {
    let folder = Folder::new();
    let path = folder.path().to_str().unwrap();
    let process =
        unisono(&["run", "-n", "2", "--", "sh", "-c", "echo $$ > $0/$RANK; exec sleep 60", path]).spawn();
    let process = process.unwrap();
    folder.pids(&["0", "1"]);
    kill(process.id(), Signal::Interrupt).unwrap();
    let (code, _, err) = outcome(&process.wait_with_output().unwrap());
    assert_eq!(code, Some(130), "{err}");
    assert!(err.contains("SIGINT"), "{err}");
}

#[test]
fn nothing_is_left_behind_when_the_run_itself_is_killed() {
    let folder = Folder::new();
    let script = "sleep 60 & echo $! > $0/child$RANK; echo $$ > $0/rank$RANK; wait";
    let path = folder.path().to_str().unwrap();
    let mut process = unisono(&["run", "-n", "2", "--", "sh", "-c", script, path]).spawn().unwrap();
    let pids = folder.pids(&["rank0", "rank1", "child0", "child1"]);
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    process.kill().unwrap();
    process.wait().unwrap();
    wait_for("the ranks and their children to end", || pids.iter().all(|pid| !is_alive(*pid)).then_some(()));
}

#[test]
fn what_a_rank_has_started_ends_with_the_run() {
    let folder = Folder::new();
    let script = "sleep 60 > /dev/null 2>&1 & echo $! > $0/child$RANK";
    let path = folder.path().to_str().unwrap();
    let (code, _, err) = run(&["run", "-n", "2", "--", "sh", "-c", script, path]);
    assert_eq!(code, Some(0), "{err}");
    for pid in folder.pids(&["child0", "child1"]) {
        wait_for("a rank's child to end", || (!is_alive(pid)).then_some(()));
    }
}

#[test]
fn a_program_that_is_not_there_is_told_with_the_shells_exit_code() {
    let (code, _, err) = run(&["run", "-n", "2", "--", "no-such-program"]);
    assert_eq!(code, Some(127));
    assert!(err.contains("no such program") && err.contains("no-such-program"), "{err}");
    let (code, _, err) = run(&["run", "-n", "2", "--", "/"]);
    assert_eq!(code, Some(126), "{err}");
}

#[test]
fn ranks_are_pinned_to_cores_that_this_process_may_use() {
    let (code, out, err) =
        run(&["run", "-n", "2", "--pin", "--", "grep", "Cpus_allowed_list", "/proc/self/status"]);
    assert_eq!(code, Some(0), "{err}");
    let allowed = unisono_os::cpu::allowed_cpus();
    let of_rank = |rank: usize| {
        let prefix = format!("[{rank}] ");
        let line = out.lines().find(|line| line.starts_with(&prefix)).unwrap();
        line.rsplit('\t').next().unwrap().to_string()
    };
    if allowed.len() == 2 {
        assert_eq!((of_rank(0), of_rank(1)), (allowed[0].to_string(), allowed[1].to_string()));
    } else if allowed.len() > 2 {
        assert_ne!(of_rank(0), of_rank(1));
    }
}

#[test]
fn a_killed_rank_is_named_with_its_last_operation() {
    // The ranks of a measurement stand for a user's program: they meet, and all-reduce until one is killed.
    let folder = Folder::new();
    let run_id = format!("last-operation-{}", std::process::id());
    let cpu = unisono_os::cpu::allowed_cpus()[0];
    for rank in 0..2 {
        let connect =
            format!(r#"{{"Connect":{{"rank":{rank},"ranks":2,"cpu":{cpu},"port":1,"run_id":"{run_id}"}}}}"#);
        std::fs::write(
            folder.path().join(format!("requests{rank}")),
            format!("{connect}\n\"LoopUntilDeath\"\n"),
        )
        .unwrap();
    }
    let script = "cd $0; echo $$ > $RANK; exec \"$1\" worker-of-bench < requests$RANK > answers$RANK";
    let program = env!("CARGO_BIN_EXE_unisono");
    let path = folder.path().to_str().unwrap();
    let process = unisono(&["run", "-n", "2", "--", "sh", "-c", script, path, program]).spawn().unwrap();
    let pids = folder.pids(&["0", "1"]);
    wait_for("the ranks to have met", || {
        let answered =
            |rank: usize| std::fs::read_to_string(folder.path().join(format!("answers{rank}"))).ok();
        (0..2).all(|rank| answered(rank).is_some_and(|text| text.starts_with("\"Done\"\n"))).then_some(())
    });
    std::thread::sleep(Duration::from_millis(50));
    kill(pids[1], Signal::Kill).unwrap();
    let (code, _, err) = outcome(&process.wait_with_output().unwrap());
    assert_eq!(code, Some(137), "{err}");
    let named = format!("rank 1 (pid {}) was killed by SIGKILL; its last operation: ", pids[1]);
    let line = err.lines().find(|line| line.contains(&named));
    assert!(line.is_some_and(|line| line.contains("all_reduce") || line.contains("all-reduce")), "{err}");
}
