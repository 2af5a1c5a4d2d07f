//! Knowing who is alive: two threads per process that sleep in the kernel until a peer dies.
//!
//! The **marker** holds this process's death words on its robust list, which the kernel marks when the process dies, before it
//! frees its memory; and it sleeps on the words that the peers hold for this process. The **watcher** sleeps on the
//! peers' pidfds, on the sockets to ranks that have none, and on the door, where it turns latecomers away. Whichever
//! hears first tells every group that the dead process belongs to. Knowledge is per pair of processes: sub-groups
//! share their parent's.
//!
//! The one invariant that matters: **a death is told once per group, and never of a rank that said goodbye.**

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use unisono_os::poll::{self, Waker};
use unisono_os::robust::{self, DeathWords, WordState};
use unisono_os::socket::Connection;
use unisono_os::{futex, pidfd};

use super::members::Members;
use super::rendezvous::door::Door;
use crate::background::Background;
use crate::error::{Error, Result};

/// How often the words are looked at where the kernel cannot sleep on several at once.
const LOOK_AT_WORDS_EVERY: Duration = Duration::from_millis(20);
/// How long the watcher may take to close the door.
const CLOSING_TAKES: Duration = Duration::from_secs(1);

/// A group that wants to know, with the rank in it of each process, by that process's rank in the founding group.
type Told = (Weak<Members>, Vec<Option<usize>>);

/// What the threads and their owner share.
#[derive(Debug)]
struct Shared {
    groups: Mutex<Vec<Told>>,
    /// Processes known to be dead, by their rank in the founding group.
    dead: AtomicU64,
    /// Not 0: the marker is to say goodbye and end. Futex.
    stop_marker: AtomicU32,
    stop_watcher: AtomicBool,
    /// Whether the door is to be closed, and whether it is.
    close_door: AtomicBool,
    door_is_closed: (Mutex<bool>, Condvar),
}

/// The marker: alive from before this process's memory is handed out, so that nobody can miss its death.
#[derive(Debug)]
pub(crate) struct Marker {
    shared: Arc<Shared>,
    peers: mpsc::Sender<Arc<Members>>,
    thread: Background,
}

/// What this process knows about its peers. Dropping it says goodbye.
#[derive(Debug)]
pub(crate) struct Liveness {
    marker: Marker,
    waker: Arc<Waker>,
    watcher: Background,
}

/// How the watcher hears of one peer: through its pidfd, or where there is none through its socket.
#[derive(Debug)]
pub(crate) struct Lifeline {
    pub(crate) rank: usize,
    pub(crate) pidfd: Option<OwnedFd>,
    pub(crate) socket: Option<Connection>,
}

impl Shared {
    /// A process died: tell every group that it belongs to.
    fn tell(&self, process: usize) {
        self.dead.fetch_or(1 << process, Ordering::AcqRel);
        let groups: Vec<(Arc<Members>, usize)> = {
            let mut groups = self.groups.lock();
            groups.retain(|(members, _)| members.strong_count() > 0);
            groups.iter().filter_map(|(members, ranks)| Some((members.upgrade()?, ranks[process]?))).collect()
        };
        for (members, rank) in groups {
            members.note_death(rank);
        }
    }
}

impl Marker {
    /// Put the death words in `memory` (this process's, at `offset`) on a robust list. Where the kernel has none,
    /// pidfds and sockets must do.
    pub(crate) fn start(memory: BorrowedFd<'_>, offset: usize, world: usize) -> Result<Marker> {
        let shared = Arc::new(Shared {
            groups: Mutex::default(),
            dead: AtomicU64::new(0),
            stop_marker: AtomicU32::new(0),
            stop_watcher: AtomicBool::new(false),
            close_door: AtomicBool::new(false),
            door_is_closed: Default::default(),
        });
        let words =
            DeathWords::map(memory, offset as u64, world).map_err(Error::os("mapping the death words"))?;
        let (peers, known) = mpsc::channel();
        let (ready, is_ready) = mpsc::channel();
        let state = Arc::clone(&shared);
        let thread = Background::spawn("unisono-marker", move || mark(&state, &words, &ready, &known))?;
        match is_ready.recv() {
            Ok(Ok(())) => {}
            Ok(Err(error)) if error.is_not_supported() => {
                tracing::debug!(%error, "no robust lists here: deaths are heard of through pidfds");
            }
            Ok(Err(error)) => return Err(Error::os("holding the death words")(error)),
            Err(_) => tracing::warn!("the marker ended early: deaths are heard of through pidfds"),
        }
        Ok(Marker { shared, peers, thread })
    }
}

/// The marker's life: hold the words, wait for a peer's to be marked, say goodbye.
fn mark(
    shared: &Shared,
    words: &DeathWords,
    ready: &mpsc::Sender<std::result::Result<(), unisono_os::OsError>>,
    known: &mpsc::Receiver<Arc<Members>>,
) {
    let held = match words.hold() {
        Ok(held) => {
            let _ = ready.send(Ok(())); // The starter waits for this, or has gone: then the channel below is closed.
            Some(held)
        }
        Err(error) => {
            let _ = ready.send(Err(error));
            None
        }
    };
    if let Ok(members) = known.recv() {
        listen_for_marks(shared, &members);
    }
    if let Some(held) = held {
        held.release();
    }
}

