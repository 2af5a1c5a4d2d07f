//! The promises of `unisono bench` and `unisono doctor`: what they print can be read by programs, and exit codes tell.

mod common;

use common::{is_alive, outcome, run, unisono, wait_for};
use serde_json::Value;
use unisono_os::process::{Signal, kill};

fn lines(out: &str) -> Vec<Value> {
    out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line:?}: {e}"))).collect()
}

#[test]
fn bench_prints_a_json_line_per_size_with_the_documented_keys() {
    let arguments = ["bench", "all-reduce", "--min-bytes", "64", "--max-bytes", "1KiB", "--factor", "16"];
    let (code, out, err) = run(&[&arguments[..], &["--seconds", "0.05", "--check"]].concat());
    assert_eq!(code, Some(0), "{err}");
    let lines = lines(&out);
    assert_eq!(lines.len(), 2);
    for (line, bytes) in lines.iter().zip([64, 1024]) {
        assert_eq!(line["impl"], "unisono");
        assert_eq!(line["op"], "all-reduce");
        assert_eq!(line["dtype"], "f32");
        assert_eq!(line["ranks"], 2);
        assert_eq!(line["bytes"], bytes);
        assert_eq!(line["wrong"], 0);
        let number = |key: &str| line[key].as_f64().unwrap_or_else(|| panic!("{key} in {line}"));
        assert!(number("p50_us") > 0.0 && number("p99_us") >= number("p50_us"), "{line}");
        assert!(number("algbw_gbps") >= 0.0 && number("busbw_gbps") >= 0.0, "{line}");
        if unisono_os::cpu::allowed_cpus().len() > 1 {
            assert!(number("round_trip_ns") > 0.0, "{line}");
        }
    }
}

#[test]
fn the_queue_is_measured_with_its_rate_to_one_and_to_three_readers() {
    for readers in ["1", "3"] {
        let sizes = ["--min-bytes", "64", "--max-bytes", "2MiB", "--factor", "32768", "--seconds", "0.05"];
        let (code, out, err) = run(&[&["bench", "queue", "-n", readers, "--json"], &sizes[..]].concat());
        assert_eq!(code, Some(0), "{err}");
        let lines = lines(&out);
        assert_eq!(lines.len(), 2, "{out}");
        for (line, bytes) in lines.iter().zip([64, 2 << 20]) {
            assert_eq!((&line["op"], &line["bytes"]), (&Value::from("queue"), &Value::from(bytes)));
            assert_eq!(line["wrong"], 0);
            let number = |key: &str| line[key].as_f64().unwrap_or_else(|| panic!("{key} in {line}"));
            assert!(number("p50_us") > 0.0 && number("msgs_per_s") > 0.0, "{line}");
        }
    }
    let (code, _, err) = run(&["bench", "queue", "-n", "65"]);
    assert!(code != Some(0) && err.contains("1 to 64 readers"), "{err}");
}

#[test]
fn every_operation_gives_right_results() {
    for operation in [
        "all-gather",
        "reduce-scatter",
        "broadcast",
        "reduce",
        "gather",
        "scatter",
        "all-to-all",
        "barrier",
        "send-recv",
    ] {
        let sizes = ["--min-bytes", "4KiB", "--max-bytes", "4KiB", "--seconds", "0.01"];
        let details = ["-n", "3", "--dtype", "bf16", "--op", "average", "--root", "1", "--check"];
        let (code, out, err) = run(&[&["bench", operation][..], &sizes, &details].concat());
        assert_eq!(code, Some(0), "{operation}: {err}");
        let lines = lines(&out);
        assert_eq!((lines.len(), &lines[0]["wrong"]), (1, &Value::from(0)), "{operation}: {out}");
    }
}

#[test]
fn registered_memory_gives_right_results() {
    for operation in ["all-reduce", "reduce", "reduce-scatter", "all-gather", "broadcast"] {
        let sizes = ["--min-bytes", "64", "--max-bytes", "256KiB", "--factor", "4096", "--seconds", "0.01"];
        let details = ["-n", "3", "--root", "1", "--check", "--registered"];
        let (code, out, err) = run(&[&["bench", operation][..], &sizes, &details].concat());
        assert_eq!(code, Some(0), "{operation}: {err}");
        for line in lines(&out) {
            assert_eq!(line["wrong"], 0, "{operation}: {out}");
            assert_eq!(line["impl"], "unisono registered, with traffic");
        }
    }
}

