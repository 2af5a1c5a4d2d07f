//! Knowing who is alive: two threads per process that sleep in the kernel until a peer dies.
//!
//! The **marker** (see [`crate::marker`]) lets the peers know of this process's death and sleeps on the words that they
//! hold for this process. The **watcher** sleeps on the peers' pidfds, on the sockets to ranks that have none, on
//! the door, where it turns latecomers away, and at the [desk](Desk), where it says how things stand. Whichever
//! hears first tells every group that the dead process belongs to. Knowledge is per pair of processes: sub-groups
//! share their parent's.
//!
//! The one invariant that matters: **a death is told once per group, and never of a rank that said goodbye.**

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use unisono_os::poll::{self, Waker};
use unisono_os::socket::Connection;

use super::inquiry::{Desk, GroupSeen};
use super::members::Members;
use super::rendezvous::door::Door;
use crate::background::Background;
use crate::error::{Error, Result};
use crate::marker::{Marker, Mortal};

/// How long the watcher may take to close the door.
const CLOSING_TAKES: Duration = Duration::from_secs(1);

/// A group that wants to know.
#[derive(Debug)]
struct Told {
    members: Weak<Members>,
    /// The rank in it of each process, by that process's rank in the founding group.
    ranks: Vec<Option<usize>>,
    name: GroupName,
}

/// What a group is called, for people, and the number that no other group has.
#[derive(Clone, Debug)]
pub(crate) struct GroupName {
    pub(crate) name: String,
    pub(crate) nonce: u64,
}

/// What the threads and their owner share.
#[derive(Debug, Default)]
struct Shared {
    groups: Mutex<Vec<Told>>,
    /// Processes known to be dead, by their rank in the founding group.
    dead: AtomicU64,
    stop_watcher: AtomicBool,
    /// Whether the door is to be closed, and whether it is.
    close_door: AtomicBool,
    door_is_closed: (Mutex<bool>, Condvar),
}

/// What this process knows about its peers. Dropping it says goodbye.
#[derive(Debug)]
pub(crate) struct Liveness {
    shared: Arc<Shared>,
    /// Says goodbye when it is dropped, after the watcher has ended.
    _marker: Marker,
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
            groups.retain(|told| told.members.strong_count() > 0);
            groups.iter().filter_map(|told| Some((told.members.upgrade()?, told.ranks[process]?))).collect()
        };
        for (members, rank) in groups {
            members.note_death(rank);
        }
    }

    /// How the groups stand in which this process still takes part.
    fn seen(&self) -> Vec<GroupSeen> {
        let mut groups = self.groups.lock();
        groups.retain(|told| told.members.strong_count() > 0);
        let seen = |told: &Told| GroupSeen::of(&*told.members.upgrade()?, &told.name.name, told.name.nonce);
        groups.iter().filter_map(seen).collect()
    }
}

/// A peer of the founding group, for the marker.
#[derive(Debug)]
struct Founder {
    founders: Arc<Members>,
    rank: usize,
    shared: Arc<Shared>,
}

impl Mortal for Founder {
    fn death_word(&self) -> &AtomicU32 {
        self.founders.memory(self.rank).death_word(self.founders.rank)
    }

    fn has_died(&self) {
        self.shared.tell(self.rank);
    }
}

impl Liveness {
    /// Begin to listen for deaths of the founding group's members. The door stays open to turn latecomers away.
    pub(crate) fn start(
        marker: Marker,
        founders: Arc<Members>,
        name: GroupName,
        lifelines: Vec<Lifeline>,
        door: Option<Door>,
        desk: Desk,
    ) -> Result<Arc<Liveness>> {
        let shared = Arc::<Shared>::default();
        let ranks = (0..founders.world).map(Some).collect();
        shared.groups.lock().push(Told { members: Arc::downgrade(&founders), ranks, name });
        let waker = Arc::new(Waker::new().map_err(Error::os("making the watcher's wake-up"))?);
        let (watched, wake) = (Arc::clone(&shared), Arc::clone(&waker));
        let watcher =
            Background::spawn("unisono-watch", move || watch(&watched, &wake, lifelines, door, desk))?;
        for rank in (0..founders.world).filter(|rank| *rank != founders.rank) {
            let (founders, shared) = (Arc::clone(&founders), Arc::clone(&shared));
            marker.listen_for(Arc::new(Founder { founders, rank, shared }));
        }
        Ok(Arc::new(Liveness { shared, _marker: marker, waker, watcher }))
    }

    /// Give the group's name free, so that a new group may have it. Returns once nobody can come in any more.
    pub(crate) fn close_door(&self) {
        let shared = &self.shared;
        shared.close_door.store(true, Ordering::Release);
        self.waker.wake();
        let mut is_closed = shared.door_is_closed.0.lock();
        if !*is_closed {
            shared.door_is_closed.1.wait_for(&mut is_closed, CLOSING_TAKES);
        }
    }

    /// Tell this sub-group, too: `ranks` has, for each process of the founding group, its rank in the sub-group.
    pub(crate) fn also_tell(&self, members: &Arc<Members>, name: GroupName, ranks: Vec<Option<usize>>) {
        let shared = &self.shared;
        let told = Told { members: Arc::downgrade(members), ranks: ranks.clone(), name };
        shared.groups.lock().push(told);
        // Who died before the group was known to the threads is told here.
        let dead = shared.dead.load(Ordering::Acquire);
        for (process, rank) in ranks.iter().enumerate() {
            if let Some(rank) = rank.filter(|_| dead & (1 << process) != 0) {
                members.note_death(rank);
            }
        }
    }
}

/// The watcher's life: sleep on pidfds, sockets, the door and the desk until told to stop.
fn watch(
    shared: &Shared,
    waker: &Waker,
    mut lifelines: Vec<Lifeline>,
    mut door: Option<Door>,
    mut desk: Desk,
) {
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
        let desks = descriptors.len();
        descriptors.extend(desk.descriptors());
        let patience = [door.as_ref().and_then(Door::patience_ends), desk.patience_ends()];
        let patience = patience.into_iter().flatten().min();
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
        let lines_before = lifelines.len();
        lifelines.retain(|lifeline| {
            let is_cut = lifeline.descriptor().is_some() && ready[at].any();
            at += usize::from(lifeline.descriptor().is_some());
            if is_cut {
                shared.tell(lifeline.rank);
            }
            !is_cut
        });
        // What the dead left behind can wait until all deaths are told.
        if lifelines.len() < lines_before {
            desk.sweep();
        }
        // Deaths come first. Nobody at the desk, and no patience that has ended: nothing to do there.
        let is_due = desk.patience_ends().is_some_and(|until| Instant::now() >= until);
        if is_due || ready[desks..].iter().any(|ready| ready.any()) {
            desk.serve(|| shared.seen());
        }
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

impl Drop for Liveness {
    fn drop(&mut self) {
        if self.watcher.lives_elsewhere() {
            return;
        }
        self.shared.stop_watcher.store(true, Ordering::Release);
        self.waker.wake();
        self.watcher.join();
    }
}
