//! Several threads per rank: how many, whose, and from which size on.

use super::{Communicator, environment};
use crate::error::Result;
use crate::team::{Team, Threads, check_threads};

/// What was asked for; what was not is taken from the environment, else has a default.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Settings {
    pub(super) threads: Option<usize>,
    pub(super) thread_bytes: Option<usize>,
}

impl Settings {
    /// `UNISONO_THREADS` and `UNISONO_THREAD_BYTES`.
    pub(super) fn from_env() -> Result<Self> {
        let threads = environment::optional("UNISONO_THREADS")?;
        threads.map_or(Ok(()), check_threads)?;
        Ok(Settings { threads, thread_bytes: environment::bytes("UNISONO_THREAD_BYTES")? })
    }

    /// These, and what they leave open from others.
    pub(super) fn or(self, others: Settings) -> Self {
        Settings {
            threads: self.threads.or(others.threads),
            thread_bytes: self.thread_bytes.or(others.thread_bytes),
        }
    }
}

impl Communicator {
    /// How many threads share the copying and reducing of this rank's collectives.
    pub fn threads(&self) -> usize {
        self.group.sharing().threads.map_or(1, |threads| threads.count())
    }

    /// Let this many threads share the copying and reducing of this rank's collectives from now on: the calling one and the
    /// library's own, which sleep in between; 1 to 32. As [`Builder::threads`](crate::Builder::threads), for every handle
    /// on this communicator.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) for another number, and if no thread can be started;
    /// [`Busy`](crate::Error::Busy) if another thread is inside a collective for as long as this handle may wait.
    pub fn set_threads(&self, threads: usize) -> Result<()> {
        let threads = if threads == 1 { None } else { Some(Threads::start(threads, self.world_size())?) };
        Ok(self.group.change_sharing(self.timeout, |sharing| sharing.threads = threads)?)
    }

    /// From how many bytes on a step of a collective is shared among threads; as
    /// [`Builder::thread_bytes`](crate::Builder::thread_bytes).
    ///
    /// # Errors
    /// [`Busy`](crate::Error::Busy), as [`set_threads`](Self::set_threads).
    pub fn set_thread_bytes(&self, bytes: usize) -> Result<()> {
        Ok(self.group.change_sharing(self.timeout, |sharing| sharing.worth = bytes)?)
    }

    /// Let the threads of `team` share the copying and reducing of this rank's collectives from now on, instead of those it
    /// had. Other ranks need not do the same. A collective that is made while no thread of the team [helps](Team::help) is
    /// made by the calling thread alone.
    ///
    /// # Errors
    /// [`Busy`](crate::Error::Busy), as [`set_threads`](Self::set_threads).
    pub fn set_team(&self, team: &Team) -> Result<()> {
        let threads = Some(team.as_threads().clone());
        Ok(self.group.change_sharing(self.timeout, |sharing| sharing.threads = threads)?)
    }

    /// Start the threads that were asked for.
    pub(super) fn apply(&self, settings: &Settings) -> Result<()> {
        if let Some(bytes) = settings.thread_bytes {
            self.set_thread_bytes(bytes)?;
        }
        settings.threads.map_or(Ok(()), |threads| self.set_threads(threads))
    }
}
