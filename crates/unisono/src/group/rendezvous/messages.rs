//! What ranks say to one another before they share memory, and the limits within which it is believed.
//!
//! ```text
//!   rank r                         rank 0
//!     Hello {who I am}        ──►           every rank, in any order
//!                             ◄──  Seated              heard; or  Refused {why}
//!                             ◄──  Welcome {what we agreed on}   or  Refused {why}
//!     Memory + memfd, pidfd   ──►
//!                             ◄──  Roster {pids} + all memfds, all pidfds
//!     Ready                   ──►           mapped and checked
//!                             ◄──  Go
//! ```

use serde::{Deserialize, Serialize};

use crate::parameters::Parameters;
use crate::words::Language;
pub(crate) use crate::words::{receive, send};

/// Changes whenever a message or the layout of the memory does.
pub(crate) const VERSION: u32 = 3;

/// Who a rank is and where it runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) version: u32,
    pub(crate) rank: usize,
    pub(crate) world: usize,
    pub(crate) pid: u32,
    pub(crate) cpus: Vec<usize>,
    pub(crate) quota: Option<f64>,
    /// Memory it may still get, which limit says so, and in which cgroup namespace that limit is.
    pub(crate) headroom: u64,
    pub(crate) limited_by: String,
    pub(crate) limited_in: Option<u64>,
}

/// What all ranks go by from now on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Welcome {
    pub(crate) nonce: u64,
    pub(crate) parameters: Parameters,
    pub(crate) crowded: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    Hello(Hello),
    /// Rank 0 lives and has heard the hello; what it waits for now are the others.
    Seated,
    Welcome(Welcome),
    /// The end, from rank 0; `missing` are ranks that never came.
    Refused {
        problem: String,
        missing: Vec<usize>,
    },
    /// The sender's memfd, and its pidfd if it has one.
    Memory,
    /// All ranks' processes, and which of them have a pidfd; with all memfds, then those pidfds.
    Roster {
        pids: Vec<u32>,
        has_pidfd: Vec<bool>,
    },
    Ready,
    Go,
    /// The end, from another rank.
    Failed {
        problem: String,
    },
}

impl Language for Message {
    const LONGEST: usize = 64 * 1024;

    /// A failure of the other side.
    fn not_understood(problem: String) -> Self {
        Message::Failed { problem }
    }
}
