//! A reader that messages come to from elsewhere.

use std::sync::Arc;
use std::time::{Duration, Instant};

use unisono_remote::{End, Error as RemoteError, Found, Key, Progress, Rouser, Subscriber, SubscriberConfig};

use crate::queue::builder::WARN_INTERVAL;
use crate::queue::error::{Error, Result, Role, WaitedFor};
use crate::queue::handle::{Elsewhere, Handle};
use crate::queue::wait::{Due, Ends, Patience};

/// What a reader elsewhere has.
#[derive(Debug)]
pub(in crate::queue) struct Far {
    subscriber: Subscriber,
    ends: Arc<Ends>,
    queue: String,
    warn_interval: Duration,
    writer_rank: usize,
    /// Where the writer is.
    address: String,
}

/// Ends its waits from another thread.
#[derive(Clone, Debug)]
pub(in crate::queue) struct FarControl {
    ends: Arc<Ends>,
    rouser: Rouser,
}

impl FarControl {
    pub(in crate::queue) fn cancel(&self) {
        self.ends.cancel();
        self.rouser.rouse();
    }

    pub(in crate::queue) fn shut_down(&self) {
        self.ends.shut_down();
        self.rouser.rouse();
    }
}

impl Far {
    /// Come to the queue that the handle names, as its reader `rank`.
    pub(in crate::queue) fn open(
        handle: &Handle,
        elsewhere: &Elsewhere,
        rank: usize,
        deadline: Option<Instant>,
    ) -> Result<Far> {
        let address = elsewhere.address();
        let key = Key::from_bytes(elsewhere.key());
        let config = SubscriberConfig { address, key, nonce: handle.nonce(), rank: rank as u64 };
        let subscriber = Subscriber::open(&config, deadline).map_err(|error| match error {
            RemoteError::Taken { pid, .. } => Error::RankTaken { rank, pid },
            other => Error::Meeting { queue: handle.name(), problem: other.to_string() },
        })?;
        let (ends, queue, writer_rank) = (Arc::default(), handle.name(), handle.writer_rank());
        let (warn_interval, address) = (WARN_INTERVAL, address.to_string());
        Ok(Far { subscriber, ends, queue, warn_interval, writer_rank, address })
    }

    pub(in crate::queue) fn set_warn_interval(&mut self, interval: Duration) {
        self.warn_interval = interval;
    }

    pub(in crate::queue) fn control(&self) -> FarControl {
        FarControl { ends: Arc::clone(&self.ends), rouser: self.subscriber.rouser() }
    }

    /// Take the next message. It is to be finished or put back.
    pub(in crate::queue) fn take(
        &mut self,
        operation: &'static str,
        timeout: Option<Duration>,
    ) -> Result<Vec<u8>> {
        // That nothing is sent is no wonder; that the rest of a message does not come is one.
        let is_owed = |so_far: &Progress| so_far.message_begun.is_some();
        self.wait(operation, timeout, is_owed, |subscriber, limit, is_over| {
            subscriber.wait(Some(limit), is_over)
        })
    }

    pub(in crate::queue) fn wait_until_ready(
        &mut self,
        operation: &'static str,
        timeout: Option<Duration>,
    ) -> Result<()> {
        let wait = |subscriber: &Subscriber, limit, is_over: &dyn Fn() -> bool| {
            subscriber.wait_until_complete(Some(limit), is_over)
        };
        self.wait(operation, timeout, |_| true, wait).map(drop)
    }

    /// Wait, and say so in the log if that takes long and `is_owed` says that what has come so far makes more be expected.
    fn wait(
        &self,
        operation: &'static str,
        timeout: Option<Duration>,
        is_owed: impl Fn(&Progress) -> bool,
        wait: impl Fn(&Subscriber, Duration, &dyn Fn() -> bool) -> Found,
    ) -> Result<Vec<u8>> {
        let begun = self.ends.begin();
        let mut patience = Patience::new(timeout, self.warn_interval);
        loop {
            let is_over = || self.ends.check(begun, operation).is_err();
            match wait(&self.subscriber, patience.limit(), &is_over) {
                Found::Message(bytes) => return Ok(bytes),
                Found::End(end) => return Err(self.end(&end)),
                Found::Over => {
                    return self.ends.check(begun, operation).and(Err(Error::Cancelled { operation }));
                }
                Found::Nothing => {}
            }
            match patience.due() {
                Due::Nothing => {}
                Due::Warning(waited) => {
                    let so_far = self.subscriber.progress();
                    if is_owed(&so_far) {
                        self.warn(operation, waited, &so_far);
                    }
                }
                Due::Error(waited) => {
                    let waited_for = self.writer(&self.subscriber.progress());
                    return Err(Error::Timeout { operation, waited, waited_for });
                }
            }
        }
    }

    fn warn(&self, operation: &'static str, waited: Duration, so_far: &Progress) {
        let (writer, begun) = (self.writer(so_far), so_far.message_begun);
        let rest = begun.map_or(String::new(), |(here, of)| {
            format!(", of the next message {here} of {of} bytes have come")
        });
        tracing::warn!(queue = self.queue, "{operation} has waited for {waited:.0?}: {writer}{rest}");
    }

    /// The writer, as one that is waited for.
    fn writer(&self, so_far: &Progress) -> WaitedFor {
        WaitedFor::Writer {
            rank: self.writer_rank,
            pid: self.subscriber.publisher_pid(),
            messages: so_far.messages,
            address: Some(self.address.clone()),
            last_step: Some(so_far.last_arrival.elapsed()),
        }
    }

    pub(in crate::queue) fn put_back(&mut self, message: Vec<u8>) {
        self.subscriber.put_back(message);
    }

    /// The number of the message that was taken.
    pub(in crate::queue) fn number(&self) -> u64 {
        self.subscriber.finished()
    }

    /// The message that was taken is read.
    pub(in crate::queue) fn finish(&mut self) {
        self.subscriber.finish_one();
    }

    fn end(&self, end: &End) -> Error {
        let (role, rank, pid) = (Role::Writer, self.writer_rank, self.subscriber.publisher_pid());
        let broken = |problem| Error::PeerBroken { role, rank, pid, problem };
        match *end {
            End::Left => Error::PeerLeft { role, rank, pid },
            End::Lost { expected, found, parts } => Error::Lost { expected, found, parts },
            End::Unauthentic => broken("sent something that is not signed with the queue's key"),
            End::Broken(problem) => broken(problem),
            _ => Error::LinkLost { role, rank, pid, address: self.address.clone() },
        }
    }
}
