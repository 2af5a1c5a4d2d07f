//! What is measured of a queue.

use std::fmt;

use serde::{Deserialize, Serialize};
use unisono_measure::size;

use super::loops::{Manner, Request};

/// How long nothing comes, and how much processor time a reader that waits may use.
pub(crate) const REST_MILLISECONDS: u64 = 5000;
pub(crate) const REST_ALLOWED_MICROSECONDS: u64 = 10_000;

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Half of a round trip; copied in and out.
    Latency,
    /// The same, in place: eight bytes are touched.
    InPlace,
    /// Messages in one direction.
    Stream,
    /// Nothing.
    Rest,
}

/// One thing that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Cell {
    pub(crate) kind: Kind,
    pub(crate) bytes: usize,
    pub(crate) readers: usize,
}

/// All of them, in the order of the tables.
pub(crate) fn all() -> Vec<Cell> {
    let of = |kind, readers, sizes: &[usize]| -> Vec<Cell> {
        sizes.iter().map(|bytes| Cell { kind, bytes: *bytes, readers }).collect()
    };
    [
        of(Kind::Latency, 1, &[64, 1 << 10, 16 << 10]),
        of(Kind::Stream, 1, &[64, 1 << 10]),
        of(Kind::InPlace, 1, &[1 << 10, 64 << 10, 1 << 20]),
        of(Kind::Rest, 1, &[8]),
        of(Kind::Latency, 3, &[64]),
    ]
    .concat()
}

impl Cell {
    /// What is asked of all processes.
    pub(crate) fn request(&self, warm_up: usize, messages: usize) -> Request {
        let bytes = self.bytes;
        match self.kind {
            Kind::Latency => Request::Echo { manner: Manner::Copied, bytes, warm_up, messages },
            Kind::InPlace => Request::Echo { manner: Manner::InPlace, bytes, warm_up, messages },
            Kind::Stream => Request::Stream { bytes, messages },
            Kind::Rest => Request::Rest { milliseconds: REST_MILLISECONDS },
        }
    }

    /// Of how many messages a value is the time.
    pub(crate) fn messages_of_a_value(&self) -> usize {
        if self.kind == Kind::Stream { 1000 } else { 1 }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Latency => "one way",
            Kind::InPlace => "one way in place",
            Kind::Stream => "stream",
            Kind::Rest => return f.write_str("idle reader, 5 s"),
        };
        write!(f, "{kind}, {}", size::display(self.bytes as u64))?;
        if self.readers > 1 { write!(f, ", {} readers", self.readers) } else { Ok(()) }
    }
}
