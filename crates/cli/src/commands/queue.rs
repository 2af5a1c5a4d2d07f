//! `unisono bench queue`: measure the queue from one writer to many readers over a range of sizes.
//!
//! For each size: the time of one message, one way, and how many messages a second go through. As for the collectives, the
//! distance of the cores is probed between rounds, and the one invariant that matters is the same: what is printed was
//! measured while the cores stayed where they were, or is marked.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{bail, ensure};
use unisono_measure::report::{Line, microseconds};
use unisono_measure::rounds::{Round, Settled, operations_in, settle};
use unisono_measure::samples::median;
use unisono_measure::{Summary, size};

use super::run::seconds;
use crate::output;
use crate::worker::pool::{Pool, Probe};
use crate::worker::protocol::{Answer, QueueRequest, Request};

/// As for the collectives.
const ROUNDS: usize = 3;
const ROUNDS_AT_MOST: usize = 9;
const FEWEST_MESSAGES: usize = 10;
const MOST_MESSAGES: usize = 1_000_000;
/// A first look at how long a message takes.
const FIRST_LOOK: Duration = Duration::from_millis(5);

/// Measure the message queue: one way latency and messages per second.
///
/// Latency is half of the time of a message to all readers and its echo from each; both copy the message in and out.
/// The rate is that of a stream in one direction, of which every message is looked at.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many readers, 1 to 64.
    #[arg(short = 'n', long, value_name = "READERS", default_value_t = 1)]
    readers: usize,
    /// The first size.
    #[arg(long, value_name = "BYTES", default_value = "64", value_parser = size::parse)]
    min_bytes: usize,
    /// The last size.
    #[arg(long, value_name = "BYTES", default_value = "16MiB", value_parser = size::parse)]
    max_bytes: usize,
    /// Each size is this many times the one before.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(2..))]
    factor: u16,
    /// How long to measure each size.
    #[arg(long, default_value = "1", value_parser = seconds)]
    seconds: Duration,
    /// Print JSON lines on a terminal, too.
    #[arg(long)]
    json: bool,
}

