//! `unisono run`: start a program as N ranks and look after them.
//!
//! The program finds torchrun's environment, so anything written for torchrun on one machine runs. The one
//! invariant that matters: when this command has ended, however it ended, no rank is left.

use std::ffi::OsString;
use std::io::{ErrorKind, IsTerminal};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use unisono::observe::Supervisor;
use unisono_os::cpu;
use unisono_os::process::{self, ChildSetup, Signal};

use crate::launch::environment::Environment;
use crate::launch::guard::Guard;
use crate::launch::lines::{self, Stream};
use crate::launch::supervise::{self, Supervision};
use crate::output;

/// How long output may still come after all ranks have ended: pipes stay open while a descendant that left its
/// rank's process group holds them.
const LAST_OUTPUT: Duration = Duration::from_secs(1);

/// Start a program as N ranks, and look after them.
///
/// Each rank finds the environment that torchrun gives (RANK, WORLD_SIZE, MASTER_PORT, ...). Signals are passed on to all ranks. When a rank fails, the others are ended (SIGTERM, and SIGKILL after the
/// grace time), and the exit code is that of the rank that failed first: its own, or 128 plus the signal's number.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many ranks to start.
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    ranks: u16,
    /// A name for the group, to keep several communicators apart (UNISONO_GROUP).
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// Leave the output as it is: no rank before each line, no pipes in between.
    #[arg(long)]
    no_prefix: bool,
    /// Give each rank cores of its own: an equal share of those this command may use.
    #[arg(long)]
    pin: bool,
    /// How many seconds ranks get to end after SIGTERM before they are killed.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    grace: Duration,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Seconds as a person writes them.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().map_err(|_| "expected seconds, such as 5 or 0.5".to_string())?;
    Duration::try_from_secs_f64(seconds).map_err(|_| "expected seconds, 0 or more".to_string())
}

/// Run the ranks to their end.
///
/// # Errors
/// When ranks cannot be started for a reason that is not the command's.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let ranks = usize::from(arguments.ranks);
    // Before the first thread, so that no thread takes a signal from the loop that waits for it.
    let signals = supervise::watch_signals()?;
    let guard = Guard::start()?;
    let observer = Supervisor::listen().context("cannot listen for the ranks' communicators")?;
    let mut environment = Environment::new(ranks)?;
    environment.group.clone_from(&arguments.group);
    environment.supervisor = Some(observer.name().to_string());
    let mut supervision = Supervision::new(signals, guard, Some(observer), arguments.grace);

    let mut outputs = Vec::new();
    let all_cpus = cpu::allowed_cpus();
    for rank in 0..ranks {
        if arguments.pin {
            // A child starts with the affinity of the thread that starts it.
            cpu::pin_current_thread(&share_of(&all_cpus, rank, ranks))
                .with_context(|| format!("cannot pin rank {rank}"))?;
        }
        let mut process = match command(arguments, &environment, rank).spawn() {
            Ok(process) => process,
            Err(error) => return refuse(arguments, &error),
        };
        outputs.extend(pass_on_output(rank, &mut process)?);
        supervision.add(process);
    }
    if arguments.pin {
        cpu::pin_current_thread(&all_cpus).context("cannot undo the pinning of this process")?;
    }

    let code = supervision.until_all_ended()?;
    await_output(outputs);
    Ok(ExitCode::from(code))
}

/// The command of one rank.
fn command(arguments: &Arguments, environment: &Environment, rank: usize) -> Command {
    let mut command = Command::new(&arguments.command[0]); // clap requires at least one word
    command.args(&arguments.command[1..]);
    environment.apply(rank, &mut command);
    // A group of its own that read from the terminal would be stopped by the kernel.
    let reads_input = rank == 0 && !std::io::stdin().is_terminal();
    command.stdin(if reads_input { Stdio::inherit() } else { Stdio::null() });
    if !arguments.no_prefix {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        // Python keeps output to a pipe back until a block is full, and loses it when it is killed.
        if std::env::var_os("PYTHONUNBUFFERED").is_none() {
            command.env("PYTHONUNBUFFERED", "1");
        }
    }
    let die_with_parent = Some(Signal::Kill);
    process::prepare_child(
        &mut command,
        ChildSetup { die_with_parent, new_process_group: true, ..Default::default() },
    );
    command
}

/// Say why the command cannot be started; the exit code is the one that shells give for it. Ranks that run already
/// are ended by the guard.
fn refuse(arguments: &Arguments, error: &std::io::Error) -> anyhow::Result<ExitCode> {
    let program = arguments.command.first().map(|word| word.to_string_lossy()).unwrap_or_default();
    match error.kind() {
        ErrorKind::NotFound => {
            output::complain(&format!("cannot start {program:?}: there is no such program (looked in PATH)"));
            Ok(ExitCode::from(127))
        }
        ErrorKind::PermissionDenied => {
            output::complain(&format!("cannot start {program:?}: it is not executable"));
            Ok(ExitCode::from(126))
        }
        _ => bail!("cannot start {program:?}: {error}"),
    }
}

/// The cores of one rank: an equal share of all, neighbours together; one in turn where there are too few.
fn share_of(cpus: &[usize], rank: usize, ranks: usize) -> Vec<usize> {
    if cpus.len() < ranks {
        return cpus.get(rank % cpus.len().max(1)).copied().into_iter().collect();
    }
    let begin = rank * cpus.len() / ranks;
    let end = (rank + 1) * cpus.len() / ranks;
    cpus[begin..end].to_vec()
}

fn pass_on_output(rank: usize, process: &mut Child) -> anyhow::Result<Vec<JoinHandle<()>>> {
    let mut threads = Vec::new();
    if let Some(pipe) = process.stdout.take() {
        threads.push(lines::pass_on(rank, pipe, Stream::Output).context("cannot start a thread")?);
    }
    if let Some(pipe) = process.stderr.take() {
        threads.push(lines::pass_on(rank, pipe, Stream::Error).context("cannot start a thread")?);
    }
    Ok(threads)
}

/// Wait until all output has been passed on, but not for ever.
fn await_output(threads: Vec<JoinHandle<()>>) {
    let deadline = Instant::now() + LAST_OUTPUT;
    for thread in threads {
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_shared_out_evenly_and_completely() {
        let cpus = [0, 1, 2, 3, 8, 9];
        assert_eq!(share_of(&cpus, 0, 2), [0, 1, 2]);
        assert_eq!(share_of(&cpus, 1, 2), [3, 8, 9]);
        assert_eq!((0..4).flat_map(|rank| share_of(&cpus, rank, 4)).collect::<Vec<_>>(), cpus);
        assert_eq!(share_of(&[4, 5], 2, 3), [4]);
    }

    #[test]
    fn seconds_are_read_as_people_write_them() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert!(seconds("-1").is_err() && seconds("soon").is_err() && seconds("inf").is_err());
    }
}
