//! unisono and its peers on the same work, side by side: what `cargo xtask bench` runs.
//!
//! One program in two roles. As the *driver* it starts a group of ranks of every implementation, lets one after the
//! other work while the rest sleep, and compares; as a *caller* it is one rank of unisono's group. The callers of the
//! other libraries are the C and C++ files in `bench/callers`. The one invariant that matters: whatever is compared was
//! measured in the same run, between the same two looks at the distance of the cores, by the same loop.
//!
//! | module | what it does |
//! |---|---|
//! | [`recipe`] | how an implementation's ranks are started, as `cargo xtask bench` has found it |
//! | [`wire`] | what the driver asks and what a caller answers |
//! | [`group`] | the ranks of one implementation |
//! | [`schedule`] | which group measures what, and when |
//! | [`stranger`] | who else wants the cores |
//! | [`cell`] | from rounds to one value; which rounds count |
//! | [`verdict`] | values against the targets of `targets.toml` |
//! | [`report`] | tables and JSON |
//! | [`picture`] | a chart |
//! | [`caller`] | a rank of unisono's group |
//! | [`queue`] | the same for queues from one writer to many readers |

mod caller;
mod cell;
mod driver;
mod group;
mod picture;
mod queue;
mod recipe;
mod report;
mod schedule;
mod stranger;
mod targets;
mod verdict;
mod wire;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Compare unisono with its peers; started by `cargo xtask bench`")]
struct Arguments {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Start all groups, measure, compare.
    Compare(Box<driver::Arguments>),
    /// Be a rank of unisono's group.
    #[command(hide = true)]
    Caller(caller::Arguments),
    /// Want a core and never yield.
    #[command(hide = true)]
    Stranger,
    /// Be a process of unisono's group for queues.
    #[command(hide = true)]
    QueueCaller,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().role {
        Role::Compare(arguments) => driver::run(&arguments),
        Role::QueueCaller => queue::caller::run().map(|()| ExitCode::SUCCESS),
        Role::Caller(arguments) => caller::run(&arguments).map(|()| ExitCode::SUCCESS),
        Role::Stranger => stranger::run().map(|never| match never {}),
    };
    outcome.unwrap_or_else(|problem| {
        eprintln!("error: {problem:#}");
        ExitCode::FAILURE
    })
}
