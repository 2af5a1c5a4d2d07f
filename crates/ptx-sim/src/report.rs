//! What a machine has to tell: who a thread is, which accesses raced.

use std::fmt;

/// A thread of a launch, or the host's own hand on a stream (block 0, thread 0 of a copy).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Who {
    /// The device, which is the rank.
    pub device: usize,
    /// Which work of the device's stream, from 0.
    pub work: u32,
    /// The block of a launch.
    pub block: u32,
    /// The thread of the block.
    pub thread: u32,
}

impl fmt::Display for Who {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "device {} work {} block {} thread {}", self.device, self.work, self.block, self.thread)
    }
}

/// One of two accesses that raced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Who accessed.
    pub who: Who,
    /// The line of the instruction; 0 for a copy by the host.
    pub line: u32,
    /// Whether it changed the memory.
    pub writes: bool,
}

impl fmt::Display for Access {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.writes { "writes" } else { "reads" };
        write!(out, "{} {verb} at line {}", self.who, self.line)
    }
}

/// Two accesses to the same memory, at least one of them a write, neither of which happens before the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Race {
    /// Where in the machine's memory: what [`crate::Memory::locate`] said.
    pub place: u64,
    /// The access that came first in this run.
    pub first: Access,
    /// The one that came second.
    pub second: Access,
}

impl fmt::Display for Race {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "race at {:#x}: {}; {}", self.place, self.first, self.second)
    }
}

/// What happened while a machine ran.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The races seen, the first few of them.
    pub races: Vec<Race>,
    /// How many there were.
    pub race_count: u64,
    /// Instructions executed by all threads.
    pub instructions: u64,
}
