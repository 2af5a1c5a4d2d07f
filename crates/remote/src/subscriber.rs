//! The side that receives: it comes to a publisher's address, proves that it has the key, and gets every message.
//!
//! A thread of its own has the socket. The one invariant that matters: **no message is taken for another**: each part has
//! the number that was expected, or it is the end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use unisono_os::fork_guard::ForkMark;
use unisono_os::poll::Waker;

use crate::error::{Error, Result};
use crate::handshake::{self, Admitted};
use crate::inbox::{Found, Inbox, Progress};
use crate::key::Key;
use crate::receiver::Receiver;

/// Whom a subscriber wants to hear, and as whom.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the publisher is.
    pub address: SocketAddr,
    /// The queue's key.
    pub key: Key,
    /// What tells this queue from every other.
    pub nonce: [u8; 16],
    /// The rank to claim.
    pub rank: u64,
}

/// Receives messages from elsewhere. Dropped, it says goodbye.
#[derive(Debug)]
pub struct Subscriber {
    inbox: Arc<Inbox>,
    is_to_end: Arc<AtomicBool>,
    admitted: Admitted,
    thread: Option<JoinHandle<()>>,
    born: ForkMark,
}

/// Lets whoever waits for a [`Subscriber`] look again.
#[derive(Clone, Debug)]
pub struct Rouser(Arc<Inbox>);

impl Rouser {
    /// Ask the waiter's own reason to end the wait again.
    pub fn rouse(&self) {
        self.0.rouse();
    }
}

impl Subscriber {
    /// Come in, within `deadline`.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::NoAnswer`], [`Error::WrongKey`], [`Error::Taken`], [`Error::Refused`];
    /// [`Error::System`].
    pub fn open(config: &Config, deadline: Option<Instant>) -> Result<Subscriber> {
        let context = zmq::Context::new();
        let (link, admitted) = handshake::come_in(&context, config, deadline)?;
        let system = |doing, problem: &dyn ToString| Error::System { doing, problem: problem.to_string() };
        let waker = Waker::new().map_err(|error| system("making a subscriber's wake-up", &error))?;
        let inbox = Arc::new(Inbox::new(admitted.message, waker));
        let is_to_end = Arc::new(AtomicBool::new(false));
        let receiver = Receiver::new(link, context, admitted, Arc::clone(&inbox), Arc::clone(&is_to_end));
        let thread = crate::spawn("unisono-receive", move || receiver.run())
            .map_err(|error| system("starting a subscriber's thread", &error))?;
        Ok(Subscriber { inbox, is_to_end, admitted, thread: Some(thread), born: ForkMark::now() })
    }

    /// The publisher's process, on its machine.
    pub fn publisher_pid(&self) -> u32 {
        self.admitted.pid
    }

    /// The rank that the publisher goes by.
    pub fn publisher_rank(&self) -> u64 {
        self.admitted.rank
    }

    /// How much has arrived.
    pub fn progress(&self) -> Progress {
        self.inbox.progress()
    }

    /// Wait for the next message, for at most `timeout`, or until `is_over`, which is asked whenever a [`Rouser`] rouses. Who
    /// takes a message says when it has [finished](Subscriber::finish_one) it.
    pub fn wait(&self, timeout: Option<Duration>, is_over: impl Fn() -> bool) -> Found {
        self.inbox.wait(timeout, is_over)
    }

    /// Wait until all readers of the queue have come; [`Found::Message`] is then empty, and is none.
    pub fn wait_until_complete(&self, timeout: Option<Duration>, is_over: impl Fn() -> bool) -> Found {
        self.inbox.wait_until_complete(timeout, is_over)
    }

    /// Give a message back that was taken: it is the next again.
    pub fn put_back(&self, message: Vec<u8>) {
        self.inbox.put_back(message);
    }

    /// How many messages are finished, those before this subscriber's first included.
    pub fn finished(&self) -> u64 {
        self.inbox.finished()
    }

    /// The first message that was not finished is.
    pub fn finish_one(&self) {
        self.inbox.finish_one();
    }

    /// What ends waits from another thread.
    pub fn rouser(&self) -> Rouser {
        Rouser(Arc::clone(&self.inbox))
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        if self.born.crossed_fork() {
            // The thread is the parent's.
            std::mem::forget(self.thread.take());
            return;
        }
        // Release: what was finished is said before the goodbye.
        self.is_to_end.store(true, Ordering::Release);
        self.inbox.waker.wake();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("a subscriber's thread panicked");
        }
    }
}
