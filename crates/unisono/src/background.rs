//! Threads of the library's own: the watchers, a team's helpers, the one that carries out asynchronous operations.
//!
//! The invariant: **none of them ever runs a signal handler** of the program they live in, and a forked child, in which
//! they do not exist, never waits for one.

use std::thread::JoinHandle;

use unisono_os::fork_guard::ForkMark;
use unisono_os::{OsError, thread};

use crate::error::{Error, Result};

/// A thread of the library's own.
#[derive(Debug)]
pub(crate) struct Background {
    thread: Option<JoinHandle<()>>,
    born: ForkMark,
}

impl Background {
    /// Start a thread under a name.
    pub(crate) fn spawn(name: &'static str, life: impl FnOnce() + Send + 'static) -> Result<Background> {
        let masked = move || {
            thread::mask_all_signals();
            life();
        };
        let thread = std::thread::Builder::new().name(name.to_string()).spawn(masked);
        let refused = |error: std::io::Error| {
            Error::os("starting a thread of the library")(OsError::from_io("clone", &error, name))
        };
        Ok(Background { thread: Some(thread.map_err(refused)?), born: ForkMark::now() })
    }

    /// Whether this process is a forked child of the one in which the thread lives.
    pub(crate) fn lives_elsewhere(&self) -> bool {
        self.born.crossed_fork()
    }

    /// Whether the calling thread is this one.
    pub(crate) fn is_current(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| thread.thread().id() == std::thread::current().id())
    }

    /// Wait for its end, which the caller has asked for. A thread does not wait for itself.
    pub(crate) fn join(&mut self) {
        if self.is_current() || self.lives_elsewhere() {
            return;
        }
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("a thread of the library panicked");
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if self.lives_elsewhere() {
            std::mem::forget(self.thread.take());
        }
    }
}
