//! The `unisono` program: start ranks, see what they do, measure the collectives, look at the machine.
//!
//! Each subcommand is a file in `commands/`. What they share lies beside it: `launch/` starts processes and
//! sees to it that none is left behind, `worker/` is what a rank of a measurement does in its own process. The
//! one invariant that matters: results go to standard output, everything else to standard error, and the
//! exit code tells a script what the text tells a person.

mod commands;
mod launch;
mod output;
mod worker;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Collectives between the ranks of one machine: start ranks, look on, measure, diagnose.
#[derive(Parser)]
#[command(name = "unisono", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(commands::run::Arguments),
    Bench(commands::bench::Arguments),
    Ps(commands::ps::Arguments),
    Doctor(commands::doctor::Arguments),
    /// A process of a measurement; started by `unisono bench`.
    #[command(hide = true, name = worker::SUBCOMMAND)]
    Worker,
    /// Ends the ranks if `unisono run` is killed; started by `unisono run`.
    #[command(hide = true, name = launch::guard::SUBCOMMAND)]
    Guard,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Run(arguments) => commands::run::run(&arguments),
        Command::Bench(arguments) => commands::bench::run(&arguments),
        Command::Ps(arguments) => commands::ps::run(&arguments),
        Command::Doctor(arguments) => commands::doctor::run(&arguments),
        Command::Worker => worker::serve(),
        Command::Guard => launch::guard::serve(),
    };
    result.unwrap_or_else(|error| {
        output::complain(&output::chain(&error));
        ExitCode::FAILURE
    })
}
