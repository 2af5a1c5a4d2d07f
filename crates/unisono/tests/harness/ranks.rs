//! The ranks of a test: started together, looked at one by one, ended together.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use unisono_os::process::{Signal, describe_exit};

use super::process::Process;
use super::{PROCESSOR, SCENARIO};

/// The words to put in front of a program to run it: an emulator.
const RUNNER: &str = "UNISONO_TEST_RUNNER";

/// How often ranks are looked at.
const LOOK: Duration = Duration::from_millis(1);

/// How ranks are to be started; made by [`Ranks::of`].
pub(crate) struct Builder {
    scenario: String,
    world: usize,
    variables: Vec<(Option<usize>, String, String)>,
    wrappers: Vec<(Option<usize>, Vec<String>)>,
    absent: Vec<usize>,
    pinned: bool,
    run_id: Option<String>,
}

impl Builder {
    /// Set a variable for all ranks.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.variables.push((None, name.to_string(), value.to_string()));
        self
    }

    /// Set a variable for one rank.
    pub(crate) fn env_for(mut self, rank: usize, name: &str, value: &str) -> Self {
        self.variables.push((Some(rank), name.to_string(), value.to_string()));
        self
    }

    /// Start one rank through another command, such as `setpriv --reuid 65534` or `unshare --net`: the rank's program
    /// follows these words. It must become the rank's process itself, by `exec`.
    pub(crate) fn wrapped(mut self, rank: usize, words: &[&str]) -> Self {
        self.wrappers.push((Some(rank), words.iter().map(ToString::to_string).collect()));
        self
    }

    /// Start all ranks through another command; see [`wrapped`](Self::wrapped).
    pub(crate) fn all_wrapped(mut self, words: &[&str]) -> Self {
        self.wrappers.push((None, words.iter().map(ToString::to_string).collect()));
        self
    }

    /// Do not start this rank: in its place a process ends at once, successfully.
    pub(crate) fn without(mut self, rank: usize) -> Self {
        self.absent.push(rank);
        self
    }

    /// Keep each rank to one processor, in turn.
    pub(crate) fn pinned(mut self) -> Self {
        self.pinned = true;
        self
    }

    /// Meet under this run id instead of one of the test's own.
    pub(crate) fn run_id(mut self, id: &str) -> Self {
        self.run_id = Some(id.to_string());
        self
    }

    /// Start the ranks.
    pub(crate) fn start(self) -> Ranks {
        static RUNS: AtomicU64 = AtomicU64::new(0);
        let drawn = || format!("test-{}-{}", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed));
        let run_id = self.run_id.clone().unwrap_or_else(drawn);
        let processes = (0..self.world).map(|rank| Process::start(self.command(rank, &run_id))).collect();
        Ranks { scenario: self.scenario, processes }
    }

    fn command(&self, rank: usize, run_id: &str) -> Command {
        if self.absent.contains(&rank) {
            return Command::new("true");
        }
        let mut command = self.program(rank);
        for name in ["RANK", "LOCAL_RANK"] {
            command.env(name, rank.to_string());
        }
        for name in ["WORLD_SIZE", "LOCAL_WORLD_SIZE"] {
            command.env(name, self.world.to_string());
        }
        command.env(SCENARIO, &self.scenario);
        command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", "29500");
        command.env("TORCHELASTIC_RUN_ID", run_id);
        if self.pinned {
            let allowed = unisono_os::cpu::allowed_cpus();
            command.env(PROCESSOR, allowed[rank % allowed.len()].to_string());
        }
        for (_, name, value) in
            self.variables.iter().filter(|(only, ..)| only.is_none_or(|only| only == rank))
        {
            command.env(name, value);
        }
        command
    }

    /// The words that start the program: wrapper, emulator, program.
    fn program(&self, rank: usize) -> Command {
        let wrapper = self.wrappers.iter().rev().find(|(only, _)| only.is_none_or(|only| only == rank));
        let runner = std::env::var(RUNNER).unwrap_or_default();
        let program = std::env::current_exe().expect("this program has a file");
        let mut words = wrapper.map(|(_, words)| words.clone()).unwrap_or_default();
        words.extend(runner.split_whitespace().map(str::to_string));
        let Some((first, others)) = words.split_first() else { return Command::new(program) };
        let mut command = Command::new(first);
        command.args(others).arg(program);
        command
    }
}

/// Running ranks. Dropped, all are killed.
pub(crate) struct Ranks {
    scenario: String,
    processes: Vec<Process>,
}

/// How a rank ended.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) rank: usize,
    pub(crate) status: ExitStatus,
    /// What it wrote to standard output and standard error, in order.
    pub(crate) output: String,
    /// From its start to its end.
    pub(crate) elapsed: Duration,
}

impl Ranks {
    /// Ranks of a scenario with what a launcher sets, to be given more before they start.
    pub(crate) fn of(scenario: &str, world: usize) -> Builder {
        Builder {
            scenario: scenario.to_string(),
            world,
            variables: Vec::new(),
            wrappers: Vec::new(),
            absent: Vec::new(),
            pinned: false,
            run_id: None,
        }
    }

    /// Start the ranks of a scenario with what a launcher sets.
    pub(crate) fn start(scenario: &str, world: usize) -> Self {
        Ranks::of(scenario, world).start()
    }

    pub(crate) fn pid(&self, rank: usize) -> u32 {
        self.processes[rank].pid()
    }

    /// As `kill -9`.
    pub(crate) fn kill(&self, rank: usize) {
        self.processes[rank].signal(Signal::Kill);
    }

