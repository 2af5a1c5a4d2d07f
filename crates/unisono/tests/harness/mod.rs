//! Tests on real processes: a test program starts itself again, once per rank.
//!
//! The program's `main` calls [`main`] with its scenarios and its promises. A promise is a test: it starts ranks with
//! [`Ranks`], each a process that runs one scenario, and looks at how they ended. A scenario is what a rank does; it
//! may tell its test something with [`report`] and wait for the test's word with [`wait_for_go`]. A scenario that
//! panics fails its rank.
//!
//! ```ignore
//! #[path = "harness/mod.rs"]
//! mod harness;
//!
//! fn meet() {
//!     let comm = unisono::Communicator::from_env().expect("the ranks meet");
//!     comm.barrier().expect("all have come");
//! }
//!
//! fn two_ranks_meet() {
//!     Ranks::start("meet", 2).all_succeed(Duration::from_secs(10));
//! }
//!
//! fn main() {
//!     harness::main(&[("meet", meet)], &[("two_ranks_meet", two_ranks_meet)]);
//! }
//! ```
//!
//! The invariant: **no process outlives its test**, however the test ends, and none waits because a pipe is full.

#![allow(dead_code, reason = "each test program uses a part of it")]

mod process;
mod ranks;

use std::io::Write;

#[allow(unused_imports, reason = "each test program uses a part of it")]
pub(crate) use ranks::{Builder, Outcome, Ranks};

/// A name and what is done under it: a rank's scenario or a test.
pub(crate) type Named = (&'static str, fn());

/// Names the scenario in the environment of a rank.
const SCENARIO: &str = "UNISONO_TEST_SCENARIO";

/// The processor that a rank shall keep to.
const PROCESSOR: &str = "UNISONO_TEST_PROCESSOR";

/// Run the promises as tests, or, in a process that was started as a rank, its scenario.
pub(crate) fn main(scenarios: &[Named], promises: &[Named]) {
    match std::env::var(SCENARIO) {
        Ok(name) => run_scenario(&name, scenarios),
        Err(_) => run_tests(promises),
    }
}

fn run_scenario(name: &str, scenarios: &[Named]) {
    if let Ok(processor) = std::env::var(PROCESSOR) {
        let processor = processor.parse().expect("a processor's number");
        unisono_os::cpu::pin_current_thread(&[processor]).expect("the processor is allowed");
    }
    let (_, scenario) =
        scenarios.iter().find(|(known, _)| *known == name).expect("the program has this scenario");
    scenario();
}

fn run_tests(promises: &[Named]) {
    let arguments = libtest_mimic::Arguments::from_args();
    let trial = |&(name, promise): &Named| {
        libtest_mimic::Trial::test(name, move || {
            promise();
            Ok(())
        })
    };
    libtest_mimic::run(&arguments, promises.iter().map(trial).collect()).exit();
}

/// On a rank: tell the test something. It is a line of the rank's output.
pub(crate) fn report(key: &str, value: &str) {
    let mut output = std::io::stdout().lock();
    writeln!(output, "REPORT {key} {value}").expect("the test reads the rank's output");
    output.flush().expect("the test reads the rank's output");
}

/// On a rank: wait until the test calls [`Ranks::go`] for it.
pub(crate) fn wait_for_go() {
    wait_for_words();
}

/// On a rank: wait until the test calls [`Ranks::go_with`] for it; gives its words.
pub(crate) fn wait_for_words() -> String {
    let mut line = String::new();
    let read = std::io::stdin().read_line(&mut line).expect("the test holds the other end");
    assert!(read > 0, "the test ended before it said go");
    line.trim_end().to_string()
}

/// On a rank: die as by `kill -9`.
pub(crate) fn kill_myself() -> ! {
    let killed = unisono_os::process::kill(std::process::id(), unisono_os::process::Signal::Kill);
    unreachable!("a process may kill itself: {killed:?}");
}

/// Whether the environment asks for small sizes: under an emulator, or for ThreadSanitizer.
pub(crate) fn quick() -> bool {
    std::env::var_os("UNISONO_TEST_QUICK").is_some_and(|value| value != "0")
}
