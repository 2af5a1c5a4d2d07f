//! What is found out about queues and communicators: plain values, to be printed or written as JSON.
//!
//! Times are seconds until the answer was given. What another process said of itself is text and numbers here, never more.

use std::time::Duration;

use serde::{Serialize, Serializer};
use unisono_os::process::{self, ProcessState};

use crate::queue::Presence;

/// Everything of this user that could be found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Listing {
    /// The queues, by name.
    pub queues: Vec<QueueFacts>,
    /// The communicators, by name.
    pub communicators: Vec<CommunicatorFacts>,
    /// Who listens and does not answer.
    pub silent: Vec<Silent>,
}

impl Listing {
    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty() && self.communicators.is_empty() && self.silent.is_empty()
    }
}

/// What the system says a process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Process {
    /// It runs, or could.
    Running,
    /// It sleeps until something happens.
    Sleeping,
    /// It waits inside the kernel and hears no signal.
    Uninterruptible,
    /// It was stopped by a signal.
    Stopped,
    /// A debugger has stopped it.
    Traced,
    /// There is no such process any more.
    Ended,
    /// It is in a process namespace that cannot be seen from here.
    Unknown,
}

/// A process, seen from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ProcessFacts {
    /// Its number: in our namespace, or, if its state is [`Process::Unknown`], in its own.
    pub pid: u32,
    /// What it is doing.
    pub state: Process,
    /// Its command line, if it can be seen.
    pub command: Option<String>,
}

impl ProcessFacts {
    /// What can be seen of the process of this number; `is_visible` says whether the number is one of our namespace.
    pub(super) fn of(pid: u32, is_visible: bool) -> ProcessFacts {
        if !is_visible || pid == 0 {
            return ProcessFacts { pid, state: Process::Unknown, command: None };
        }
        let state = match process::state(pid) {
            Some(ProcessState::Running) => Process::Running,
            Some(ProcessState::Sleeping) => Process::Sleeping,
            Some(ProcessState::Uninterruptible) => Process::Uninterruptible,
            Some(ProcessState::Stopped) => Process::Stopped,
            Some(ProcessState::Traced) => Process::Traced,
            Some(ProcessState::Ended) | None => Process::Ended,
        };
        ProcessFacts { pid, state, command: process::command_line(pid) }
    }
}

/// A queue, as its writer sees it.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct QueueFacts {
    /// Its short name, as in its errors.
    pub name: String,
    /// The rank that the writer goes by.
    pub writer_rank: u64,
    /// The writer's process.
    pub writer: ProcessFacts,
    /// How many messages were sent.
    pub messages: u64,
    /// The ring's length.
    pub ring_bytes: u64,
    /// How much of it the slowest reader keeps occupied.
    pub used_bytes: u64,
    /// The readers, in the order of the handle.
    pub readers: Vec<ReaderFacts>,
}

/// A reader of a queue.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ReaderFacts {
    /// Its rank.
    pub rank: usize,
    /// Whether it is there, as the writer knows it.
    pub presence: Presence,
    /// Its process, once one has claimed the rank.
    pub process: Option<ProcessFacts>,
    /// The address from which it came, if it is elsewhere.
    pub address: Option<String>,
    /// Messages that it has not finished with.
    pub lag_messages: u64,
    /// Bytes of the ring that it keeps occupied.
    pub lag_bytes: u64,
    /// How long ago it began or ended its last wait, or came in.
    #[serde(rename = "last_step_s", serialize_with = "as_seconds")]
    pub last_step: Option<Duration>,
}

/// A communicator, as its ranks see it.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct CommunicatorFacts {
    /// The name of its group, as in its errors.
    pub name: String,
    /// How many ranks it has.
    pub world_size: usize,
    /// Whether it has ended: a rank died, a deadline passed, somebody aborted or left too early.
    pub stopped: bool,
    /// The ranks, in order.
    pub ranks: Vec<RankFacts>,
}

/// Whether a rank takes part, as the others know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RankState {
    /// It does.
    Alive,
    /// It said goodbye.
    Left,
    /// Its process died.
    Dead,
}

/// A rank of a communicator.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct RankFacts {
    /// Its rank.
    pub rank: usize,
    /// Whether it takes part.
    pub state: RankState,
    /// Whether it answered for itself; what is known of it comes from the others if not.
    pub answers: bool,
    /// Its process.
    pub process: ProcessFacts,
    /// The call that it is inside of, else the last one it made.
    pub last: Option<LastCall>,
    /// How long ago it began or ended its last long wait; for a rank that others wait for, how long ago they began to. Where
    /// nobody has waited for long since the last call began it is not known: calls that are on time do not look at a clock.
    #[serde(rename = "last_step_s", serialize_with = "as_seconds")]
    pub last_step: Option<Duration>,
}

/// A call of a communicator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LastCall {
    /// Its number, from 1.
    pub number: u64,
    /// The operation: `all_reduce`, `send`.
    pub operation: &'static str,
    /// The call as errors show it.
    pub call: String,
    /// Whether the rank came out of it again.
    pub finished: bool,
}

/// Somebody who listens as a queue or a rank would, and does not answer or could not be asked.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Silent {
    /// Where it listens.
    pub address: String,
    /// The process that made the socket.
    pub process: ProcessFacts,
    /// What it did instead.
    pub problem: String,
}

fn as_seconds<S: Serializer>(span: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    span.map(|span| span.as_secs_f64()).serialize(serializer)
}