    /// As `kill -STOP`.
    pub(crate) fn stop(&self, rank: usize) {
        self.processes[rank].signal(Signal::Stop);
    }

    /// As `kill -CONT`.
    pub(crate) fn resume(&self, rank: usize) {
        self.processes[rank].signal(Signal::Continue);
    }

    /// Let a rank go on that is in [`wait_for_go`](super::wait_for_go).
    pub(crate) fn go(&mut self, rank: usize) {
        self.go_with(rank, "go");
    }

    /// Let a rank go on that is in [`wait_for_words`](super::wait_for_words).
    pub(crate) fn go_with(&mut self, rank: usize, words: &str) {
        self.processes[rank].say(words);
    }

    /// What a rank has reported under `key` so far.
    pub(crate) fn reports(&self, rank: usize, key: &str) -> Vec<String> {
        reports_in(&self.processes[rank].output(), key)
    }

    /// Wait until a rank has reported something under `key`; gives the latest.
    pub(crate) fn wait_for_report(&mut self, rank: usize, key: &str, patience: Duration) -> String {
        self.wait_for_report_that(rank, &[key], patience, |_| true)
    }

    /// Wait until the latest that a rank has reported under one of `keys` is what is waited for; gives it. The test fails if it
    /// does not come in time, or can no more as the rank has ended.
    pub(crate) fn wait_for_report_that(
        &mut self,
        rank: usize,
        keys: &[&str],
        patience: Duration,
        is_awaited: impl Fn(&str) -> bool,
    ) -> String {
        let end = Instant::now() + patience;
        loop {
            let ended = self.processes[rank].ended().is_some();
            if ended {
                self.processes[rank].read_to_the_end();
            }
            let latest = keys.iter().filter_map(|key| self.reports(rank, key).pop());
            if let Some(value) = latest.into_iter().find(|value| is_awaited(value)) {
                return value;
            }
            if ended || Instant::now() >= end {
                let when = if ended { "before it ended".to_string() } else { format!("within {patience:?}") };
                self.fail(&format!("rank {rank} did not report what was awaited of {keys:?} {when}"));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Wait until all ranks but `except` have ended, and all they said is read; fails the test if they do not in time.
    pub(crate) fn wait_others(&mut self, except: &[usize], patience: Duration) {
        let end = Instant::now() + patience;
        let mut awaited: Vec<usize> =
            (0..self.processes.len()).filter(|rank| !except.contains(rank)).collect();
        loop {
            awaited.retain(|rank| self.processes[*rank].ended().is_none());
            if awaited.is_empty() {
                break;
            }
            if Instant::now() >= end {
                self.fail(&format!("ranks {awaited:?} have not ended after {patience:?}"));
            }
            std::thread::sleep(LOOK);
        }
        let ended = self.processes.iter().enumerate().filter(|(rank, _)| !except.contains(rank));
        ended.for_each(|(_, process)| process.read_to_the_end());
    }

    /// Wait until all have ended. If they do not in time all are killed and the test fails with what each said.
    pub(crate) fn wait_all(mut self, patience: Duration) -> Vec<Outcome> {
        self.wait_others(&[], patience);
        let outcome = |(rank, process): (usize, &mut Process)| {
            let (status, elapsed) = process.ended().expect("all have ended");
            Outcome { rank, status, output: process.output(), elapsed }
        };
        self.processes.iter_mut().enumerate().map(outcome).collect()
    }

    /// Wait until all have ended, and see that all succeeded.
    pub(crate) fn all_succeed(mut self, patience: Duration) -> Vec<Outcome> {
        let end = Instant::now() + patience;
        // The first failure leaves the others waiting for one that will not come: end at once.
        while self.processes.iter_mut().any(|process| process.ended().is_none()) {
            let failed = self
                .processes
                .iter_mut()
                .position(|process| process.ended().is_some_and(|(status, _)| !status.success()));
            if let Some(rank) = failed {
                std::thread::sleep(Duration::from_millis(200)); // What the others say of it is of interest.
                self.fail(&format!("rank {rank} failed"));
            }
            if Instant::now() >= end {
                break;
            }
            std::thread::sleep(LOOK);
        }
        let outcomes = self.wait_all(end.saturating_duration_since(Instant::now()));
        outcomes.iter().for_each(Outcome::assert_success);
        outcomes
    }

    /// Fail the test with what every rank said. (The ranks are killed as the panic drops them.)
    pub(crate) fn fail(&mut self, why: &str) -> ! {
        let mut text = format!("{}: {why}", self.scenario);
        for (rank, process) in self.processes.iter_mut().enumerate() {
            let state = process.ended().map_or("running".to_string(), |(status, _)| describe_exit(status));
            text += &format!("\n--- rank {rank} (pid {}): {state}\n{}", process.pid(), process.output());
        }
        panic!("{text}");
    }
}

impl Outcome {
    /// What it reported under `key`, in order.
    pub(crate) fn reports(&self, key: &str) -> Vec<String> {
        reports_in(&self.output, key)
    }

    /// Whether SIGKILL ended it.
    pub(crate) fn was_killed(&self) -> bool {
        self.status.signal() == Some(9)
    }

    /// Fail the test unless the rank's scenario came to its end.
    pub(crate) fn assert_success(&self) {
        let end = describe_exit(self.status);
        assert!(self.status.success(), "rank {} ended with {end}:\n{}", self.rank, self.output);
    }
}

fn reports_in(output: &str, key: &str) -> Vec<String> {
    let value = |line: &str| {
        let (found, value) = line.strip_prefix("REPORT ")?.split_once(' ')?;
        (found == key).then(|| value.to_string())
    };
    output.lines().filter_map(value).collect()
}
