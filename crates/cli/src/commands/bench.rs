//! `unisono bench`: measure one collective over a range of sizes.
//!
//! Ranks are started once; for each size they are asked for a few rounds, between which the distance of their cores is
//! probed (see `unisono_measure`). The one invariant that matters: what is printed was measured while the cores
//! stayed where they were, or is marked.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{bail, ensure};
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use unisono::{DType, MAX_WORLD_SIZE, ReduceOp};
use unisono_measure::report::{self, Line};
use unisono_measure::rounds::{Round, Settled, operations_in, settle};
use unisono_measure::{Operation, size};
use unisono_os::{memory_limit, process};

use super::run::seconds;
use super::{death, queue};
use crate::output;
use crate::worker::pool::{Pool, Probe};
use crate::worker::protocol::{Answer, Request, Subject};

/// Rounds of one size that are wanted; each has its share of the time.
const ROUNDS: usize = 3;
/// Rounds that are run at most, when the cores move.
const ROUNDS_AT_MOST: usize = 9;
/// A first look at how long an operation takes.
const FIRST_LOOK: Duration = Duration::from_millis(10);
/// Fewer operations have no percentiles.
const FEWEST_OPERATIONS: usize = 10;
/// More operations tell nothing more, and fill memory.
const MOST_OPERATIONS: usize = 1_000_000;
/// Set in the environment of the program that leads the session.
const SESSION: &str = "UNISONO_BENCH_SESSION";
/// Checked calls of one size, each with other data.
const CHECKED: usize = 5;

/// Measure a collective, the message queue, or how fast a death is noticed.
///
/// Prints nccl-tests' columns on a terminal, and one JSON object per size elsewhere or with --json. The size is the larger of
/// a rank's two buffers, times are those of the slowest rank, algbw is size over the median, busbw is comparable
/// between operations and numbers of ranks. The last column is the time in which a cache line goes from one rank's core
/// to another and back; where the cores moved meanwhile the line says so.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    subcommand: Option<Other>,
    #[command(flatten)]
    collective: Option<Collective>,
}

#[derive(Subcommand)]
enum Other {
    Death(death::Arguments),
    Queue(queue::Arguments),
}

#[derive(clap::Args)]
struct Collective {
    /// all-reduce, all-gather, reduce-scatter, broadcast, reduce, gather, scatter, all-to-all, barrier or send-recv (every
    /// rank to the next).
    #[arg(value_name = "OP")]
    operation: Operation,
    /// How many ranks, 1 to 64.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 2)]
    ranks: usize,
    /// The element type: f32, f64, f16, bf16, i8 ... u64.
    #[arg(long, default_value = "f32")]
    dtype: DType,
    /// The reduce operation: sum, product, min, max, average, and, or, xor.
    #[arg(long = "op", value_name = "REDUCE_OP", default_value = "sum")]
    reduce_op: ReduceOp,
    /// The rank from which or to which, for rooted operations.
    #[arg(long, default_value_t = 0)]
    root: usize,
    /// The first size.
    #[arg(long, value_name = "BYTES", default_value = "64", value_parser = size::parse)]
    min_bytes: usize,
    /// The last size.
    #[arg(long, value_name = "BYTES", default_value = "64MiB", value_parser = size::parse)]
    max_bytes: usize,
    /// Each size is this many times the one before.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(2..))]
    factor: u16,
    /// How long to measure each size.
    #[arg(long, default_value = "1", value_parser = seconds)]
    seconds: Duration,
    /// Measure all-reduce and reduce with an output of their own.
    #[arg(long)]
    out_of_place: bool,
    /// Write all of the input before and read all of the output after each call, as a program does, and time that, too.
    #[arg(long)]
    traffic: bool,
    /// Work on registered memory, in place (all-reduce, reduce, reduce-scatter, all-gather, broadcast). Implies --traffic: without
    /// it each rank would keep its part of all buffers in its own cache, and nothing would cross between the cores.
    #[arg(long, conflicts_with = "out_of_place")]
    registered: bool,
    /// Compare every element of the results with what must come out.
    #[arg(long)]
    check: bool,
    /// Print JSON lines on a terminal, too.
    #[arg(long)]
    json: bool,
}

/// Measure.
///
/// # Errors
/// When arguments do not go together, memory does not suffice, or a rank fails (with its words).
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match (&arguments.subcommand, &arguments.collective) {
        (Some(Other::Death(arguments)), _) => in_a_session_of_its_own(|| death::run(arguments)),
        (Some(Other::Queue(arguments)), _) => in_a_session_of_its_own(|| queue::run(arguments)),
        (None, Some(collective)) => in_a_session_of_its_own(|| measure(collective)),
        // clap asks for one of the two before it comes to this.
        (None, None) => bail!("say which operation to measure: see unisono bench --help"),
    }
}