/// Sleep on the peers' words until this process says goodbye.
fn listen_for_marks(shared: &Shared, founders: &Members) {
    let word_of = |peer: usize| founders.memory(peer).death_word(founders.rank);
    let mut watched = founders.peers();
    loop {
        // Acquire: pairs with the release that asked the marker to stop.
        if shared.stop_marker.load(Ordering::Acquire) != 0 {
            return;
        }
        let mut sleep_on = vec![(&shared.stop_marker, 0)];
        for peer in 0..founders.world {
            if watched & (1 << peer) == 0 {
                continue;
            }
            let value = word_of(peer).load(Ordering::Acquire);
            match robust::state(value) {
                WordState::Alive => sleep_on.push((word_of(peer), value)),
                WordState::Dead => {
                    shared.tell(peer);
                    watched &= !(1 << peer);
                }
                WordState::Left | WordState::NotYet => watched &= !(1 << peer),
            }
        }
        if futex::wait_any(&sleep_on, None).is_err() {
            // Without futex_waitv (before Linux 5.16) the words are looked at now and then, while there are any.
            let nap = (sleep_on.len() > 1).then_some(LOOK_AT_WORDS_EVERY);
            futex::wait(&shared.stop_marker, 0, nap);
        }
    }
}

impl Liveness {
    /// Begin to listen for deaths of the founding group's members. The door stays open to turn latecomers away.
    pub(crate) fn start(
        marker: Marker,
        founders: Arc<Members>,
        lifelines: Vec<Lifeline>,
        door: Option<Door>,
    ) -> Result<Arc<Liveness>> {
        let everybody = (0..founders.world).map(Some).collect();
        marker.shared.groups.lock().push((Arc::downgrade(&founders), everybody));
        let waker = Arc::new(Waker::new().map_err(Error::os("making the watcher's wake-up"))?);
        let (shared, wake) = (Arc::clone(&marker.shared), Arc::clone(&waker));
        let watcher = Background::spawn("unisono-watch", move || watch(&shared, &wake, lifelines, door))?;
        if marker.peers.send(founders).is_err() {
            tracing::warn!("the marker has ended: deaths are heard of through pidfds");
        }
        Ok(Arc::new(Liveness { marker, waker, watcher }))
    }

    /// Give the group's name free, so that a new group may have it. Returns once nobody can come in any more.
    pub(crate) fn close_door(&self) {
        let shared = &self.marker.shared;
        shared.close_door.store(true, Ordering::Release);
        self.waker.wake();
        let mut is_closed = shared.door_is_closed.0.lock();
        if !*is_closed {
            shared.door_is_closed.1.wait_for(&mut is_closed, CLOSING_TAKES);
        }
    }

    /// Tell this sub-group, too: `ranks` has, for each process of the founding group, its rank in the sub-group.
    pub(crate) fn also_tell(&self, members: &Arc<Members>, ranks: Vec<Option<usize>>) {
        let shared = &self.marker.shared;
        shared.groups.lock().push((Arc::downgrade(members), ranks.clone()));
        // Who died before the group was known to the threads is told here.
        let dead = shared.dead.load(Ordering::Acquire);
        for (process, rank) in ranks.iter().enumerate() {
            if let Some(rank) = rank.filter(|_| dead & (1 << process) != 0) {
                members.note_death(rank);
            }
        }
    }
}

/// The watcher's life: sleep on pidfds, sockets and the door until told to stop.
fn watch(shared: &Shared, waker: &Waker, mut lifelines: Vec<Lifeline>, mut door: Option<Door>) {
    // Acquire: pairs with the release in `Liveness::drop`.
    while !shared.stop_watcher.load(Ordering::Acquire) {
        let mut descriptors = vec![waker.as_fd()];
        descriptors.extend(lifelines.iter().filter_map(Lifeline::descriptor));
        let lines = descriptors.len();
        if let Some(door) = &door {
            descriptors.extend(door.descriptors());
        }
        let doors = descriptors.len();
        descriptors.extend(door.iter().flat_map(Door::latecomers));
        let patience = door.as_ref().and_then(Door::patience_ends);
        let ready = match poll::until_readable(&descriptors, patience) {
            Ok(ready) => ready,
            Err(error) => {
                tracing::error!(%error, "the watcher cannot wait any more: deaths may be noticed late");
                return;
            }
        };
        drop(descriptors);
        if ready[0].any() {
            waker.drain();
        }
        // Acquire: pairs with the release in `Liveness::close_door`.
        if shared.close_door.load(Ordering::Acquire) {
            door = None;
            *shared.door_is_closed.0.lock() = true;
            shared.door_is_closed.1.notify_all();
        }
        let knocked = ready[lines..doors].iter().any(|ready| ready.any());
        if door.as_mut().is_some_and(|door| !door.turn_away(knocked)) {
            door = None;
        }
        let mut at = 1;
        lifelines.retain(|lifeline| {
            let is_cut = lifeline.descriptor().is_some() && ready[at].any();
            at += usize::from(lifeline.descriptor().is_some());
            if is_cut {
                shared.tell(lifeline.rank);
            }
            !is_cut
        });
    }
}

impl Lifeline {
    /// A pidfd knows best: a socket may be held open by a forked child, or closed by a living process.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match (&self.pidfd, &self.socket) {
            (Some(pidfd), _) => Some(pidfd.as_fd()),
            (None, Some(socket)) => Some(socket.as_fd()),
            (None, None) => None,
        }
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

impl Drop for Liveness {
    fn drop(&mut self) {
        if self.watcher.lives_elsewhere() {
            return;
        }
        self.marker.shared.stop_watcher.store(true, Ordering::Release);
        self.waker.wake();
        self.watcher.join();
    }
}

impl Drop for Marker {
    fn drop(&mut self) {
        if self.thread.lives_elsewhere() {
            return;
        }
        // Closing the channel ends a marker that never got to know its peers.
        self.peers = mpsc::channel().0;
        self.shared.stop_marker.store(1, Ordering::Release);
        futex::wake_all(&self.shared.stop_marker);
        self.thread.join();
    }
}
