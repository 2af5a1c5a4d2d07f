//! The processes of a measurement: ranks, and the probe of the cores' distance.
//!
//! `unisono bench` starts itself several times with a hidden subcommand and tells each process over its standard
//! input what to do, one JSON object a line; each answers on its standard output. Between two requests a worker
//! sleeps, so that nothing disturbs the probe. The one invariant that matters: each request gets exactly one
//! answer, an error included, so the two sides never lose step.

pub(crate) mod check;
mod death;
mod operate;
pub(crate) mod pool;
pub(crate) mod protocol;
mod queue;
mod rank;
mod traffic;

use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use unisono_os::cpu;

use crate::output;
use protocol::{Answer, Request};
use rank::Rank;

/// The hidden subcommand that becomes a worker.
pub(crate) const SUBCOMMAND: &str = "worker-of-bench";

/// Be a worker: answer requests until there are no more.
///
/// # Errors
/// When the parent is gone or speaks another protocol.
pub(crate) fn serve() -> anyhow::Result<ExitCode> {
    let (mut rank, mut side) = (None, None);
    for line in std::io::stdin().lock().lines() {
        let request = serde_json::from_str(&line?).context("a request that is none")?;
        let answer = answer(request, &mut rank, &mut side)
            .unwrap_or_else(|error| Answer::Failed(output::chain(&error)));
        let mut standard_output = std::io::stdout().lock();
        serde_json::to_writer(&mut standard_output, &answer)?;
        standard_output.write_all(b"\n")?;
        standard_output.flush()?;
    }
    Ok(ExitCode::SUCCESS)
}

fn answer(
    request: Request,
    rank: &mut Option<Rank>,
    side: &mut Option<queue::Side>,
) -> anyhow::Result<Answer> {
    match request {
        Request::Probe { cpus: (one, other) } => Ok(Answer::Probed(probe(one, other))),
        Request::Connect(place) => {
            *rank = Some(Rank::connect(&place)?);
            Ok(Answer::Done)
        }
        Request::Time { subject, warm_up, operations } => {
            Ok(Answer::Timed(connected(rank)?.time(&subject, warm_up, operations)?))
        }
        Request::Check { subject, repetitions } => {
            Ok(Answer::Checked(connected(rank)?.check(&subject, repetitions)?))
        }
        Request::Prepare(burden) => {
            death::take_up(burden)?;
            Ok(Answer::Done)
        }
        Request::Queue(request) => queue::answer(request, side),
        Request::LoopUntilDeath => Ok(Answer::Learned(connected(rank)?.loop_until_death()?)),
    }
}

fn connected(rank: &mut Option<Rank>) -> anyhow::Result<&mut Rank> {
    rank.as_mut().context("this worker has not been told which rank it is")
}

/// The round trip between two cores. A core that may not be pinned to any more gives a time that says so.
fn probe(one: usize, other: usize) -> Duration {
    let pin = |cpu: usize| {
        move || {
            let _ = cpu::pin_current_thread(&[cpu]);
        }
    };
    unisono_measure::round_trip(pin(one), pin(other))
}
