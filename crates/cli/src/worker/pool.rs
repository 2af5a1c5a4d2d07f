//! The parent's side: starting workers, asking them, and what to say when one fails.
//!
//! The one invariant that matters: workers never outlive this program. Each is killed by the kernel when the parent
//! dies and by [`Pool`]'s drop when it goes on.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use unisono_measure::Summary;
use unisono_os::process::{self, ChildSetup, Signal};
use unisono_os::{cpu, poll};

use super::protocol::{Answer, Place, Request};
use crate::launch::environment::Environment;
use crate::launch::verdict;

/// How long ranks get to answer once one has failed. Survivors learn of a death within 50 ms.
const AFTER_A_FAILURE: Duration = Duration::from_secs(1);

/// One worker process. Its name is used in messages.
pub(crate) struct Worker {
    name: String,
    process: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Worker {
    /// Start a worker. It leads a process group, so that what it starts can be ended with it, and stays in this
    /// session: ranks that share a core can yield it to one another only within one.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub(crate) fn start(name: String) -> anyhow::Result<Worker> {
        let program = std::env::current_exe().context("cannot tell where this program lies")?;
        let mut command = Command::new(program);
        command.arg(super::SUBCOMMAND).stdin(Stdio::piped()).stdout(Stdio::piped());
        let die_with_parent = Some(Signal::Kill);
        process::prepare_child(
            &mut command,
            ChildSetup { die_with_parent, new_process_group: true, ..Default::default() },
        );
        let mut process = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let pipes = process.stdin.take().zip(process.stdout.take());
        let (requests, answers) = pipes.context("a worker without pipes")?;
        Ok(Worker { name, process, requests, answers: BufReader::new(answers) })
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Ask without waiting for the answer.
    ///
    /// # Errors
    /// When the worker is gone, and how it ended.
    pub(crate) fn ask(&mut self, request: &Request) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.requests.write_all(&line).map_err(|_| self.end())
    }

    /// The answer to what was asked.
    ///
    /// # Errors
    /// When the worker failed, with its words, or is gone.
    pub(crate) fn answer(&mut self) -> anyhow::Result<Answer> {
        let mut line = String::new();
        match self.answers.read_line(&mut line) {
            Ok(1..) => {}
            _ => return Err(self.end()),
        }
        match serde_json::from_str(&line).with_context(|| format!("{} said {line:?}", self.name))? {
            Answer::Failed(why) => Err(anyhow!("{}: {why}", self.name)),
            answer => Ok(answer),
        }
    }

    /// How the worker, whose pipe has ended, did.
    fn end(&mut self) -> anyhow::Error {
        match self.process.wait() {
            Ok(status) => {
                anyhow!("{} (pid {}) {}", self.name, self.process.id(), verdict::predicate(status))
            }
            Err(error) => anyhow!("{} is gone: {error}", self.name),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // The group too: a worker may have left a forked child behind on purpose.
        let _ = process::kill_group(self.process.id(), Signal::Kill);
        let _ = self.process.wait();
    }
}

/// The ranks of a measurement, connected to one another, each on a core.
pub(crate) struct Pool {
    workers: Vec<Worker>,
    cpus: Vec<usize>,
}

impl Pool {
    /// Start `ranks` ranks and let them meet. Rank r stays on the r-th core this program may use, beginning again
    /// where there are fewer.
    ///
    /// # Errors
    /// When a process cannot be started, or the ranks do not meet: with the error of each.
    pub(crate) fn start(ranks: usize) -> anyhow::Result<Pool> {
        let environment = Environment::new(ranks)?;
        let mut pool = Pool::unconnected(ranks)?;
        let requests: Vec<Request> = (0..ranks)
            .map(|rank| {
                let (cpu, run_id) = (pool.cpus[rank], environment.run_id.clone());
                Request::Connect(Place { rank, ranks, cpu, port: environment.port, run_id })
            })
            .collect();
        pool.exchange(&requests)?;
        Ok(pool)
    }

    /// Start `ranks` processes that are nothing yet.
    ///
    /// # Errors
    /// When a process cannot be started.
    pub(crate) fn unconnected(ranks: usize) -> anyhow::Result<Pool> {
        let allowed = cpu::allowed_cpus();
        let cpus: Vec<usize> =
            (0..ranks).map(|rank| allowed.get(rank % allowed.len().max(1)).copied().unwrap_or(0)).collect();
        let workers =
            (0..ranks).map(|rank| Worker::start(format!("rank {rank}"))).collect::<Result<_, _>>()?;
        Ok(Pool { workers, cpus })
    }

    /// The core on which a rank is to be.
    pub(crate) fn cpu(&self, rank: usize) -> usize {
        self.cpus[rank]
    }