/// Measure.
///
/// # Errors
/// When arguments do not go together, or a side of the queue fails (with its words).
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { readers, min_bytes, max_bytes, factor, .. } = *arguments;
    ensure!((1..=64).contains(&readers), "-n {readers}: there may be 1 to 64 readers");
    let factor = usize::from(factor);
    let sizes = std::iter::successors(Some(min_bytes.max(1)), |bytes| bytes.checked_mul(factor));
    let sizes: Vec<usize> = sizes.take_while(|bytes| *bytes <= max_bytes).collect();
    ensure!(!sizes.is_empty(), "no size to measure: --min-bytes is more than --max-bytes");
    let mut bench = Bench::start(readers)?;
    let as_json = arguments.json || !std::io::stdout().is_terminal();
    if !as_json {
        let readers = output::counted(readers, "reader");
        output::result_line(&format!("# queue, {readers}; copied in and out\n{}", headings()))?;
    }
    let mut all_right = true;
    for bytes in sizes {
        let line = bench.cell(bytes, arguments.seconds)?;
        all_right &= line.wrong == Some(0);
        output::result_line(&if as_json { line.json()? } else { columns(&line) })?;
    }
    if !all_right {
        output::complain("some messages were wrong: see the column #wrong");
    }
    Ok(if all_right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The processes of a measurement, which have met.
struct Bench {
    pool: Pool,
    probe: Option<Probe>,
    readers: usize,
}

/// What one round measured.
struct Measured {
    latency: Round,
    messages_per_second: f64,
    wrong: u64,
}

impl Bench {
    fn start(readers: usize) -> anyhow::Result<Bench> {
        let mut pool = Pool::unconnected(readers + 1)?;
        let probe = pool.two_cores().map(Probe::start).transpose()?;
        let handle = pool.ask_one(0, &Request::Queue(QueueRequest::Write { cpu: pool.cpu(0), readers }))?;
        let Answer::Handle(handle) = handle else { bail!("the writer answered {handle:?}") };
        let mut handles = Vec::new();
        for reader in 1..=readers {
            let (cpu, handle) = (pool.cpu(reader), handle.clone());
            let request = QueueRequest::Read { cpu, handle, rank: reader - 1 };
            match pool.ask_one(reader, &Request::Queue(request))? {
                Answer::Handle(handle) => handles.push(handle),
                other => bail!("reader {} answered {other:?}", reader - 1),
            }
        }
        pool.ask_all(&Request::Queue(QueueRequest::Meet { handles }))?;
        Ok(Bench { pool, probe, readers })
    }

    /// Measure one size, in as many rounds as it takes until the cores stayed in place in enough of them.
    fn cell(&mut self, bytes: usize, time: Duration) -> anyhow::Result<Line> {
        // Half of a round's share goes to latency, half to the stream.
        let share = time / (2 * ROUNDS as u32);
        let messages = self.messages(bytes, share)?;
        let mut rounds: Vec<Measured> = Vec::new();
        let mut before = self.round_trip()?;
        let stayed = |rounds: &[Measured]| rounds.iter().filter(|round| round.latency.stayed()).count();
        while rounds.len() < ROUNDS_AT_MOST && stayed(&rounds) < ROUNDS {
            let summary = self.echo(bytes, messages / 10 + 1, messages)?;
            let (messages_per_second, wrong) = self.stream(bytes, self.stream_messages(&summary, share))?;
            let after = self.round_trip()?;
            let latency = Round { summary, round_trip: before.zip(after) };
            rounds.push(Measured { latency, messages_per_second, wrong });
            before = after;
        }
        let latencies: Vec<Round> = rounds.iter().map(|round| round.latency).collect();
        let Some(settled) = settle(&latencies) else { bail!("no round was measured") };
        // The rates of those rounds that count for the latency: they had the same distance.
        let counts = |round: &&Measured| settled.moved || round.latency.stayed();
        let rates: Vec<f64> = rounds.iter().filter(counts).map(|round| round.messages_per_second).collect();
        let wrong = rounds.iter().map(|round| round.wrong).sum();
        Ok(self.line(bytes, &settled, median(&rates), wrong))
    }

    /// How many messages of a round fill `time`.
    fn messages(&mut self, bytes: usize, time: Duration) -> anyhow::Result<usize> {
        let each = Duration::from_nanos(2 * self.echo(bytes, 1, 3)?.p50_ns);
        let each =
            Duration::from_nanos(2 * self.echo(bytes, 1, operations_in(FIRST_LOOK, each, 3, 10_000))?.p50_ns);
        Ok(operations_in(time, each, FEWEST_MESSAGES, MOST_MESSAGES))
    }

    /// A stream takes a fraction of the latency for each message; of a few messages it would tell the start.
    fn stream_messages(&self, latency: &Summary, time: Duration) -> usize {
        operations_in(time, Duration::from_nanos(latency.p50_ns / 4), FEWEST_MESSAGES * 10, MOST_MESSAGES)
    }

    fn echo(&mut self, bytes: usize, warm_up: usize, messages: usize) -> anyhow::Result<Summary> {
        let answers = self.pool.ask_all(&Request::Queue(QueueRequest::Echo { bytes, warm_up, messages }))?;
        match answers.first() {
            Some(Answer::Timed(summary)) => Ok(*summary),
            other => bail!("the writer answered {other:?}"),
        }
    }

    fn stream(&mut self, bytes: usize, messages: usize) -> anyhow::Result<(f64, u64)> {
        let answers = self.pool.ask_all(&Request::Queue(QueueRequest::Stream { bytes, messages }))?;
        let wrong =
            answers.iter().map(|answer| if let Answer::Checked(wrong) = answer { *wrong } else { 0 }).sum();
        match answers.first() {
            Some(Answer::Rate(rate)) => Ok((*rate, wrong)),
            other => bail!("the writer answered {other:?}"),
        }
    }

    fn round_trip(&mut self) -> anyhow::Result<Option<Duration>> {
        self.probe.as_mut().map(Probe::round_trip).transpose()
    }

    fn line(&self, bytes: usize, settled: &Settled, messages_per_second: Option<f64>, wrong: u64) -> Line {
        let p50_ns = settled.summary.p50_ns.max(1);
        let algbw_gbps = (bytes as f64 / p50_ns as f64 * 1000.0).round() / 1000.0;
        Line {
            implementation: "unisono".to_string(),
            op: "queue".to_string(),
            dtype: "u8".to_string(),
            ranks: self.readers + 1,
            bytes,
            round_trip_ns: settled.round_trip.map(|time| time.as_nanos() as u64),
            p50_us: p50_ns as f64 / 1000.0,
            p99_us: settled.summary.p99_ns as f64 / 1000.0,
            algbw_gbps,
            busbw_gbps: algbw_gbps,
            wrong: Some(wrong),
            count: bytes,
            redop: None,
            samples: settled.summary.samples,
            rounds: settled.rounds,
            moved: settled.moved,
            msgs_per_s: messages_per_second.map(f64::round),
        }
    }
}

fn headings() -> String {
    format!(
        "#{:>11} {:>10} {:>10} {:>14} {:>9} {:>7} {:>6}\n#{:>11} {:>10} {:>10} {:>14} {:>9} {:>7} {:>6}",
        "size",
        "p50",
        "p99",
        "messages",
        "stream",
        "#wrong",
        "cores",
        "(B)",
        "(us)",
        "(us)",
        "(1/s)",
        "(GB/s)",
        "",
        "(ns)"
    )
}

fn columns(line: &Line) -> String {
    let messages_per_second = line.msgs_per_s.unwrap_or(0.0);
    format!(
        " {:>11} {:>10} {:>10} {:>14.0} {:>9.2} {:>7} {:>6}{}",
        line.bytes,
        microseconds(line.p50_us),
        microseconds(line.p99_us),
        messages_per_second,
        messages_per_second * line.bytes as f64 / 1e9,
        line.wrong.unwrap_or(0),
        line.round_trip_ns.map_or("-".to_string(), |time| time.to_string()),
        if line.moved { "  cores moved" } else { "" }
    )
}
