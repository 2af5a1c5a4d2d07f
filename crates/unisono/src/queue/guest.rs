//! One reader as its writer knows it, and what can be said to it.
//!
//! The one invariant that matters: **nobody waits for a reader that does not listen**: what its socket does not take now is
//! said later.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use unisono_os::socket::{Connection, SocketError};

use super::error::{Error, Role};
use super::memory::ReaderMemory;
use super::messages::{self, Message};
use super::pool::Housing;

/// A reader that is there.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) seat: usize,
    pub(super) rank: usize,
    pub(super) pid: u32,
    pub(super) memory: ReaderMemory,
    pub(super) connection: Connection,
    pub(super) pidfd: Option<OwnedFd>,
    /// Whether it has said that it is ready.
    pub(super) is_ready: AtomicBool,
    /// Where it began.
    pub(super) began_at: u64,
    /// The furthest position that was believed: it never goes back behind it.
    pub(super) believed: AtomicU64,
    /// The homes of large messages that it has been told of, by number.
    pub(super) told: Mutex<BTreeSet<u64>>,
    /// Who had the seat before, to whom it falls back if this one goes before it was ready.
    pub(super) before: Occupant,
}

/// Who has a rank.
#[derive(Clone, Debug)]
pub(super) enum Occupant {
    /// Nobody yet; every message is kept for it.
    Awaited,
    Present(Arc<Guest>),
    /// Nobody any more.
    Gone(Departure),
}

/// A reader that is gone.
#[derive(Clone, Debug)]
pub(super) struct Departure {
    pub(super) rank: usize,
    pub(super) pid: u32,
    pub(super) why: Why,
    /// The position and the message from which on things are kept for whoever takes its rank, if they are.
    pub(super) resume: Option<(u64, u64)>,
    /// What lies before this was read by it, or the writer was told of its departure after that: nothing before this is lost in
    /// silence.
    pub(super) settled: u64,
}

/// Why a reader is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Left,
    Died,
    Broken,
    /// Word of a large message's memory could not be sent to it.
    Deaf,
}

impl Why {
    /// Whether what it last said of itself can be believed, and it does nothing more.
    pub(super) fn is_sound(self) -> bool {
        matches!(self, Why::Left | Why::Died)
    }
}

impl Guest {
    /// Whether it was ever more than admitted: it said so, it read, or it said goodbye as only an opened reader does.
    pub(super) fn was_ready(&self) -> bool {
        let page = self.memory.page();
        let has_read = self.believed.load(Ordering::Acquire) != self.began_at
            || page.tail.position.look() != self.began_at;
        // Whoever hears of a death may be faster than the host, for whom its last word was.
        let said_last = || {
            let said = messages::receive(&self.connection, Some(Instant::now()));
            matches!(said, Ok(Some((Message::Ready, _))))
        };
        self.is_ready.load(Ordering::Acquire) || has_read || page.has_left() || said_last()
    }

    /// Tell it of the homes that are new to it (in rising order) and of those that are no more, as far as its socket takes that
    /// now: nobody waits for a reader that does not listen. Says whether it has been told of all; whoever cannot be told has
    /// [gone](super::hall::Hall::has_gone), for the reason that this gives.
    pub(super) fn catch_up(&self, homes: &[Arc<Housing>]) -> Result<bool, Why> {
        let mut told = self.told.lock();
        let is_home = |number: &u64| homes.binary_search_by_key(number, |housing| housing.number).is_ok();
        let retired: Vec<u64> = told.iter().copied().filter(|number| !is_home(number)).collect();
        for number in retired {
            if !self.tell(&Message::Retired { number }, &[])? {
                return Ok(false);
            }
            told.remove(&number);
        }
        for Housing { number, home, descriptor } in homes.iter().map(Arc::as_ref) {
            if told.contains(number) {
                continue;
            }
            if !self
                .tell(&Message::Segment { number: *number, bytes: home.bytes() }, &[descriptor.as_fd()])?
            {
                return Ok(false);
            }
            told.insert(*number);
            crate::fault::reach("told");
        }
        Ok(true)
    }

    /// Says whether its socket took the message.
    fn tell(&self, message: &Message, descriptors: &[BorrowedFd<'_>]) -> Result<bool, Why> {
        match messages::send(&self.connection, message, descriptors, Some(Instant::now())) {
            Ok(()) => Ok(true),
            Err(error) if error.is_timed_out() => Ok(false),
            Err(SocketError::Closed) => Err(Why::Died),
            Err(error) => {
                tracing::warn!(rank = self.rank, %error, "a reader was not told of a large message's memory");
                Err(Why::Deaf)
            }
        }
    }
}

impl Departure {
    /// The error that says why it is gone.
    pub(super) fn error(&self) -> Error {
        let (role, rank, pid) = (Role::Reader, self.rank, self.pid);
        let broken = |problem| Error::PeerBroken { role, rank, pid, problem };
        match self.why {
            Why::Left => Error::PeerLeft { role, rank, pid },
            Why::Died => Error::PeerDied { role, rank, pid },
            Why::Broken => broken("wrote a position that cannot be"),
            Why::Deaf => broken("could not be told of a large message's memory"),
        }
    }
}
