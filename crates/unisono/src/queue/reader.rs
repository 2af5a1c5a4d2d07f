//! A reader of a queue, as its user sees it: it takes messages in order, wherever the writer is.
//!
//! On the writer's machine it reads them in place (`near`), elsewhere they come to it (`elsewhere`). The one invariant that
//! matters: **every call behaves the same on both**; a message is taken when its guard is dropped, and not before.

use std::sync::Arc;
use std::time::{Duration, Instant};

use unisono_os::fork_guard::ForkMark;

use super::elsewhere::{Far, FarControl};
use super::error::{Error, Result};
use super::handle::Handle;
use super::line::Line;
use super::message::Message;
use super::near::Near;

/// How long a writer may take to let a reader in.
const OPENING_TAKES: Duration = Duration::from_secs(30);

/// A side of a queue that reads. Dropped, it says goodbye.
#[derive(Debug)]
pub struct Reader {
    source: Source,
    handle: Handle,
    rank: usize,
    timeout: Option<Duration>,
    born: ForkMark,
}

/// Where messages come from.
#[derive(Debug)]
enum Source {
    Near(Near),
    Far(Far),
}

/// Ends waits of a [`Reader`] from another thread. In a forked child it does nothing.
#[derive(Clone, Debug)]
pub struct ReaderControl {
    of: ControlOf,
    born: ForkMark,
}

#[derive(Clone, Debug)]
enum ControlOf {
    Near(Arc<Line>),
    Far(FarControl),
}

impl ReaderControl {
    /// End the wait that is under way, if there is one, with [`Error::Cancelled`].
    pub fn cancel(&self) {
        if self.born.crossed_fork() {
            return;
        }
        match &self.of {
            ControlOf::Near(line) => {
                line.ends.cancel();
                line.ring();
            }
            ControlOf::Far(far) => far.cancel(),
        }
    }

    /// Let every call of this reader end with [`Error::ShutDown`], now and from now on.
    pub fn shut_down(&self) {
        if self.born.crossed_fork() {
            return;
        }
        match &self.of {
            ControlOf::Near(line) => {
                line.ends.shut_down();
                line.ring();
            }
            ControlOf::Far(far) => far.shut_down(),
        }
    }
}

impl Reader {
    /// Open the queue that the handle names, as its reader `rank`.
    ///
    /// # Errors
    /// [`Error::UnknownRank`], [`Error::RankTaken`], and [`Error::Meeting`] with what the writer said, or that there is none. From
    /// another machine a rank is asked for again for as long as its last reader may be missing without anybody having noticed.
    pub fn open(handle: &Handle, rank: usize) -> Result<Reader> {
        Reader::open_within(handle, rank, OPENING_TAKES)
    }

    /// As [`Reader::open`]; the writer has so long to answer.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn open_within(handle: &Handle, rank: usize, timeout: Duration) -> Result<Reader> {
        let ranks = handle.reader_ranks();
        if !ranks.contains(&rank) {
            return Err(Error::UnknownRank { rank, ranks });
        }
        let deadline = Instant::now().checked_add(timeout);
        let source = match handle.elsewhere().filter(|elsewhere| elsewhere.has(rank)) {
            Some(elsewhere) => Source::Far(Far::open(handle, elsewhere, rank, deadline)?),
            None => Source::Near(Near::open(handle, rank, deadline)?),
        };
        let (timeout, born) = (Some(crate::DEFAULT_TIMEOUT), ForkMark::now());
        Ok(Reader { source, handle: handle.clone(), rank, timeout, born })
    }

    /// How long [`recv`](Reader::recv) waits; `None`: without end. Default 30 minutes.
    pub fn set_timeout(&mut self, timeout: impl Into<Option<Duration>>) {
        self.timeout = timeout.into();
    }

    /// How long what was promised (that all are ready, what a large message consists of) is waited for before the log says so.
    /// That nothing is sent is not worth a word. Default 60 s, at least a millisecond.
    pub fn set_warn_interval(&mut self, interval: Duration) {
        let interval = interval.max(Duration::from_millis(1));
        match &mut self.source {
            Source::Near(near) => near.warn_interval = interval,
            Source::Far(far) => far.set_warn_interval(interval),
        }
    }

    /// This reader's rank.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The handle that it was opened with.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// A control with which other threads end this reader's waits.
    pub fn control(&self) -> ReaderControl {
        let of = match &self.source {
            Source::Near(near) => ControlOf::Near(Arc::clone(&near.line)),
            Source::Far(far) => ControlOf::Far(far.control()),
        };
        ReaderControl { of, born: self.born }
    }

    /// Wait until every reader of the queue is ready, for at most `timeout`.
    ///
    /// # Errors
    /// As [`Reader::recv`].
    pub fn wait_until_ready(&mut self, timeout: impl Into<Option<Duration>>) -> Result<()> {
        const OPERATION: &str = "wait_until_ready";
        self.check_fork(OPERATION)?;
        match &mut self.source {
            Source::Near(near) => near.wait_until_ready(OPERATION, timeout.into()),
            Source::Far(far) => far.wait_until_ready(OPERATION, timeout.into()),
        }
    }

    /// The next message, in place. Its room is given back when the guard is dropped.
    ///
    /// # Errors
    /// [`Error::PeerDied`] and [`Error::PeerLeft`] once everything the writer had sent is read, [`Error::Timeout`],
    /// [`Error::ShutDown`], [`Error::Cancelled`]; [`Error::Undelivered`] for a large message that this process has no room for.
    /// On another machine [`Error::LinkLost`] once everything that had arrived is read, and [`Error::Lost`].
    #[inline]
    pub fn recv(&mut self) -> Result<Message<'_>> {
        self.recv_within(self.timeout)
    }

    /// As [`Reader::recv`], with a time-out of its own; zero looks once, `None` waits without end.
    ///
    /// # Errors
    /// As [`Reader::recv`].
    #[inline]
    pub fn recv_within(&mut self, timeout: impl Into<Option<Duration>>) -> Result<Message<'_>> {
        const OPERATION: &str = "recv";
        self.check_fork(OPERATION)?;
        let born = self.born;
        match &mut self.source {
            Source::Near(near) => {
                let (record, home) = near.find(OPERATION, timeout.into())?;
                Ok(Message::in_place(near, record, home, born))
            }
            Source::Far(far) => {
                let bytes = far.take(OPERATION, timeout.into())?;
                Ok(Message::arrived(far, bytes, born))
            }
        }
    }

    /// Copy the next message to `into`, as far as it fits; gives its length.
    ///
    /// # Errors
    /// As [`Reader::recv`]; [`Error::InvalidArgument`] if it is longer than `into`: it stays the next message.
    pub fn recv_into(&mut self, into: &mut [u8]) -> Result<usize> {
        let message = self.recv()?;
        let bytes = message.len();
        if bytes > into.len() {
            message.keep();
            return Err(Error::argument(
                "recv_into",
                format!("a message of {bytes} bytes into {}", into.len()),
            ));
        }
        message.copy_to(into);
        Ok(bytes)
    }

    /// A forked child does not have the queue's memory.
    #[inline]
    fn check_fork(&self, operation: &'static str) -> Result<()> {
        if self.born.crossed_fork() { Err(Error::Forked { operation }) } else { Ok(()) }
    }
}
