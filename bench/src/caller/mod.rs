//! A rank of unisono's group: the counterpart of `bench/callers/caller.h`, loop for loop.
//!
//! The one invariant that matters: what is timed is the library's public interface in a release build, with its checks and
//! its deadline, as a user has it.

mod buffers;
mod data;
mod traffic;

use std::io::{BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use unisono::{Communicator, DType};
use unisono_measure::Operation;
use unisono_os::{cpu, process};

use crate::wire::{Loop, Request, Work, read_line};
use buffers::Buffers;

/// No operation of a measurement takes longer unless something is wrong.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Which memory the rank works on.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Memory that all ranks see.
    #[arg(long)]
    registered: bool,
}

/// A rank, connected to the others.
struct Rank {
    communicator: Communicator,
    registered: bool,
}

/// Be a rank until told to end.
///
/// # Errors
/// When the ranks do not meet, an operation fails, or the driver has gone.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    // As the driver has; without privileges nothing changes.
    let _ = process::raise_priority();
    let communicator = Communicator::from_env()?.with_timeout(Some(TIMEOUT));
    let number = communicator.rank();
    let cpus: Vec<usize> =
        setting("BENCH_CPUS")?.split(',').map(str::parse).collect::<Result<_, _>>().context("BENCH_CPUS")?;
    ensure!(!cpus.is_empty(), "BENCH_CPUS names no core");
    cpu::pin_current_thread(&[cpus[number % cpus.len()]])?;
    let stream = UnixStream::connect(setting("BENCH_SOCKET")?).context("the driver's socket")?;
    let mut answers = stream.try_clone().context("the driver's socket")?;
    writeln!(answers, "rank {number} {} {}", process::pid(), process::session())?;
    let mut requests = BufReader::new(stream);
    let rank = Rank { communicator, registered: arguments.registered };
    loop {
        match read_line(&mut requests)?.parse()? {
            Request::Quit => return Ok(()),
            Request::Check { work, repetitions, seed } => {
                let wrong = rank.check(&work, repetitions, seed)?;
                writeln!(answers, "wrong {wrong}")?;
            }
            Request::Time { work, around, warm_up, operations } => {
                let (samples, wrong) = rank.time(&work, around, warm_up, operations)?;
                let mut answer = format!("samples {operations} {wrong}\n").into_bytes();
                answer.extend(samples.iter().flat_map(|sample| sample.to_ne_bytes()));
                answers.write_all(&answer)?;
            }
        }
    }
}

fn setting(name: &str) -> anyhow::Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set: callers are started by the driver"))
}

impl Rank {
    fn buffers(&self, work: &Work) -> anyhow::Result<Buffers> {
        if self.registered {
            Buffers::registered(work, &self.communicator)
        } else {
            Ok(Buffers::private(work, self.communicator.world_size()))
        }
    }

    fn check(&self, work: &Work, repetitions: usize, seed: u64) -> anyhow::Result<u64> {
        let (rank, ranks) = (self.communicator.rank(), self.communicator.world_size());
        let mut buffers = self.buffers(work)?;
        let mut wrong = 0;
        for seed in (seed..).take(repetitions) {
            data::fill(work, buffers.input(), seed, rank);
            buffers.operate(&self.communicator, work)?;
            wrong += data::count_wrong(work, buffers.output(), seed, ranks);
        }
        Ok(wrong)
    }

    fn time(
        &self,
        work: &Work,
        around: Loop,
        warm_up: usize,
        operations: usize,
    ) -> anyhow::Result<(Vec<u32>, u64)> {
        let mut buffers = self.buffers(work)?;
        let mut timed = |operations| match around {
            Loop::Alone => self.time_alone(work, &mut buffers, operations),
            Loop::Traffic => self.time_with_traffic(work, &mut buffers, operations),
        };
        timed(warm_up)?;
        self.communicator.barrier()?;
        timed(operations)
    }

    fn time_alone(
        &self,
        work: &Work,
        buffers: &mut Buffers,
        operations: usize,
    ) -> anyhow::Result<(Vec<u32>, u64)> {
        let mut samples = Vec::with_capacity(operations);
        let mut before = Instant::now();
        for _ in 0..operations {
            buffers.operate(&self.communicator, work)?;
            let after = Instant::now();
            samples.push(nanoseconds(after.duration_since(before)));
            before = after;
        }
        Ok((samples, 0))
    }

    /// Write the input, call, read the output: what an engine does. Comes with how many results were wrong.
    fn time_with_traffic(
        &self,
        work: &Work,
        buffers: &mut Buffers,
        operations: usize,
    ) -> anyhow::Result<(Vec<u32>, u64)> {
        let is_bf16 = work.dtype == DType::BF16;
        let summed = if work.operation == Operation::AllReduce { self.communicator.world_size() } else { 1 };
        let mut samples = Vec::with_capacity(operations);
        let mut wrong = 0;
        let mut before = Instant::now();
        for number in 0..operations {
            traffic::produce(buffers.input(), number);
            buffers.operate(&self.communicator, work)?;
            let sum = traffic::consume(buffers.output());
            samples.push(nanoseconds(before.elapsed()));
            let bytes = buffers.output().len();
            wrong += u64::from(sum != traffic::expected_sum(bytes, number, is_bf16, summed));
            before = Instant::now();
        }
        Ok((samples, wrong))
    }
}

fn nanoseconds(time: Duration) -> u32 {
    u32::try_from(time.as_nanos()).unwrap_or(u32::MAX)
}
