//! Tests on real processes: a test program starts itself again, once per rank.
//!
//! [`main`] runs the promises as tests or, in a process that was started as a rank, the scenario that the environment
//! names. A rank talks to its test by lines (`REPORT key value`) on its standard output, and may wait for a line on its
//! standard input. The one invariant that matters: no process outlives its test, and no pipe fills up.

#![allow(dead_code, reason = "each test program uses a part of it")]

mod ranks;

use std::io::Write;

pub(crate) use ranks::{Builder, Outcome, Ranks};

/// A function under its own name: a scenario of a rank, or a promise to be tested.
pub(crate) type Named = (&'static str, fn());

/// Names the scenario that a process is to run as a rank.
const SCENARIO: &str = "UNISONO_TEST_SCENARIO";

/// A list of functions under their own names: `named! { module::{one, two} other::{three} }`.
#[macro_export]
macro_rules! named {
    ($($module:ident :: { $($function:ident),* $(,)? })*) => {
        &[$($((stringify!($function), $module::$function as fn())),*),*]
    };
}

/// Be a rank if the environment says so, else run the promises as tests.
pub(crate) fn main(scenarios: &'static [Named], promises: &'static [Named]) {
    if let Ok(name) = std::env::var(SCENARIO) {
        let (_, scenario) = scenarios.iter().find(|(known, _)| *known == name).expect("a known scenario");
        scenario();
        return;
    }
    let arguments = libtest_mimic::Arguments::from_args();
    let trials = promises.iter().map(|(name, promise)| {
        libtest_mimic::Trial::test(*name, move || {
            promise();
            Ok(())
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

/// On a rank: tell the test something.
pub(crate) fn report(key: &str, value: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "REPORT {key} {value}").expect("the test listens");
    out.flush().expect("the test listens");
}

/// On a rank: wait until the test says go.
pub(crate) fn wait_for_go() {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("the test speaks");
}

/// On a rank: die here, by SIGKILL.
pub(crate) fn kill_myself() {
    unisono_os::process::kill(std::process::id(), unisono_os::process::Signal::Kill)
        .expect("may kill itself");
}

/// Whether the tests are to be short: under emulation, or under a sanitizer.
pub(crate) fn is_quick() -> bool {
    std::env::var_os("UNISONO_TEST_QUICK").is_some_and(|value| value == "1")
}
