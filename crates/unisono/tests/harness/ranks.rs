//! The test's side: starting ranks, listening to them, and seeing how they end.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use unisono_os::process::{ChildSetup, Signal, prepare_child};

/// Words to put in front of the program, where it cannot be started as it is (an emulator).
const RUNNER: &str = "UNISONO_TEST_RUNNER";

/// How often a test looks whether its ranks have come further.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Ranks that are about to be started.
pub(crate) struct Builder {
    scenario: String,
    world: usize,
    environment: Vec<(Option<usize>, String, String)>,
    wrappers: Vec<(usize, Vec<String>)>,
    absent: Vec<usize>,
}

impl Builder {
    /// Set a variable for all ranks.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((None, name.into(), value.into()));
        self
    }

    /// Set a variable for one rank.
    pub(crate) fn env_for(mut self, rank: usize, name: &str, value: &str) -> Self {
        self.environment.push((Some(rank), name.into(), value.into()));
        self
    }

    /// Start one rank through another program, such as `unshare -n`.
    pub(crate) fn wrapped(mut self, rank: usize, words: &[&str]) -> Self {
        self.wrappers.push((rank, words.iter().map(ToString::to_string).collect()));
        self
    }

    /// Never start one rank.
    pub(crate) fn without(mut self, rank: usize) -> Self {
        self.absent.push(rank);
        self
    }

    /// Start them, under a name that no other group has.
    pub(crate) fn start(self) -> Ranks {
        static GROUPS: AtomicUsize = AtomicUsize::new(0);
        let run = format!("{}-{}", std::process::id(), GROUPS.fetch_add(1, Ordering::Relaxed));
        Ranks { ranks: (0..self.world).map(|rank| self.start_rank(rank, &run)).collect() }
    }

    fn start_rank(&self, rank: usize, run: &str) -> Rank {
        let mut command = self.command(rank);
        command
            .env(super::SCENARIO, &self.scenario)
            .env("RANK", rank.to_string())
            .env("LOCAL_RANK", rank.to_string())
            .env("WORLD_SIZE", self.world.to_string())
            .env("LOCAL_WORLD_SIZE", self.world.to_string())
            .env("MASTER_ADDR", "127.0.0.1")
            .env("MASTER_PORT", "29500")
            .env("TORCHELASTIC_RUN_ID", run)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for (which, name, value) in &self.environment {
            if which.is_none_or(|which| which == rank) {
                command.env(name, value);
            }
        }
        prepare_child(
            &mut command,
            ChildSetup { die_with_parent: Some(Signal::Kill), ..ChildSetup::default() },
        );
        let mut child = command.spawn().expect("a rank can be started");
        let output = Arc::new(Mutex::new(String::new()));
        let stdout = collect(child.stdout.take().expect("is piped"), &output);
        let stderr = collect(child.stderr.take().expect("is piped"), &output);
        Rank { child, output, collectors: vec![stdout, stderr], started: Instant::now(), ended: None }
    }

    fn command(&self, rank: usize) -> Command {
        if self.absent.contains(&rank) {
            return Command::new("true");
        }
        let runner = std::env::var(RUNNER).unwrap_or_default();
        let wrapper = self.wrappers.iter().find(|(wrapped, _)| *wrapped == rank);
        let mut words: Vec<String> = wrapper.map(|(_, words)| words.clone()).unwrap_or_default();
        words.extend(runner.split_whitespace().map(ToString::to_string));
        words.push(std::env::current_exe().expect("this program has a path").to_string_lossy().into_owned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command
    }
}

fn collect(from: impl Read + Send + 'static, output: &Arc<Mutex<String>>) -> JoinHandle<()> {
    let output = Arc::clone(output);
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let mut output = output.lock().expect("no collector panics");
            output.push_str(&line);
            output.push('\n');
        }
    })
}

struct Rank {
    child: Child,
    output: Arc<Mutex<String>>,
    collectors: Vec<JoinHandle<()>>,
    started: Instant,
    ended: Option<(ExitStatus, Duration)>,
}

impl Rank {
    fn output(&self) -> String {
        self.output.lock().expect("no collector panics").clone()
    }
}

