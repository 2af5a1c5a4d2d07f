//! The side that sends: it is bound to an address, and readers come to it.
//!
//! Any thread may give it messages; a thread of its own has the socket. The one invariant that matters: **nothing is
//! dropped**: what was sent is kept until every reader has finished it, and how much that is, is for the sender to look at
//! before it sends more.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use unisono_os::fork_guard::ForkMark;
use unisono_os::monitor::{lock, wait_until};
use unisono_os::poll::Waker;

use crate::error::{Error, Result};
use crate::key::Key;
use crate::link;
use crate::roster::Roster;
use crate::service::Service;
use crate::state::{Leftovers, ReaderState};

/// What a publisher is to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// The queue's key.
    pub key: Key,
    /// What tells this queue from every other.
    pub nonce: [u8; 16],
    /// The rank that the publisher goes by.
    pub rank: u64,
    /// The ranks that may read.
    pub readers: Vec<u64>,
    /// Where to listen; the port is the system's choice.
    pub ip: IpAddr,
    /// What becomes of messages that a reader had not finished when it went.
    pub leftovers: Leftovers,
}

type Listener = Box<dyn Fn() + Send + Sync>;

/// What a publisher shares with its thread.
pub(crate) struct Shared {
    pub(crate) config: Config,
    roster: Mutex<Roster>,
    changed: Condvar,
    pub(crate) waker: Waker,
    listener: OnceLock<Listener>,
    /// Until when readers may take what is left, once nothing more comes.
    closing_until: OnceLock<Instant>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(config: Config, waker: Waker) -> Shared {
        let roster = Mutex::new(Roster::new(&config.readers, config.leftovers));
        let (changed, listener, closing_until) = (Condvar::new(), OnceLock::new(), OnceLock::new());
        Shared { config, roster, changed, waker, listener, closing_until }
    }

    /// Do something with the roster; whoever waits looks again.
    pub(crate) fn change<T>(&self, act: impl FnOnce(&mut Roster) -> T) -> T {
        let result = act(&mut lock(&self.roster));
        self.changed.notify_all();
        result
    }

    /// Look at the roster, or take note in it of what nobody waits for.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&mut Roster) -> T) -> T {
        look(&mut lock(&self.roster))
    }

    /// Somebody came, went, or is ready. Without the roster's lock.
    pub(crate) fn tell(&self) {
        if let Some(listener) = self.listener.get() {
            listener();
        }
    }

    pub(crate) fn closing_until(&self) -> Option<Instant> {
        self.closing_until.get().copied()
    }
}

/// How far the readers are behind. See [`Publisher::wait`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// Messages that the slowest reader has not finished; those kept for readers that are to come count, too.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Whether the sender is to hear of a reader that is gone. See [`Publisher::take_trouble`].
    pub is_troubled: bool,
}

/// Sends messages to readers elsewhere. Dropped, it is [closed](Publisher::close) without patience.
#[derive(Debug)]
pub struct Publisher {
    shared: Arc<Shared>,
    address: SocketAddr,
    thread: Mutex<Option<JoinHandle<()>>>,
    born: ForkMark,
}

impl Publisher {
    /// Listen for readers from now on.
    ///
    /// # Errors
    /// [`Error::Bind`] if the address is none of this machine's; [`Error::System`].
    pub fn bind(config: Config) -> Result<Publisher> {
        let context = zmq::Context::new();
        let (socket, address) = link::bound(&context, config.ip)?;
        let system = |doing, problem: &dyn ToString| Error::System { doing, problem: problem.to_string() };
        let waker = Waker::new().map_err(|error| system("making a publisher's wake-up", &error))?;
        let shared = Arc::new(Shared::new(config, waker));
        let service = Service::new(context, socket, Arc::clone(&shared));
        let thread = crate::spawn("unisono-publish", move || service.run())
            .map_err(|error| system("starting a publisher's thread", &error))?;
        Ok(Publisher { shared, address, thread: Mutex::new(Some(thread)), born: ForkMark::now() })
    }

    /// Where readers find it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Have this called whenever a reader has come, is ready, or has gone; by the publisher's own thread. Only the first
    /// listener counts.
    pub fn listen(&self, listener: impl Fn() + Send + Sync + 'static) {
        // A second one is the caller's mistake, and the first stays as it was.
        let _ = self.shared.listener.set(Box::new(listener));
    }

    /// Send a message. It does not wait: see [`wait`](Publisher::wait).
    pub fn send(&self, message: Vec<u8>) {
        self.shared.look(|roster| roster.send(message));
        self.shared.waker.wake();
    }

    /// What is known of each reader.
    pub fn readers(&self) -> Vec<ReaderState> {
        self.shared.look(|roster| roster.readers())
    }

    /// Whether [`take_trouble`](Publisher::take_trouble) has something to say.
    pub fn is_troubled(&self) -> bool {
        self.shared.look(|roster| roster.is_troubled())
    }

    /// A reader that is gone, and of which the sender is to hear ([`Leftovers::Told`], and one that broke the rules): one of which the
    /// rank was taken anew before the sender heard of it, and that left messages behind, once; one of which the rank is still
    /// free, whenever this is asked.
    pub fn take_trouble(&self) -> Option<ReaderState> {
        self.shared.look(Roster::take_trouble)
    }

    /// Readers that are gone with messages unfinished, of which the sender has not heard, though it is to or though their messages are
    /// kept: for a sender that sends nothing more. Those whose ranks were taken anew are told of once.
    pub fn take_untold(&self) -> Vec<ReaderState> {
        self.shared.look(Roster::take_untold)
    }

    /// Wait until `look` finds something in how far the readers are behind, for at most `timeout`. It is asked again with
    /// every change and whenever somebody [rouses](Publisher::rouse) who waits.
    pub fn wait<T>(
        &self,
        timeout: Option<Duration>,
        mut look: impl FnMut(Unfinished) -> Option<T>,
    ) -> Option<T> {
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut roster = lock(&self.shared.roster);
        loop {
            if let Some(found) = look(roster.unfinished()) {
                return Some(found);
            }
            match until {
                Some(until) if Instant::now() >= until => return None,
                until => roster = wait_until(&self.shared.changed, roster, until),
            }
        }
    }

    /// Let whoever [waits](Publisher::wait) look again.
    pub fn rouse(&self) {
        self.shared.change(|_| ());
    }

    /// All readers of the queue have come: let those hear of it that are here, and those that come later.
    pub fn say_complete(&self) {
        self.shared.look(|roster| roster.is_complete = true);
        self.shared.waker.wake();
    }

    /// Say that there is nothing more, and wait until every reader that is there has everything, for at most `patience`.
    /// In a forked child nothing happens.
    pub fn close(&self, patience: Duration) {
        if self.born.crossed_fork() {
            return; // The thread is the parent's, and so are the locks, which it may hold.
        }
        let Some(thread) = lock(&self.thread).take() else { return };
        let now = Instant::now();
        // It is closed once: whoever closes it has taken the thread.
        let _ = self.shared.closing_until.set(now.checked_add(patience).unwrap_or(now));
        self.shared.change(|roster| roster.is_closing = true);
        self.shared.waker.wake();
        // The last who has this may be the thread itself, in its listener.
        if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
            tracing::error!("a publisher's thread panicked");
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        if self.born.crossed_fork() {
            std::mem::forget(lock(&self.thread).take());
        }
        self.close(Duration::ZERO);
    }
}