    /// Ask one rank and wait for its answer.
    ///
    /// # Errors
    /// When it failed: with its words.
    pub(crate) fn ask_one(&mut self, rank: usize, request: &Request) -> anyhow::Result<Answer> {
        self.workers[rank].ask(request)?;
        self.workers[rank].answer()
    }

    /// The worker of a rank.
    pub(crate) fn worker(&mut self, rank: usize) -> &mut Worker {
        &mut self.workers[rank]
    }

    /// Two cores on which ranks are; `None` if all share one.
    pub(crate) fn two_cores(&self) -> Option<(usize, usize)> {
        let first = *self.cpus.first()?;
        self.cpus.iter().copied().find(|cpu| *cpu != first).map(|other| (first, other))
    }

    /// Ask every rank the same and gather the answers, rank by rank.
    ///
    /// # Errors
    /// When a rank failed: with the words of each that did.
    pub(crate) fn ask_all(&mut self, request: &Request) -> anyhow::Result<Vec<Answer>> {
        self.exchange(&vec![request.clone(); self.workers.len()])
    }

    /// The percentiles of the slowest rank in a timed loop.
    ///
    /// # Errors
    /// As [`Pool::ask_all`].
    pub(crate) fn time(&mut self, request: &Request) -> anyhow::Result<Summary> {
        let answers = self.ask_all(request)?;
        let summaries: Vec<Summary> = answers
            .into_iter()
            .filter_map(|answer| if let Answer::Timed(summary) = answer { Some(summary) } else { None })
            .collect();
        Summary::slowest(&summaries).context("no rank has measured anything")
    }

    /// Ask each rank its request and gather the answers.
    fn exchange(&mut self, requests: &[Request]) -> anyhow::Result<Vec<Answer>> {
        let mut failures = Vec::new();
        for (worker, request) in self.workers.iter_mut().zip(requests) {
            failures.extend(worker.ask(request).err());
        }
        let answers = self.answers(&mut failures)?;
        if failures.is_empty() {
            return Ok(answers);
        }
        let mut words: Vec<String> = failures.iter().map(|failure| format!("{failure:#}")).collect();
        words.dedup();
        bail!("{}", words.join("\n         "))
    }

    /// One answer of each rank, in the order of ranks; what went wrong goes to `failures`. Once one has failed, the others
    /// get only as long as news of it needs: they may be waiting for it.
    fn answers(&mut self, failures: &mut Vec<anyhow::Error>) -> anyhow::Result<Vec<Answer>> {
        let mut answers: Vec<(usize, Answer)> = Vec::new();
        let mut pending: Vec<usize> = (0..self.workers.len()).collect();
        let mut deadline = None;
        while !pending.is_empty() {
            if !failures.is_empty() && deadline.is_none() {
                deadline = Some(Instant::now() + AFTER_A_FAILURE);
            }
            let pipes: Vec<BorrowedFd<'_>> =
                pending.iter().map(|rank| self.workers[*rank].answers.get_ref().as_fd()).collect();
            let ready: Vec<bool> = poll::until_readable(&pipes, deadline)
                .context("cannot wait for the ranks' answers")?
                .iter()
                .map(|readiness| readiness.any())
                .collect();
            if !ready.contains(&true) {
                break;
            }
            let (answering, waiting): (Vec<_>, Vec<_>) =
                pending.into_iter().zip(ready).partition(|(_, ready)| *ready);
            pending = waiting.into_iter().map(|(rank, _)| rank).collect();
            for (rank, _) in answering {
                match self.workers[rank].answer() {
                    Ok(answer) => answers.push((rank, answer)),
                    Err(failure) => failures.push(failure),
                }
            }
        }
        answers.sort_by_key(|(rank, _)| *rank);
        Ok(answers.into_iter().map(|(_, answer)| answer).collect())
    }
}

/// The process that measures the distance of the ranks' cores.
pub(crate) struct Probe {
    worker: Worker,
    cpus: (usize, usize),
}

impl Probe {
    /// A probe of the distance between two cores.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub(crate) fn start(cpus: (usize, usize)) -> anyhow::Result<Probe> {
        Ok(Probe { worker: Worker::start("the probe of the cores".to_string())?, cpus })
    }

    /// The round trip now.
    ///
    /// # Errors
    /// When the process is gone.
    pub(crate) fn round_trip(&mut self) -> anyhow::Result<Duration> {
        self.worker.ask(&Request::Probe { cpus: self.cpus })?;
        match self.worker.answer()? {
            Answer::Probed(round_trip) => Ok(round_trip),
            other => bail!("the probe of the cores answered {other:?}"),
        }
    }
}
