//! `unisono ps`: which queues and communicators there are, and how each of their processes stands.
//!
//! The one invariant that matters: looking disturbs nobody and ends soon, also when somebody hangs; then the row says so.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use unisono::observe::{
    self, CommunicatorFacts, Listing, Process, ProcessFacts, QueueFacts, RankFacts, RankState, ReaderFacts,
    Silent,
};
use unisono::queue::Presence;
use unisono_measure::{size, table};

use crate::output;

/// How much of a command line a table shows.
const COMMAND_CHARACTERS: usize = 60;

/// List the queues and communicators of this user, and what each of their processes last did.
///
/// Those of this network namespace are found, and those whose socket files lie where UNISONO_DIR says. Nobody is disturbed, and a process
/// that hangs or is stopped is told so after half a second. The exit code is 0, also when there are none.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Print JSON lines, one for each queue, communicator, and process that does not answer.
    #[arg(long)]
    json: bool,
}

/// A line of JSON.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Line<'l> {
    Queue(&'l QueueFacts),
    Communicator(&'l CommunicatorFacts),
    Silent(&'l Silent),
}

/// Look and tell.
///
/// # Errors
/// When the system does not show its sockets, or standard output cannot be written.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let directory = std::env::var_os("UNISONO_DIR").map(PathBuf::from);
    let listing = observe::list(directory.as_deref()).context("looking for queues and communicators")?;
    if arguments.json {
        for line in lines(&listing) {
            output::result_line(&serde_json::to_string(&line)?)?;
        }
    } else if listing.is_empty() {
        let user = unisono_os::process::uid();
        let place = directory.map_or(String::new(), |directory| format!(", nor in {}", directory.display()));
        output::result_line(&format!(
            "no queues or communicators of user {user} in this network namespace{place}"
        ))?;
    } else {
        output::result_line(&text(&listing))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn lines(listing: &Listing) -> impl Iterator<Item = Line<'_>> {
    let queues = listing.queues.iter().map(Line::Queue);
    let communicators = listing.communicators.iter().map(Line::Communicator);
    queues.chain(communicators).chain(listing.silent.iter().map(Line::Silent))
}

fn text(listing: &Listing) -> String {
    let queues = listing.queues.iter().map(queue);
    let communicators = listing.communicators.iter().map(communicator);
    let silent = (!listing.silent.is_empty()).then(|| silent(&listing.silent));
    queues.chain(communicators).chain(silent).collect::<Vec<_>>().join("\n\n")
}

fn queue(queue: &QueueFacts) -> String {
    let (used, ring) = (size::about(queue.used_bytes), size::about(queue.ring_bytes));
    let messages = output::counted(usize::try_from(queue.messages).unwrap_or(usize::MAX), "message");
    let rows: Vec<Vec<String>> = queue.readers.iter().map(reader).collect();
    format!(
        "queue {}: {messages}, {used} of {ring} in use; writer: rank {}, {}\n{}",
        queue.name,
        queue.writer_rank,
        named(&queue.writer),
        table::render(&["reader", "pid", "state", "behind", "bytes", "last step", "command"], &rows)
    )
}

fn reader(reader: &ReaderFacts) -> Vec<String> {
    let state = match reader.presence {
        Presence::Awaited => "has not come".to_string(),
        Presence::Alive => match (&reader.address, &reader.process) {
            (Some(address), _) => format!("alive at {address}"),
            (None, Some(process)) => state(process.state),
            (None, None) => "alive".to_string(),
        },
        Presence::Left => "left".to_string(),
        Presence::Dead => "DEAD".to_string(),
        Presence::Broken => "broken".to_string(),
        Presence::Unreachable => "UNREACHABLE".to_string(),
        _ => "unknown".to_string(),
    };
    vec![
        reader.rank.to_string(),
        reader.process.as_ref().map_or("-".to_string(), |process| process.pid.to_string()),
        state,
        reader.lag_messages.to_string(),
        reader.lag_bytes.to_string(),
        ago(reader.last_step),
        command(reader.process.as_ref()),
    ]
}

fn communicator(communicator: &CommunicatorFacts) -> String {
    let stopped = if communicator.stopped { "; it has ENDED: every further call fails" } else { "" };
    let rows: Vec<Vec<String>> = communicator.ranks.iter().map(rank).collect();
    let ranks = output::counted(communicator.world_size, "rank");
    format!(
        "communicator of {ranks}: {}{stopped}\n{}",
        communicator.name,
        table::render(&["rank", "pid", "state", "last call", "last step", "command"], &rows)
    )
}

fn rank(rank: &RankFacts) -> Vec<String> {
    let state = match rank.state {
        RankState::Left => "left".to_string(),
        RankState::Dead => "DEAD".to_string(),
        _ if rank.answers || rank.process.state != Process::Sleeping => state(rank.process.state),
        _ => format!("{}, does not answer", state(rank.process.state)),
    };
    let last = rank.last.as_ref().map_or("none yet".to_string(), |last| {
        let inside = if last.finished { "finished" } else { "inside" };
        format!("{inside} #{} {}", last.number, last.call)
    });
    vec![
        rank.rank.to_string(),
        rank.process.pid.to_string(),
        state,
        last,
        ago(rank.last_step),
        command(Some(&rank.process)),
    ]
}

fn silent(silent: &[Silent]) -> String {
    let row = |silent: &Silent| {
        vec![
            silent.process.pid.to_string(),
            state(silent.process.state),
            silent.problem.clone(),
            silent.address.clone(),
            command(Some(&silent.process)),
        ]
    };
    let rows: Vec<Vec<String>> = silent.iter().map(row).collect();
    let headings = ["pid", "state", "what it does", "where it listens", "command"];
    format!("who does not tell\n{}", table::render(&headings, &rows))
}

fn named(process: &ProcessFacts) -> String {
    format!("pid {} ({}), {}", process.pid, state(process.state), command(Some(process)))
}

fn state(state: Process) -> String {
    match state {
        Process::Running => "runs",
        Process::Sleeping => "sleeps",
        Process::Uninterruptible => "waits in the kernel",
        Process::Stopped => "STOPPED by a signal",
        Process::Traced => "STOPPED by a debugger",
        Process::Ended => "ENDED",
        _ => "not to be seen",
    }
    .to_string()
}

fn ago(span: Option<Duration>) -> String {
    span.map_or("-".to_string(), |span| format!("{:.1} s ago", span.as_secs_f64()))
}

/// The beginning of a command line, without what would disturb a terminal.
fn command(process: Option<&ProcessFacts>) -> String {
    let Some(command) = process.and_then(|process| process.command.as_ref()) else { return "-".to_string() };
    let plain = |character: char| if character.is_control() { ' ' } else { character };
    let mut shown: String = command.chars().take(COMMAND_CHARACTERS).map(plain).collect();
    if command.chars().nth(COMMAND_CHARACTERS).is_some() {
        shown.push('…');
    }
    shown
}
