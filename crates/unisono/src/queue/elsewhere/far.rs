//! A reader that messages come to from elsewhere.

use std::sync::Arc;
use std::time::{Duration, Instant};

use unisono_remote::{End, Error as RemoteError, Found, Key, Rouser, Subscriber, SubscriberConfig};

use crate::queue::error::{Error, Result, Role, WaitedFor};
use crate::queue::handle::{Elsewhere, Handle};
use crate::queue::wait::Ends;

/// What a reader elsewhere has.
#[derive(Debug)]
pub(in crate::queue) struct Far {
    subscriber: Subscriber,
    ends: Arc<Ends>,
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
        let (ends, writer_rank) = (Arc::default(), handle.writer_rank());
        Ok(Far { subscriber, ends, writer_rank, address: address.to_string() })
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
        self.wait(operation, |subscriber, is_over| subscriber.wait(timeout, is_over))
    }

    pub(in crate::queue) fn wait_until_ready(
        &mut self,
        operation: &'static str,
        timeout: Option<Duration>,
    ) -> Result<()> {
        let wait = |subscriber: &Subscriber, is_over: &dyn Fn() -> bool| {
            subscriber.wait_until_complete(timeout, is_over)
        };
        self.wait(operation, wait).map(drop)
    }

    fn wait(
        &self,
        operation: &'static str,
        wait: impl Fn(&Subscriber, &dyn Fn() -> bool) -> Found,
    ) -> Result<Vec<u8>> {
        let (begun, start) = (self.ends.begin(), Instant::now());
        let (rank, pid) = (self.writer_rank, self.subscriber.publisher_pid());
        match wait(&self.subscriber, &|| self.ends.check(begun, operation).is_err()) {
            Found::Message(bytes) => Ok(bytes),
            Found::End(end) => Err(self.end(&end)),
            Found::Nothing => {
                let messages = self.subscriber.arrived();
                let waited_for = WaitedFor::Writer { rank, pid, messages };
                Err(Error::Timeout { operation, waited: start.elapsed(), waited_for })
            }
            Found::Over => self.ends.check(begun, operation).and(Err(Error::Cancelled { operation })),
        }
    }

    pub(in crate::queue) fn put_back(&mut self, message: Vec<u8>) {
        self.subscriber.put_back(message);
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
