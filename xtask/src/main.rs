//! `cargo xtask <verb>`: the one door through which a developer and the continuous check go.
//!
//! Each verb is a file of its own; the parts of `test` are verbs too, so that what failed there can be run alone.
//! [`test`] runs parts, [`side_by_side`] where they can, and closes with a table and one line of totals, [`step`] runs one
//! command, [`setup`] makes ready what a fresh machine lacks, [`workspace`] knows the folders.

mod bench;
mod cross;
mod demo;
mod header;
mod kernels;
mod lint;
mod models;
mod python;
mod sanitize;
mod setup;
mod side_by_side;
mod step;
mod test;
mod unit;
mod wheels;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use test::{Options, Part};
use workspace::Workspace;

/// Everything a developer does with this repository.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Embed real sentences with a real model on one rank and on two, and compare; with --python the examples in Python.
    Demo(demo::Options),
    /// Compare with the other libraries on this machine: a table, and whether the targets are met.
    Bench(Box<bench::Options>),
    /// Run every part: lint, unit, kernels, models, sanitize, cross; with --python the Python package's, with --all both.
    Test(Options),
    /// Formatting, clippy, documentation, and the rules of ARCHITECTURE.md.
    Lint,
    /// Try every order of events in the protocol's models (loom).
    Models,
    /// Build the GPU kernels anew and compare them with what is shipped; assemble them for several generations.
    Kernels(kernels::Options),
    /// Run the protocol, and groups and queues between threads, under ThreadSanitizer.
    Sanitize,
    /// Run kernels, protocol, collectives and queue for 64-bit Arm in an emulator.
    Cross,
    /// Write the C header anew from the sources of unisono-capi.
    Header,
    /// Build the Python package's wheels for x86-64 and 64-bit Arm into target/wheels, check them and try them.
    Wheels(wheels::Options),
}

fn main() -> ExitCode {
    match perform(&Arguments::parse().verb) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("error: {problem:#}");
            ExitCode::FAILURE
        }
    }
}

/// Does what the verb says; returns whether everything in it is in order.
fn perform(verb: &Verb) -> Result<bool> {
    let workspace = Workspace::find()?;
    match verb {
        Verb::Demo(options) => demo::run(&workspace, options).map(|()| true),
        Verb::Bench(options) => bench::run(&workspace, options),
        Verb::Test(options) => Ok(test::run(&workspace, options)),
        Verb::Lint => Ok(test::run(&workspace, &Options::only(Part::Lint))),
        Verb::Models => Ok(test::run(&workspace, &Options::only(Part::Models))),
        Verb::Kernels(options) => {
            kernels::run(&workspace, options, &mut step::Count::default()).map(|()| true)
        }
        Verb::Sanitize => Ok(test::run(&workspace, &Options::only(Part::Sanitize))),
        Verb::Cross => Ok(test::run(&workspace, &Options::only(Part::Cross))),
        Verb::Header => header::run(&workspace).map(|()| true),
        Verb::Wheels(options) => wheels::run(&workspace, options).map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn peers_are_given_as_a_list() {
        let arguments = ["xtask", "bench", "--peers", "impi,openmpi", "--ranks", "2,4"];
        let Verb::Bench(options) = Arguments::try_parse_from(arguments).unwrap().verb else {
            panic!("the verb is bench");
        };
        assert_eq!(options.peers, [bench::peer::Peer::Impi, bench::peer::Peer::Openmpi]);
        assert!(Arguments::try_parse_from(["xtask", "bench", "--peers", "nobody"]).is_err());
    }

    #[test]
    fn parts_are_given_as_a_list() {
        let arguments = ["xtask", "test", "--only", "lint,models", "--allow-skip", "cross,sanitize"];
        let Verb::Test(options) = Arguments::try_parse_from(arguments).unwrap().verb else {
            panic!("the verb is test");
        };
        assert_eq!(options.only, [Part::Lint, Part::Models]);
        assert_eq!(options.allow_skip, [Part::Cross, Part::Sanitize]);
    }
}