/// With the highest priority that the system lets us have.
fn in_a_session_of_its_own(measure: impl FnOnce() -> anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
    process::in_its_own_session(SESSION, || {
        // Best effort: without privileges the measurement runs all the same, with more noise.
        let _ = process::raise_priority();
        measure()
    })
}

fn measure(arguments: &Collective) -> anyhow::Result<ExitCode> {
    let subjects = subjects(arguments);
    check_arguments(arguments, &subjects)?;
    let mut pool = Pool::start(arguments.ranks)?;
    let mut probe = pool.two_cores().map(Probe::start).transpose()?;
    let as_json = arguments.json || !std::io::stdout().is_terminal();
    if !as_json {
        output::result_line(&heading(arguments))?;
    }
    let progress = progress(subjects.len());
    let mut all_right = true;
    for subject in &subjects {
        progress.set_message(size::display(subject.bytes as u64));
        let settled = cell(&mut pool, probe.as_mut(), subject, arguments.seconds)?;
        let wrong = if arguments.check { Some(count_wrong(&mut pool, subject)?) } else { None };
        all_right &= wrong.unwrap_or(0) == 0;
        let line = line(subject, arguments.ranks, &settled, wrong);
        progress.suspend(|| output::result_line(&if as_json { line.json()? } else { line.columns() }))?;
        progress.inc(1);
    }
    progress.finish_and_clear();
    if !all_right {
        output::complain("some results were wrong: see the column #wrong");
    }
    Ok(if all_right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is to be measured: one subject per size, and a single one for an operation without data.
fn subjects(arguments: &Collective) -> Vec<Subject> {
    let subject = |bytes| Subject {
        operation: arguments.operation,
        dtype: arguments.dtype,
        reduce_op: arguments.reduce_op,
        root: arguments.root,
        bytes,
        out_of_place: arguments.out_of_place,
        registered: arguments.registered,
        traffic: arguments.traffic || arguments.registered,
    };
    if arguments.operation == Operation::Barrier {
        return vec![subject(0)];
    }
    let factor = usize::from(arguments.factor);
    let sizes = std::iter::successors(Some(arguments.min_bytes.max(1)), |bytes| bytes.checked_mul(factor));
    sizes.take_while(|bytes| *bytes <= arguments.max_bytes).map(subject).collect()
}

fn check_arguments(arguments: &Collective, subjects: &[Subject]) -> anyhow::Result<()> {
    let Collective { operation, ranks, root, dtype, reduce_op, .. } = arguments;
    ensure!((1..=MAX_WORLD_SIZE).contains(ranks), "-n {ranks}: there may be 1 to {MAX_WORLD_SIZE} ranks");
    ensure!(root < ranks, "--root {root}: the ranks are 0 to {}", ranks - 1);
    ensure!(
        !operation.reduces() || reduce_op.supports(*dtype),
        "--op {} is for integers, but --dtype is {dtype}",
        reduce_op.name()
    );
    ensure!(*operation != Operation::SendRecv || *ranks >= 2, "send-recv needs two ranks at least: -n 2");
    ensure!(
        !arguments.registered || works_on_registered_memory(*operation),
        "--registered: {operation} does not work on registered memory"
    );
    let Some(largest) = subjects.last() else {
        bail!(
            "no size to measure: --min-bytes {} is more than --max-bytes {}",
            size::display(arguments.min_bytes as u64),
            size::display(arguments.max_bytes as u64)
        );
    };
    let shape = largest.shape(*ranks);
    let elements =
        if largest.is_in_place() { shape.input.max(shape.output) } else { shape.input + shape.output };
    let needed = (ranks * elements * dtype.size_bytes()) as u64;
    let headroom = memory_limit::headroom();
    ensure!(
        needed <= headroom.bytes,
        "the largest size needs {} for the buffers of {}, but only {} may still be had ({}): choose a smaller --max-bytes",
        size::about(needed),
        output::counted(*ranks, "rank"),
        size::about(headroom.bytes),
        headroom.limited_by
    );
    Ok(())
}

/// Measure one size, in as many rounds as it takes until the cores stayed in place in enough of them.
fn cell(
    pool: &mut Pool,
    mut probe: Option<&mut Probe>,
    subject: &Subject,
    time: Duration,
) -> anyhow::Result<Settled> {
    let share = time / ROUNDS as u32;
    let operations = operations(pool, subject, share)?;
    let request = Request::Time { subject: subject.clone(), warm_up: operations / 10 + 1, operations };
    let mut rounds: Vec<Round> = Vec::new();
    let mut before = round_trip(&mut probe)?;
    while rounds.len() < ROUNDS_AT_MOST && rounds.iter().filter(|round| round.stayed()).count() < ROUNDS {
        let summary = pool.time(&request)?;
        let after = round_trip(&mut probe)?;
        rounds.push(Round { summary, round_trip: before.zip(after) });
        before = after;
    }
    match settle(&rounds) {
        Some(settled) => Ok(settled),
        None => bail!("no round was measured"),
    }
}

/// How many operations of one round fill `time`: told from a first look at how long they take.
fn operations(pool: &mut Pool, subject: &Subject, time: Duration) -> anyhow::Result<usize> {
    let mut look = |warm_up, operations| {
        let request = Request::Time { subject: subject.clone(), warm_up, operations };
        pool.time(&request).map(|summary| Duration::from_nanos(summary.p50_ns))
    };
    let each = look(1, 3)?;
    let each = look(1, operations_in(FIRST_LOOK, each, 3, 10_000))?;
    Ok(operations_in(time, each, FEWEST_OPERATIONS, MOST_OPERATIONS))
}

fn round_trip(probe: &mut Option<&mut Probe>) -> anyhow::Result<Option<Duration>> {
    probe.as_mut().map(|probe| probe.round_trip()).transpose()
}

fn count_wrong(pool: &mut Pool, subject: &Subject) -> anyhow::Result<u64> {
    let answers = pool.ask_all(&Request::Check { subject: subject.clone(), repetitions: CHECKED })?;
    Ok(answers.iter().map(|answer| if let Answer::Checked(wrong) = answer { *wrong } else { 0 }).sum())
}

fn line(subject: &Subject, ranks: usize, settled: &Settled, wrong: Option<u64>) -> Line {
    let shape = subject.shape(ranks);
    let subject = report::Subject {
        implementation: implementation(subject).to_string(),
        operation: subject.operation,
        dtype: subject.dtype.name().to_string(),
        redop: subject.operation.reduces().then(|| subject.reduce_op.name().to_string()),
        ranks,
        bytes: shape.bytes,
        count: shape.count,
    };
    Line::new(subject, settled, wrong)
}

fn implementation(subject: &Subject) -> &'static str {
    match (subject.registered, subject.traffic) {
        (true, _) => "unisono registered, with traffic",
        (false, true) => "unisono, with traffic",
        (false, false) => "unisono",
    }
}

fn works_on_registered_memory(operation: Operation) -> bool {
    use Operation::{AllGather, AllReduce, Broadcast, Reduce, ReduceScatter};
    matches!(operation, AllReduce | Reduce | ReduceScatter | AllGather | Broadcast)
}

fn heading(arguments: &Collective) -> String {
    let Collective { operation, ranks, .. } = arguments;
    let place = match operation {
        _ if arguments.registered => ", in registered memory",
        Operation::AllReduce | Operation::Reduce if arguments.out_of_place => ", out of place",
        Operation::AllReduce | Operation::Reduce => ", in place",
        _ => "",
    };
    let ranks = output::counted(*ranks, "rank");
    let around =
        if arguments.traffic || arguments.registered { ", all written before and read after" } else { "" };
    format!("# {operation}, {ranks}{place}{around}; slowest rank, back to back\n{}", Line::headings())
}

/// A bar on standard error, if that is a terminal.
fn progress(sizes: usize) -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(sizes as u64), target);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} sizes, at {msg}, {elapsed}") {
        bar.set_style(style);
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn collective(words: &[&str]) -> Collective {
        let program = Program::try_parse_from([&["bench"], words].concat()).unwrap();
        program.arguments.collective.unwrap()
    }

    #[test]
    fn sizes_grow_by_the_factor_up_to_the_last() {
        let arguments = collective(&["all-reduce", "--min-bytes", "1KiB", "--max-bytes", "20KiB"]);
        let bytes: Vec<usize> = subjects(&arguments).iter().map(|subject| subject.bytes).collect();
        assert_eq!(bytes, [1024, 4096, 16384]);
        assert_eq!(subjects(&collective(&["barrier"])).len(), 1);
    }

    #[test]
    fn arguments_that_do_not_go_together_are_refused_in_words() {
        for (words, expected) in [
            (&["all-reduce", "--op", "xor"][..], "for integers"),
            (&["broadcast", "--root", "2"], "ranks are 0 to 1"),
            (&["all-reduce", "-n", "65"], "1 to 64"),
            (&["send-recv", "-n", "1"], "two ranks"),
            (&["gather", "--registered"], "does not work on registered"),
            (&["all-reduce", "--min-bytes", "2KiB", "--max-bytes", "1KiB"], "no size"),
            (&["all-reduce", "--max-bytes", "1TiB", "--factor", "1024"], "smaller --max-bytes"),
        ] {
            let arguments = collective(words);
            let error = check_arguments(&arguments, &subjects(&arguments)).unwrap_err().to_string();
            assert!(error.contains(expected), "{words:?}: {error}");
        }
    }

    #[test]
    fn death_is_a_subcommand_and_not_an_operation() {
        let program = Program::try_parse_from(["bench", "death", "--rounds", "3"]).unwrap();
        assert!(matches!(program.arguments.subcommand, Some(Other::Death(_))));
        let error = Program::try_parse_from(["bench", "allreduce"]).err().unwrap().to_string();
        assert!(error.contains("use one of all-reduce"), "{error}");
    }
}
