//! Looking after running ranks until all have ended.
//!
//! One loop on one thread: sleep until a signal comes, pass it on or reap whoever ended, and take the next step of
//! the run. A run goes through three phases:
//!
//! ```text
//! running ──a rank fails──► settling ──who failed first is known──► ending ──all are gone──► verdict
//! ```
//!
//! The one invariant that matters: once a rank has failed, every rank is gone within the settling time and the
//! grace time.

use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::Context;
use unisono::observe::Supervisor;
use unisono_os::poll;
use unisono_os::process::{self, Signal, SignalWatch};

use super::guard::Guard;
use super::verdict::{self, Failure};
use crate::output;

/// How long to look whether another rank was killed before blaming one that ended by itself. Survivors notice a
/// death within 50 ms, and output that is under way gets printed before our own words.
const SETTLING: Duration = Duration::from_millis(200);
/// The same while the kernel is still freeing the memory of a rank that may have been killed.
const SETTLING_AT_MOST: Duration = Duration::from_secs(10);
/// How long descendants of ranks that ended well get to end after SIGTERM.
const LINGERING: Duration = Duration::from_millis(500);

/// Signals that are passed on to the ranks.
const PASSED_ON: [Signal; 6] =
    [Signal::Interrupt, Signal::Terminate, Signal::Hangup, Signal::Quit, Signal::User1, Signal::User2];

/// Watch the signals that a run has to do with. To be called before any thread is started.
///
/// # Errors
/// When the process has no descriptor left.
pub(crate) fn watch_signals() -> anyhow::Result<SignalWatch> {
    let mut watched = PASSED_ON.to_vec();
    watched.push(Signal::Child);
    SignalWatch::new(&watched).context("cannot watch for signals")
}

/// A rank's process, the leader of a process group of its own.
struct RankProcess {
    process: Child,
    status: Option<ExitStatus>,
}

enum Phase {
    Running,
    Settling { since: Instant },
    Ending { since: Instant, killed: bool },
}

/// The ranks of a run, and what it takes to look after them.
pub(crate) struct Supervision {
    /// Rank r at index r.
    ranks: Vec<RankProcess>,
    signals: SignalWatch,
    guard: Guard,
    observer: Option<Supervisor>,
    grace: Duration,
    phase: Phase,
    /// Failures in the order in which they were seen, until we end ranks ourselves.
    failures: Vec<Failure>,
}

impl Supervision {
    /// Nobody to look after yet. `grace` is the time between SIGTERM and SIGKILL; `observer` knows the ranks' last
    /// operations.
    pub(crate) fn new(
        signals: SignalWatch,
        guard: Guard,
        observer: Option<Supervisor>,
        grace: Duration,
    ) -> Self {
        let (ranks, failures) = (Vec::new(), Vec::new());
        Supervision { ranks, signals, guard, observer, grace, phase: Phase::Running, failures }
    }

    /// Look after `process` as the next rank. It leads a process group.
    pub(crate) fn add(&mut self, process: Child) {
        self.guard.watch(process.id());
        self.ranks.push(RankProcess { process, status: None });
    }

    /// Wait until every rank has ended; if one fails, say which and how, and end the others. The result is the exit
    /// code of the run: 0, or that of the rank that failed first.
    ///
    /// # Errors
    /// When signals cannot be waited for.
    pub(crate) fn until_all_ended(mut self) -> anyhow::Result<u8> {
        while self.ranks.iter().any(|rank| rank.status.is_none()) {
            self.sleep()?;
            self.reap();
            self.step();
        }
        // Everybody may have ended while the run was still settling, or of itself.
        let code = match verdict::first_cause(&self.failures) {
            Some(failure) => {
                if !matches!(self.phase, Phase::Ending { .. }) {
                    self.announce(failure);
                }
                verdict::exit_code(failure.1)
            }
            None => 0,
        };
        self.end_descendants();
        Ok(code)
    }

    /// Sleep until a signal comes or the phase has something to do; pass signals on.
    fn sleep(&mut self) -> anyhow::Result<()> {
        let pause = match self.phase {
            // Nothing to do but for signals; the second is a net under a lost one.
            Phase::Running => Duration::from_secs(1),
            Phase::Settling { .. } | Phase::Ending { .. } => Duration::from_millis(10),
        };
        poll::until_readable(&[self.signals.descriptor()], Some(Instant::now() + pause))
            .context("cannot wait for signals")?;
        while let Some(signal) = self.signals.take() {
            if signal != Signal::Child {
                self.signal_all(signal);
            }
        }
        Ok(())
    }