#[test]
fn without_a_check_nothing_is_said_of_wrong_results() {
    let sizes = ["--min-bytes", "64", "--max-bytes", "64", "--seconds", "0.01"];
    let (code, out, err) = run(&[&["bench", "all-reduce"][..], &sizes].concat());
    assert_eq!((code, &lines(&out)[0]["wrong"]), (Some(0), &Value::Null), "{err}");
}

#[test]
fn arguments_that_make_no_sense_are_refused_in_words() {
    for (arguments, code, words) in [
        (&["bench", "allreduce"][..], 2, "use one of all-reduce"),
        (&["bench", "all-reduce", "--dtype", "float"], 2, "f32"),
        (&["bench", "all-reduce", "--min-bytes", "many"], 2, "16KiB"),
        (&["bench", "all-reduce", "--op", "xor"], 1, "for integers"),
        (&["bench", "death", "-n", "1"], 1, "2 to 64"),
        (&["run", "-n", "0", "--", "true"], 2, "0"),
        (&["run", "-n", "2"], 2, "CMD"),
    ] {
        let (found, _, err) = run(arguments);
        assert_eq!(found, Some(code), "{arguments:?}: {err}");
        assert!(err.contains(words), "{arguments:?}: {err}");
    }
}

/// The children of a process.
fn children_of(parent: u32) -> Option<Vec<u32>> {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    Some(children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect())
}

/// The workers of a measurement, once there are `count`: children of the one process that leads its session.
fn workers_of(program: u32, count: usize) -> Vec<u32> {
    wait_for("the workers", || {
        let leader = *children_of(program)?.first()?;
        let workers = children_of(leader)?;
        let is_worker = |pid: &u32| {
            std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains("worker"))
        };
        (workers.len() >= count && workers.iter().all(is_worker)).then_some(workers)
    })
}

const LONG: [&str; 8] = ["bench", "all-reduce", "--min-bytes", "64", "--max-bytes", "64", "--seconds", "60"];

#[test]
fn a_rank_that_is_killed_ends_the_measurement_with_its_name() {
    let process = unisono(&LONG).spawn().unwrap();
    let workers = workers_of(process.id(), 2);
    kill(workers[1], Signal::Kill).unwrap();
    let (code, _, err) = outcome(&process.wait_with_output().unwrap());
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains(&format!("rank 1 (pid {}) was killed by SIGKILL", workers[1])), "{err}");
}

#[test]
fn no_worker_outlives_a_measurement_that_is_killed() {
    let mut process = unisono(&LONG).spawn().unwrap();
    let workers = workers_of(process.id(), 2);
    process.kill().unwrap();
    process.wait().unwrap();
    wait_for("the workers to end", || workers.iter().all(|pid| !is_alive(*pid)).then_some(()));
}

#[test]
fn every_death_is_noticed_and_named() {
    let (_, out, err) = run(&["bench", "death", "-n", "3", "--rounds", "2"]);
    let lines = lines(&out);
    assert!(lines.len() >= 2, "{err}");
    for line in lines {
        assert_eq!((&line["bench"], &line["misnamed"]), (&Value::from("death"), &Value::from(0)), "{err}");
        // Not the promise itself: other tests use the same cores at this moment.
        assert!(line["max_ms"].as_f64().is_some_and(|time| time < 2000.0), "{line}");
    }
}

#[test]
fn doctor_tells_programs_the_same_as_people() {
    let (code, out, err) = run(&["doctor", "--json"]);
    assert_eq!(code, Some(0), "{out} {err}");
    let report = &lines(&out)[0];
    assert_eq!(report["fine"], true);
    let allowed = unisono_os::cpu::allowed_cpus().len();
    assert_eq!(report["cores"]["allowed"].as_array().map(Vec::len), Some(allowed));
    assert_eq!(report["trial"]["passed"], true);
    for ranks in ["2", "4", "8"] {
        assert!(report["parameters"][ranks].is_object(), "{report}");
    }
    let (code, text, _) = run(&["doctor"]);
    assert_eq!(code, Some(0));
    for advice in report["advice"].as_array().unwrap() {
        let words = advice["text"].as_str().unwrap().split_whitespace().next().unwrap();
        assert!(text.contains(words), "{words} is not in {text}");
    }
    assert!(text.contains("fine: ranks work here"), "{text}");
}
