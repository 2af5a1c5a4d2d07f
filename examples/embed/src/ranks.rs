//! This process's place among the ranks, and everything the example says to the others.
//!
//! Without `WORLD_SIZE` in the environment there is one rank and nobody to talk to: the same model runs, no
//! communicator exists. With it (torchrun and `unisono run` set it) each process is a rank, and every collective of
//! the example goes through [`Ranks`], which also keeps the time of each all-reduce. The invariant: all ranks call the
//! methods marked "collective" in the same order.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use candle_core::Tensor;
use unisono::{Communicator, Element};

use crate::all_reduce::AllReduce;

/// How long a rank that has finished waits for the others to finish too.
const GOODBYE: Duration = Duration::from_secs(30);

/// A rank, connected to its peers or alone.
pub(crate) struct Ranks {
    communicator: Option<Communicator>,
    all_reduce_times: Mutex<Vec<Duration>>,
}

/// Which of the equal parts of a tensor's rows or columns belongs to a rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shard {
    /// The part, from 0.
    pub(crate) rank: usize,
    /// The number of parts.
    pub(crate) world_size: usize,
}

impl Shard {
    /// The part of `length` rows or columns that is this shard's. Fails where they don't divide evenly.
    pub(crate) fn range(self, length: usize) -> Result<std::ops::Range<usize>> {
        ensure!(
            self.rank < self.world_size && length.is_multiple_of(self.world_size),
            "{length} rows or columns can't be split evenly over {} ranks",
            self.world_size
        );
        let part = length / self.world_size;
        Ok(self.rank * part..(self.rank + 1) * part)
    }
}

impl Ranks {
    /// One rank that has nobody to talk to.
    pub(crate) fn alone() -> Self {
        Self { communicator: None, all_reduce_times: Mutex::default() }
    }

    /// A rank of `communicator`.
    pub(crate) fn connected(communicator: Communicator) -> Self {
        Self { communicator: Some(communicator), all_reduce_times: Mutex::default() }
    }

    /// Finds the other ranks as torchrun's environment describes them; without that environment, one rank alone.
    pub(crate) fn from_environment() -> Result<Self> {
        if std::env::var_os("WORLD_SIZE").is_none() {
            return Ok(Self::alone());
        }
        let communicator = Communicator::from_env().context("the ranks did not find each other")?;
        Ok(Self::connected(communicator))
    }

    /// This rank's number, from 0.
    pub(crate) fn rank(&self) -> usize {
        self.communicator.as_ref().map_or(0, Communicator::rank)
    }

    /// The number of ranks.
    pub(crate) fn world_size(&self) -> usize {
        self.communicator.as_ref().map_or(1, Communicator::world_size)
    }

    /// Whether there is nobody to talk to, so that nothing is ever sent.
    pub(crate) fn is_alone(&self) -> bool {
        self.communicator.is_none()
    }

    /// The part of a split tensor that this rank holds.
    pub(crate) fn shard(&self) -> Shard {
        Shard { rank: self.rank(), world_size: self.world_size() }
    }

    /// Collective. Replaces `partial`, whose storage nobody else may hold, by its sum over all ranks.
    pub(crate) fn sum_in_place(&self, partial: &Tensor) -> candle_core::Result<()> {
        let Some(communicator) = &self.communicator else { return Ok(()) };
        let started = Instant::now();
        partial.inplace_op1(&AllReduce::new(communicator.clone()))?;
        let elapsed = started.elapsed();
        self.all_reduce_times.lock().unwrap_or_else(PoisonError::into_inner).push(elapsed);
        Ok(())
    }

    /// Takes the times of the all-reduces since the last call, oldest first.
    pub(crate) fn take_all_reduce_times(&self) -> Vec<Duration> {
        std::mem::take(&mut self.all_reduce_times.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Collective. The `values` of all ranks, one after the other; each rank gives the same number of them.
    pub(crate) fn gather<T: Element + Default>(&self, values: &[T]) -> Result<Vec<T>> {
        let Some(communicator) = &self.communicator else { return Ok(values.to_vec()) };
        let mut gathered = vec![T::default(); values.len() * communicator.world_size()];
        communicator.all_gather(values, &mut gathered).context("gathering a value from all ranks")?;
        Ok(gathered)
    }

    /// Collective. Returns once every rank has come here.
    pub(crate) fn barrier(&self) -> Result<()> {
        match &self.communicator {
            Some(communicator) => communicator.barrier().context("waiting for all ranks"),
            None => Ok(()),
        }
    }

    /// Collective. Says goodbye, so that no rank leaves while another still needs it.
    pub(crate) fn close(&self) -> Result<()> {
        match &self.communicator {
            Some(communicator) => communicator.close(GOODBYE).context("saying goodbye to the other ranks"),
            None => Ok(()),
        }
    }
}