    /// Note who has ended.
    fn reap(&mut self) {
        let ending = matches!(self.phase, Phase::Ending { .. });
        for (number, rank) in self.ranks.iter_mut().enumerate() {
            if rank.status.is_some() {
                continue;
            }
            if let Ok(Some(status)) = rank.process.try_wait() {
                rank.status = Some(status);
                if !status.success() && !ending {
                    self.failures.push((number, status));
                }
            }
        }
    }

    /// Take the next step of the run, if it is time for it.
    fn step(&mut self) {
        match self.phase {
            Phase::Running if !self.failures.is_empty() => {
                self.phase = Phase::Settling { since: Instant::now() };
            }
            Phase::Settling { since } if self.is_settled(since.elapsed()) => {
                if let Some(failure) = verdict::first_cause(&self.failures) {
                    self.announce(failure);
                }
                self.end_the_others();
            }
            Phase::Ending { since, killed: false } if since.elapsed() >= self.grace => {
                let (late, grace) = (output::ranks(&self.alive()), self.grace.as_secs_f64());
                output::complain(&format!("still there {grace} s after SIGTERM, so killed now: {late}"));
                self.signal_all(Signal::Kill);
                self.phase = Phase::Ending { since, killed: true };
            }
            _ => {}
        }
    }

    /// Whether it is known who failed first: a killed rank has been seen, or none is to be expected any more.
    fn is_settled(&self, elapsed: Duration) -> bool {
        let alive = self.ranks.iter().filter(|rank| rank.status.is_none());
        let mut dying = alive.filter(|rank| verdict::is_dying(rank.process.id()));
        let blamed_by_signal =
            verdict::first_cause(&self.failures).is_some_and(|(_, status)| status.code().is_none());
        elapsed >= SETTLING_AT_MOST || (elapsed >= SETTLING && (blamed_by_signal || dying.next().is_none()))
    }

    /// Say which rank failed, how, and what it did last.
    fn announce(&self, (rank, status): Failure) {
        let pid = self.ranks[rank].process.id();
        let last = self.observer.as_ref().and_then(|observer| observer.last_operation(rank));
        let last =
            last.map_or("it made no unisono call".to_string(), |last| format!("its last operation: {last}"));
        output::complain(&format!("rank {rank} (pid {pid}) {}; {last}", verdict::predicate(status)));
        if process::describe_exit(status) == "SIGKILL" {
            output::complain("if nobody sent that SIGKILL, memory ran out: the kernel's log (dmesg) says so");
        }
    }

    fn end_the_others(&mut self) {
        let alive = self.alive();
        if !alive.is_empty() {
            output::complain(&format!("ending {}", output::ranks(&alive)));
        }
        self.signal_all(Signal::Terminate);
        self.phase = Phase::Ending { since: Instant::now(), killed: false };
    }

    fn alive(&self) -> Vec<usize> {
        let alive = self.ranks.iter().enumerate().filter(|(_, rank)| rank.status.is_none());
        alive.map(|(number, _)| number).collect()
    }

    /// Send `signal` to the process groups of all ranks that have not ended.
    fn signal_all(&self, signal: Signal) {
        for rank in self.ranks.iter().filter(|rank| rank.status.is_none()) {
            // A group that ends at this moment needs no signal.
            let _ = process::kill_group(rank.process.id(), signal);
        }
    }

    /// End what the ranks have started and left behind in their groups.
    fn end_descendants(&mut self) {
        let since = Instant::now();
        let groups: Vec<u32> = self.ranks.iter().map(|rank| rank.process.id()).collect();
        let signal_groups = |signal| {
            let reached = groups.iter().filter(|group| process::kill_group(**group, signal).is_ok());
            reached.count() > 0
        };
        let mut some_left = signal_groups(Signal::Terminate);
        while some_left && since.elapsed() < LINGERING {
            std::thread::sleep(Duration::from_millis(10));
            some_left = signal_groups(Signal::Continue);
        }
        if some_left {
            signal_groups(Signal::Kill);
        }
        for group in groups {
            self.guard.forget(group);
        }
    }
}
