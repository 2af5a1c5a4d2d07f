//! What the parent of a measurement asks its workers, and what they answer.
//!
//! Both sides are the same program, so the form is free to change; it is JSON, one object a line, so that a failing
//! measurement can be followed with `strace`. The one invariant that matters: nothing here is a default; the parent
//! decides everything, so that all ranks do the same.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use unisono::{DType, ReduceOp};
use unisono_measure::{Operation, Shape, Summary};

/// What a worker is asked to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Measure the round trip between two cores.
    Probe {
        /// The two.
        cpus: (usize, usize),
    },
    /// Become a rank.
    Connect(Place),
    /// Time an operation.
    Time {
        /// The operation.
        subject: Subject,
        /// Operations before the clock starts.
        warm_up: usize,
        /// Operations to time.
        operations: usize,
    },
    /// Check an operation's results.
    Check {
        /// The operation.
        subject: Subject,
        /// How often, with other data each time.
        repetitions: usize,
    },
    /// Make this worker one whose death is hard to notice.
    Prepare(Burden),
    /// Call all-reduce until it fails, and tell when it did.
    LoopUntilDeath,
    /// Be a side of a queue, or measure with it.
    Queue(QueueRequest),
}

/// What a side of a queue is asked to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum QueueRequest {
    /// Become the writer.
    Write { cpu: usize, readers: usize },
    /// Become a reader.
    Read { cpu: usize, handle: Vec<u8>, rank: usize },
    /// Wait until all are there; the writer with the handles of the readers' own queues.
    Meet { handles: Vec<Vec<u8>> },
    /// Send messages to and fro, one at a time.
    Echo { bytes: usize, warm_up: usize, messages: usize },
    /// Send messages in one direction.
    Stream { bytes: usize, messages: usize },
}

/// What a worker answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// Done.
    Done,
    /// The round trip.
    Probed(Duration),
    /// The percentiles of the timed operations.
    Timed(Summary),
    /// How many elements were wrong.
    Checked(u64),
    /// An operation failed because a rank died.
    Learned(Learned),
    /// A queue's handle.
    Handle(Vec<u8>),
    /// Messages a second.
    Rate(f64),
    /// It could not be done, and why.
    Failed(String),
}

/// Which rank a worker is to be, and where.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) rank: usize,
    pub(crate) ranks: usize,
    /// The core to stay on.
    pub(crate) cpu: usize,
    pub(crate) port: u16,
    pub(crate) run_id: String,
}

/// An operation in all detail.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Subject {
    #[serde(with = "as_text")]
    pub(crate) operation: Operation,
    #[serde(with = "as_text")]
    pub(crate) dtype: DType,
    #[serde(with = "as_text")]
    pub(crate) reduce_op: ReduceOp,
    pub(crate) root: usize,
    /// The size that is asked for; see [`Operation::shape`] for the one that is moved.
    pub(crate) bytes: usize,
    /// Where an operation may work in place, do not.
    pub(crate) out_of_place: bool,
    /// Work on registered memory, in place.
    pub(crate) registered: bool,
    /// Write all of the input before and read all of the output after each call, and time that, too.
    pub(crate) traffic: bool,
}

impl Subject {
    /// The buffers of a rank.
    pub(crate) fn shape(&self, ranks: usize) -> Shape {
        self.operation.shape(self.bytes, ranks, self.dtype.size_bytes())
    }

    /// Whether input and output are the same memory.
    pub(crate) fn is_in_place(&self) -> bool {
        self.registered
            || match self.operation {
                Operation::AllReduce | Operation::Reduce => !self.out_of_place,
                Operation::Broadcast | Operation::Barrier => true,
                _ => false,
            }
    }
}

/// What makes a death hard to notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Burden {
    /// Nothing.
    None,
    /// This many bytes of memory, which the kernel frees before the process can be waited for.
    Memory(usize),
    /// A forked child that lives on and keeps the sockets open.
    ForkedChild,
}

/// How a survivor learned of a death.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Learned {
    /// The monotonic clock, in nanoseconds, right after the failing call.
    pub(crate) at_ns: u64,
    /// The rank that the error names as dead; `None` if it says something else.
    pub(crate) dead_rank: Option<usize>,
    /// The error.
    pub(crate) error: String,
}

/// Values that are written and read as their names.
mod as_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_arrives_as_it_was_sent() {
        let subject = Subject {
            operation: Operation::AllToAll,
            dtype: DType::BF16,
            reduce_op: ReduceOp::Max,
            root: 1,
            bytes: 4096,
            out_of_place: false,
            registered: true,
            traffic: true,
        };
        let request = Request::Time { subject, warm_up: 3, operations: 9 };
        let line = serde_json::to_string(&request).unwrap();
        assert!(line.contains(r#""operation":"all-to-all","dtype":"bf16""#), "{line}");
        let back: Request = serde_json::from_str(&line).unwrap();
        assert_eq!(format!("{back:?}"), format!("{request:?}"));
    }
}
