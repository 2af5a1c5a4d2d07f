//! The promises of `unisono ps`, kept on real processes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is to end")]

mod common;

use std::process::Child;

use common::{run, unisono, wait_for};
use serde_json::Value;
use unisono_os::process::{Signal, kill};

/// A measurement that goes on until it is dropped.
struct Running(Child);

impl Running {
    fn start(arguments: &[&str]) -> Running {
        Running(unisono(arguments).spawn().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = kill(self.0.id(), Signal::Terminate); // Its workers end with it.
        let _ = self.0.wait();
    }
}

fn seen() -> Vec<Value> {
    let (code, out, err) = run(&["ps", "--json"]);
    assert_eq!(code, Some(0), "{err}");
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What is seen of this kind, and of workers of the program under test.
fn of_workers(kind: &str, process: impl Fn(&Value) -> &Value) -> Option<Value> {
    let program = env!("CARGO_BIN_EXE_unisono");
    let is_ours = |line: &Value| {
        line["kind"] == kind
            && process(line)["command"].as_str().is_some_and(|line| line.starts_with(program))
    };
    seen().into_iter().find(is_ours)
}

#[test]
fn a_queue_and_a_communicator_at_work_are_listed_as_text_and_as_json() {
    let _queue = Running::start(&["bench", "queue", "-n", "1", "--seconds", "60", "--min-bytes", "1MiB"]);
    let _ranks =
        Running::start(&["bench", "all-reduce", "-n", "2", "--seconds", "60", "--min-bytes", "1MiB"]);
    let queue = wait_for("a queue at work", || {
        of_workers("queue", |line| &line["writer"]).filter(|queue| queue["messages"].as_u64() > Some(0))
    });
    assert_eq!(queue["readers"][0]["presence"], "alive", "{queue}");
    assert!(queue["readers"][0]["process"]["pid"].is_u64() && queue["ring_bytes"].is_u64(), "{queue}");
    let communicator = wait_for("a communicator at work", || {
        of_workers("communicator", |line| &line["ranks"][1]["process"])
            .filter(|seen| seen["ranks"][0]["last"]["operation"] == "all_reduce")
    });
    assert_eq!(
        (&communicator["world_size"], &communicator["stopped"]),
        (&Value::from(2), &Value::from(false))
    );
    assert!(communicator["ranks"][1]["process"]["pid"].is_u64(), "{communicator}");

    let name = queue["name"].as_str().unwrap();
    wait_for("both in words", || {
        let (code, out, err) = run(&["ps"]);
        assert_eq!(code, Some(0), "{err}");
        let expected =
            [&format!("queue {name}: "), "communicator of 2 ranks: group \"bench\"", "all_reduce(sum, "];
        expected.iter().all(|words| out.contains(*words)).then_some(())
    });
}

#[test]
fn where_there_is_nothing_it_says_so_and_succeeds() {
    // A network namespace of its own, in which nobody listens.
    let look = |arguments: &[&str]| {
        let mut command = std::process::Command::new("unshare");
        // Who is root already needs no namespace of users, which some systems forbid.
        let is_root =
            std::fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0);
        command.args((!is_root).then_some("--map-root-user"));
        command.args(["--net", env!("CARGO_BIN_EXE_unisono"), "ps"]).args(arguments);
        common::outcome(&command.env_remove("UNISONO_DIR").output().unwrap())
    };
    let (code, out, err) = look(&[]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(out, "no queues or communicators of user 0 in this network namespace\n");
    assert_eq!(look(&["--json"]), (Some(0), String::new(), String::new()));
}
