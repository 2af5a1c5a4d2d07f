//! Being heard of, and hearing of others, when a process dies: one sleeping thread per memory that is handed out.
//!
//! The marker holds this process's death words (see [`unisono_os::robust`]) on its robust list, which the kernel marks
//! when the process dies, before it frees its memory; and it sleeps on the words that peers hold for this process. Groups
//! of ranks and queues both have one. Beside it they listen to pidfds and sockets, for kernels without robust lists.
//!
//! The one invariant that matters: **the words are held before the memory is handed out**, so that nobody can miss this
//! process's death.

use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use parking_lot::Mutex;
use unisono_os::robust::{self, DeathWords, WordState};
use unisono_os::{OsError, futex, pidfd};

use crate::background::Background;
use crate::error::{Error, Result};

/// How often the words are looked at where the kernel cannot sleep on several at once.
const LOOK_AT_WORDS_EVERY: Duration = Duration::from_millis(20);

/// A peer whose death word is slept on.
pub(crate) trait Mortal: Send + Sync + fmt::Debug {
    /// The word that the peer holds for this process.
    fn death_word(&self) -> &AtomicU32;
    /// The word was marked: the peer died. Called once at most, on the marker's thread.
    fn has_died(&self);
}

/// What the thread and its owner share.
#[derive(Debug, Default)]
struct Shared {
    /// Whom to listen for, from now on.
    newcomers: Mutex<Vec<Arc<dyn Mortal>>>,
    /// Counts what the thread must look at: newcomers and the end. Futex.
    news: AtomicU32,
    /// Not 0: say goodbye and end.
    stop: AtomicU32,
}

impl Shared {
    /// Let the thread look at what was changed (release; pairs with the acquire in `listen`).
    fn tell(&self) {
        self.news.fetch_add(1, Ordering::Release);
        futex::wake_all(&self.news);
    }
}

/// Alive from before this process's memory is handed out. Dropping it says goodbye.
#[derive(Debug)]
pub(crate) struct Marker {
    shared: Arc<Shared>,
    thread: Background,
}

impl Marker {
    /// Put `count` death words in `memory` (this process's, at `offset`) on a robust list. Where the kernel has none, pidfds and
    /// sockets must do.
    pub(crate) fn start(memory: BorrowedFd<'_>, offset: usize, count: usize) -> Result<Marker> {
        let words =
            DeathWords::map(memory, offset as u64, count).map_err(Error::os("mapping the death words"))?;
        let shared = Arc::<Shared>::default();
        let (ready, is_ready) = mpsc::channel();
        let state = Arc::clone(&shared);
        let thread = Background::spawn("unisono-marker", move || mark(&state, &words, &ready))?;
        match is_ready.recv() {
            Ok(Ok(())) => {}
            Ok(Err(error)) if error.is_not_supported() => {
                tracing::debug!(%error, "no robust lists here: deaths are heard of through pidfds");
            }
            Ok(Err(error)) => return Err(Error::os("holding the death words")(error)),
            Err(_) => tracing::warn!("the marker ended early: deaths are heard of through pidfds"),
        }
        Ok(Marker { shared, thread })
    }

    /// Listen for this peer's death, too.
    pub(crate) fn listen_for(&self, peer: Arc<dyn Mortal>) {
        self.shared.newcomers.lock().push(peer);
        self.shared.tell();
    }
}

/// The marker's life: hold the words, wait for a peer's to be marked, say goodbye.
fn mark(shared: &Shared, words: &DeathWords, ready: &mpsc::Sender<Result<(), OsError>>) {
    let held = match words.hold() {
        Ok(held) => {
            let _ = ready.send(Ok(())); // The starter waits for this.
            Some(held)
        }
        Err(error) => {
            let _ = ready.send(Err(error));
            None
        }
    };
    listen(shared);
    if let Some(held) = held {
        held.release();
    }
}

/// Sleep on the peers' words until this process says goodbye.
fn listen(shared: &Shared) {
    let mut peers: Vec<Arc<dyn Mortal>> = Vec::new();
    loop {
        // Acquire: pairs with the release in `tell`. Read before what it speaks of, so that nothing is slept through.
        let seen = shared.news.load(Ordering::Acquire);
        if shared.stop.load(Ordering::Acquire) != 0 {
            return;
        }
        peers.append(&mut shared.newcomers.lock());
        let mut values = Vec::new();
        peers.retain(|peer| {
            let value = peer.death_word().load(Ordering::Acquire);
            match robust::state(value) {
                WordState::Alive => values.push(value),
                WordState::Dead => peer.has_died(),
                WordState::Left | WordState::NotYet => {}
            }
            robust::state(value) == WordState::Alive
        });
        let words = peers.iter().zip(values).map(|(peer, value)| (peer.death_word(), value));
        let sleep_on: Vec<(&AtomicU32, u32)> = std::iter::once((&shared.news, seen)).chain(words).collect();
        if futex::wait_any(&sleep_on, None).is_err() {
            // Without futex_waitv (before Linux 5.16) the words are looked at now and then, while there are any.
            let nap = (sleep_on.len() > 1).then_some(LOOK_AT_WORDS_EVERY);
            futex::wait(&shared.news, seen, nap);
        }
    }
}

impl Drop for Marker {
    fn drop(&mut self) {
        if self.thread.lives_elsewhere() {
            return;
        }
        self.shared.stop.store(1, Ordering::Release);
        self.shared.tell();
        self.thread.join();
    }
}

/// A pidfd on this process, for the peers; `None` where the kernel has none.
pub(crate) fn own_pidfd() -> Result<Option<OwnedFd>> {
    match pidfd::open_self() {
        Ok(descriptor) => Ok(Some(descriptor)),
        Err(error) if error.is_not_supported() || error.is_permission_denied() => {
            tracing::debug!(%error, "no pidfd here: deaths are heard of through sockets");
            Ok(None)
        }
        Err(error) => Err(Error::os("opening a pidfd on this process")(error)),
    }
}