impl Drop for Rank {
    fn drop(&mut self) {
        // It may have ended already, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ranks that were started; dropping them kills them.
pub(crate) struct Ranks {
    ranks: Vec<Rank>,
}

/// How a rank ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) rank: usize,
    pub(crate) status: ExitStatus,
    /// What it wrote, to standard output and error.
    pub(crate) output: String,
    pub(crate) elapsed: Duration,
}

fn reports_in(output: &str, key: &str) -> Vec<String> {
    let prefix = format!("REPORT {key} ");
    output.lines().filter_map(|line| line.strip_prefix(&prefix)).map(str::to_string).collect()
}

impl Outcome {
    /// All that it reported under `key`.
    pub(crate) fn reports(&self, key: &str) -> Vec<String> {
        reports_in(&self.output, key)
    }

    pub(crate) fn was_killed(&self) -> bool {
        self.status.signal() == Some(Signal::Kill.raw())
    }

    pub(crate) fn assert_success(&self) {
        assert!(self.status.success(), "rank {}: {:?}\n{}", self.rank, self.status, self.output);
    }
}

impl Ranks {
    /// `world` ranks that run `scenario`.
    pub(crate) fn of(scenario: &str, world: usize) -> Builder {
        Builder { scenario: scenario.into(), world, environment: vec![], wrappers: vec![], absent: vec![] }
    }

    /// Run `scenario` on `world` ranks and see that all succeed.
    pub(crate) fn all_succeed(scenario: &str, world: usize, patience: Duration) -> Vec<Outcome> {
        let outcomes = Ranks::of(scenario, world).start().wait_all(patience);
        outcomes.iter().for_each(Outcome::assert_success);
        outcomes
    }

    pub(crate) fn pid(&self, rank: usize) -> u32 {
        self.ranks[rank].child.id()
    }

    pub(crate) fn kill(&mut self, rank: usize) {
        self.ranks[rank].child.kill().expect("a child may be killed");
    }

    /// Let a rank go on that waits in [`super::wait_for_go`].
    pub(crate) fn go(&mut self, rank: usize) {
        let stdin = self.ranks[rank].child.stdin.as_mut().expect("is piped");
        stdin.write_all(b"go\n").expect("the rank listens");
    }

    /// All that a rank has reported under `key` so far.
    pub(crate) fn reports(&self, rank: usize, key: &str) -> Vec<String> {
        reports_in(&self.ranks[rank].output(), key)
    }

    /// What a rank reports under `key`, once it does.
    pub(crate) fn wait_for_report(&mut self, rank: usize, key: &str, patience: Duration) -> String {
        let end = Instant::now() + patience;
        loop {
            if let Some(found) = self.reports(rank, key).pop() {
                return found;
            }
            if Instant::now() >= end {
                self.give_up(&format!("rank {rank} did not report {key:?} within {patience:?}"));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Wait until all but `except` have ended; if that takes longer than `patience`, kill all and fail with what they wrote.
    pub(crate) fn wait_others(&mut self, except: &[usize], patience: Duration) {
        let end = Instant::now() + patience;
        loop {
            for rank in &mut self.ranks {
                if rank.ended.is_none()
                    && let Some(status) = rank.child.try_wait().expect("a child can be waited for")
                {
                    rank.ended = Some((status, rank.started.elapsed()));
                }
            }
            let mut waited_for = self.ranks.iter().enumerate().filter(|(rank, _)| !except.contains(rank));
            if waited_for.all(|(_, rank)| rank.ended.is_some()) {
                return;
            }
            if Instant::now() >= end {
                self.give_up(&format!("not all ranks ended within {patience:?}"));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Wait until all have ended, as [`Ranks::wait_others`].
    pub(crate) fn wait_all(mut self, patience: Duration) -> Vec<Outcome> {
        self.wait_others(&[], patience);
        let outcome = |(rank, process): (usize, &mut Rank)| {
            for collector in process.collectors.drain(..) {
                collector.join().expect("no collector panics");
            }
            let (status, elapsed) = process.ended.expect("has been waited for");
            Outcome { rank, status, output: process.output(), elapsed }
        };
        self.ranks.iter_mut().enumerate().map(outcome).collect()
    }

    fn give_up(&mut self, why: &str) -> ! {
        let mut text = String::new();
        for (rank, process) in self.ranks.iter_mut().enumerate() {
            let _ = process.child.kill();
            text += &format!("rank {rank}: {:?}\n{}\n", process.ended, process.output());
        }
        panic!("{why}\n{text}");
    }
}
