//! The host's side end to end, a process per rank: on simulated devices, and through the drivers for CUDA and HIP, which find a
//! library that stands in for the vendors' (`tests/fake`).
//!
//! What a rank does is in `scenarios.rs`; each is run on each of the three.

#![allow(
    clippy::unwrap_used,
    unsafe_code,
    reason = "a test that cannot go on is to end; vendors' functions are called"
)]

#[path = "../common/mod.rs"]
mod common;
mod engine;
mod hub;
#[cfg(feature = "remote")]
mod nodes;
mod rows;
mod scenarios;
mod switch;
mod words;

use std::path::PathBuf;

use unisono_gpu::Error;
use unisono_gpu::driver::any::{Device, Platform};

/// Not a test of its own: the process of a rank.
#[test]
fn a_rank() {
    if let Some(rank) = hub::Rank::of_this_process() {
        scenarios::of(&rank.scenario)(&rank);
    }
}

/// The library that stands in for the vendors', which `cargo test` builds with the tests.
fn fake() -> String {
    let tests = std::env::current_exe().unwrap();
    let built: PathBuf = tests.ancestors().nth(2).unwrap().join("examples/libfake_vendors.so");
    assert!(
        built.exists(),
        "build it first: cargo build -p unisono-gpu --features sim --example fake_vendors"
    );
    built.to_str().unwrap().to_owned()
}

fn variables(driver: &str) -> Vec<(&'static str, String)> {
    let mut all = vec![("UNISONO_GPU_DRIVER", driver.to_owned())];
    if driver != "sim" {
        let names = ["UNISONO_CUDA_LIBRARY", "UNISONO_NVML_LIBRARY", "UNISONO_HIP_LIBRARY"];
        all.extend(names.map(|name| (name, fake())));
    }
    all
}

/// Each scenario on each driver.
macro_rules! on_each_driver {
    ($($(#[$about:meta])* $scenario:ident: $world:expr;)*) => {
        mod sim { $(#[test] fn $scenario() { crate::hub::run(stringify!($scenario), $world, &crate::variables("sim")); })* }
        mod cuda { $(#[test] fn $scenario() { crate::hub::run(stringify!($scenario), $world, &crate::variables("cuda")); })* }
        mod hip { $(#[test] fn $scenario() { crate::hub::run(stringify!($scenario), $world, &crate::variables("hip")); })* }
    };
}

on_each_driver! {
    every_rank_gets_the_sum: 3;
    two_ranks_need_not_be_fully_connected: 2;
    a_graph_reads_its_inputs_wherever_they_are: 3;
    a_rank_that_never_comes_is_named_at_the_next_call: 2;
    what_does_not_fit_is_refused_and_nothing_is_lost: 2;
    memory_is_tried_out_and_the_topology_asked: 3;
    disposal_gives_everything_back: 2;
    amds_functions_take_handles: 2;
    what_is_dropped_is_given_back: 2;
}

#[cfg(feature = "remote")]
mod two_nodes {
    on_each_driver! {
        packets_go_between_two_nodes: 4;
        a_lost_node_is_told: 2;
        what_waits_for_the_other_node_ends_with_its_context: 2;
        a_forked_child_gives_nothing_back: 2;
    }
}

#[test]
fn a_row_has_the_same_bits_alone_and_in_any_batch() {
    for (driver, world) in [("sim", 5), ("hip", 2)] {
        hub::run("a_row_has_the_same_bits_alone_and_in_any_batch", world, &variables(driver));
    }
}

#[test]
fn a_switch_adds_what_all_have() {
    for driver in ["sim", "cuda"] {
        hub::run("a_switch_adds_what_all_have", 3, &variables(driver));
    }
}

#[test]
fn nobody_leaves_a_switch_while_it_binds() {
    let mut variables = variables("cuda");
    variables.push(("UNISONO_FAKE_SLOW_BIND", "1".to_owned()));
    hub::run("nobody_leaves_while_it_binds", 2, &variables);
}

#[test]
fn words_that_cannot_be_taken_back_stay() {
    for driver in ["cuda", "hip"] {
        hub::run("words_that_cannot_be_taken_back_stay", 1, &variables(driver));
    }
}

#[test]
fn where_there_is_no_switch_that_is_said() {
    hub::run("no_switch", 1, &variables("hip"));
    let mut without = variables("cuda");
    without.push(("UNISONO_FAKE_NO_SWITCH", "1".to_owned()));
    hub::run("no_switch", 1, &without);
}

#[test]
fn devices_on_a_bus_are_not_fully_connected() {
    for driver in ["sim", "cuda", "hip"] {
        let mut variables = variables(driver);
        variables.push(("UNISONO_SIM_LINK", "bus".to_owned()));
        hub::run("a_bus_is_no_direct_link", 2, &variables);
    }
}

#[test]
fn without_a_vendors_library_all_that_was_looked_for_is_named() {
    let nothing = |variable: &'static str| (variable, "/nowhere/lib.so".to_owned());
    let variables = [nothing("UNISONO_CUDA_LIBRARY"), nothing("UNISONO_HIP_LIBRARY")];
    hub::run("no_driver_is_an_error_that_names_all", 1, &variables);
}

#[test]
fn this_machine_has_what_it_says_it_has() {
    // Without libraries: all names are in the error. With them, and no device or one: the vendor's word, or a device.
    for platform in [Platform::Cuda, Platform::Hip] {
        let names: &[&str] = match platform {
            Platform::Cuda => &unisono_gpu::driver::cuda::LIBRARY_NAMES,
            _ => &unisono_gpu::driver::hip::LIBRARY_NAMES,
        };
        match Device::of(platform, 0) {
            Err(missing @ Error::NoLibrary { .. }) => {
                let text = missing.to_string();
                assert!(names.iter().all(|name| text.contains(name)), "{text}");
            }
            Err(Error::Driver { reason, .. }) => assert!(reason.contains('('), "{reason}"),
            Err(other) => panic!("{other}"),
            Ok(device) => assert_eq!(device.platform(), platform),
        }
    }
}
