//! One reply from each of many workers, within one deadline.
//!
//! Each worker answers through a queue of its own, of which the one who asks is the only reader. The one invariant that
//! matters: **replies of different rounds are never mixed**: a worker that was too late owes a reply, which is dropped when
//! it comes.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::{Error, Result};
use super::reader::{Reader, ReaderControl};
use super::wait::Ends;

/// Collects replies, round by round.
///
/// ```
/// use std::time::Duration;
/// use unisono::queue::{Gather, Reader, Writer};
///
/// // In each worker:
/// let mut replies = Writer::builder().rank(7).create()?;
/// // In the process that asks, with the handles of all workers:
/// let mut gather = Gather::new(vec![Reader::open(replies.handle(), 0)?]);
///
/// replies.send(b"done")?;
/// let round = gather.collect(Duration::from_secs(1));
/// assert_eq!(round.replies[0].as_deref(), Some(&b"done"[..]));
/// assert!(round.missing.is_empty());
/// # Ok::<_, unisono::queue::Error>(())
/// ```
#[derive(Debug)]
pub struct Gather {
    workers: Vec<Worker>,
    ends: Arc<Ends>,
}

#[derive(Debug)]
struct Worker {
    reader: Reader,
    /// Replies of earlier rounds that have not come yet.
    owed: usize,
}

/// One round of replies.
#[derive(Debug)]
pub struct Round {
    /// The reply of each worker, in the order in which the workers were given; `None` for those that are missing.
    pub replies: Vec<Option<Vec<u8>>>,
    /// Who is missing, and why.
    pub missing: Vec<Missing>,
}

/// A worker without a reply.
#[derive(Clone, Debug)]
pub struct Missing {
    /// Its place in the order in which the workers were given.
    pub index: usize,
    /// The rank that it goes by as a writer.
    pub rank: usize,
    /// What happened instead.
    pub error: Error,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker {}: {}", self.index, self.error)
    }
}

/// Ends the waits of a [`Gather`] from another thread.
#[derive(Clone, Debug)]
pub struct GatherControl {
    ends: Arc<Ends>,
    readers: Vec<ReaderControl>,
}

impl GatherControl {
    /// End the round that is under way, if there is one: those who have not replied are missing.
    pub fn cancel(&self) {
        self.ends.cancel();
        self.readers.iter().for_each(ReaderControl::cancel);
    }

    /// End every round, now and from now on.
    pub fn shut_down(&self) {
        self.ends.shut_down();
        self.readers.iter().for_each(ReaderControl::shut_down);
    }
}

impl Gather {
    /// Collect from the writers of these queues.
    pub fn new(readers: Vec<Reader>) -> Gather {
        let worker = |reader| Worker { reader, owed: 0 };
        Gather { workers: readers.into_iter().map(worker).collect(), ends: Arc::default() }
    }

    /// A control with which other threads end this one's waits.
    pub fn control(&self) -> GatherControl {
        let readers = self.workers.iter().map(|worker| worker.reader.control()).collect();
        GatherControl { ends: Arc::clone(&self.ends), readers }
    }

    /// Wait until every worker has replied or is known to be gone, for at most `timeout`, all together.
    pub fn collect(&mut self, timeout: impl Into<Option<Duration>>) -> Round {
        const OPERATION: &str = "collect";
        let deadline = timeout.into().and_then(|timeout| Instant::now().checked_add(timeout));
        let begun = self.ends.begin();
        let mut round = Round { replies: Vec::with_capacity(self.workers.len()), missing: Vec::new() };
        for (index, worker) in self.workers.iter_mut().enumerate() {
            // Whom the deadline leaves no time may have replied already.
            let reply = self.ends.check(begun, OPERATION).and_then(|()| worker.reply(deadline));
            match reply {
                Ok(reply) => round.replies.push(Some(reply)),
                Err(error) => {
                    worker.owed += 1;
                    round.replies.push(None);
                    round.missing.push(Missing { index, rank: worker.reader.handle().writer_rank(), error });
                }
            }
        }
        round
    }
}

impl Worker {
    /// This round's reply, after those that are owed.
    fn reply(&mut self, deadline: Option<Instant>) -> Result<Vec<u8>> {
        loop {
            let timeout = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let reply = self.reader.recv_within(timeout)?;
            if self.owed == 0 {
                return Ok(reply.to_vec());
            }
            drop(reply);
            self.owed -= 1;
        }
    }
}
