//! What can be wrong with a text, and what can stop a machine.

use std::fmt;

use crate::report::Who;

/// A text that is no PTX, or PTX that this crate does not know: nothing is ever passed over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct ParseError {
    /// The line in the text, from 1.
    pub line: u32,
    /// What is wrong there.
    pub problem: String,
}

/// Why a machine could not come to an end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// A thread did what it may not do.
    #[error("{who}, line {line}: {problem}")]
    Fault {
        /// The thread.
        who: Who,
        /// The line of its instruction.
        line: u32,
        /// What it did.
        problem: String,
    },
    /// A copy or a launch on a stream that cannot be done.
    #[error("device {device}: {problem}")]
    Refused {
        /// The stream's device.
        device: usize,
        /// What was asked and why it cannot be.
        problem: String,
    },
    /// Threads wait, and nothing can happen any more.
    #[error("{0}")]
    Hang(Hang),
}

/// Who waits, and for what, when nothing can happen any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hang {
    /// The threads that wait; of a block that waits at a barrier, one.
    pub waiting: Vec<Waiting>,
}

/// A thread that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The thread.
    pub who: Who,
    /// The line of its instruction.
    pub line: u32,
    /// What it waits for.
    pub for_what: Awaited,
}

/// What a thread waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Awaited {
    /// A word in memory that others should change.
    Word {
        /// Where, in the address space of the thread's device.
        address: u64,
        /// What it holds.
        value: u64,
    },
    /// The other threads of its block.
    Barrier {
        /// How many are there.
        arrived: usize,
        /// How many of the block have ended and will never come.
        ended: usize,
    },
    /// The other threads of its warp.
    Warp {
        /// How many are there.
        arrived: usize,
    },
}

impl fmt::Display for Hang {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "nothing can happen any more; waiting:")?;
        for waiting in &self.waiting {
            write!(out, "\n  {}, line {}, ", waiting.who, waiting.line)?;
            match &waiting.for_what {
                Awaited::Word { address, value } => {
                    write!(out, "for a change of the word at {address:#x}, which holds {value}")?;
                }
                Awaited::Warp { arrived } => {
                    write!(out, "at a shuffle with {arrived} threads of its warp")?;
                }
                Awaited::Barrier { arrived, ended } => {
                    write!(out, "at a barrier with {arrived} threads; {ended} have ended")?;
                }
            }
        }
        Ok(())
    }
}
