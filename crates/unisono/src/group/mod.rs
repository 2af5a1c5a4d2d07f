//! A group of ranks that have met: their memories, their steps, and how it ends.
//!
//! Two backends bring ranks together ([`backend`]): processes, whose memories are memfds handed over a socket, and
//! threads of one process. From here up nobody knows which. A [`Group`] is what one rank holds; it lives until
//! the last handle of the communicator is dropped, and then says goodbye.
//!
//! The one invariant that matters: **after a terminal error every call returns it.** Whoever meets one first
//! writes down the cause for the others, stops the group, and remembers the error for this rank.

pub(crate) mod allocation;
pub(crate) mod backend;
pub(crate) mod backlog;
pub(crate) mod cause;
pub(crate) mod header;
pub(crate) mod inquiry;
pub(crate) mod layout;
pub(crate) mod loopback;
pub(crate) mod members;
pub(crate) mod rendezvous;
pub(crate) mod shared_memory;
pub(crate) mod waiter;
pub(crate) mod watch;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use unisono_os::fork_guard::ForkMark;
use unisono_protocol::Ended;

use crate::cadence::Cadence;
use crate::call::Call;
use crate::collectives::point_to_point::Side;
use crate::collectives::swap::pauses_before_tags;
use crate::error::{BoxedResult, Error, PeerStatus};
use crate::interrupt;
use crate::parameters::{MAX_WORLD_SIZE, Parameters};
use crate::team::Sharing;
use backend::Backend;
use backlog::{Backlog, CLOSED, ENDED};
use cause::Cause;
use layout::Layout;
use loopback::Loopback;
use members::{Members, Situation};

/// How far this rank has come, and which staging it used when. Steps count from 1; 0 says never.
#[derive(Debug)]
pub(crate) struct Steps {
    /// The steps that this rank has taken, and what it knows of the others'.
    pub(crate) taken: unisono_protocol::Steps,
    /// The number of the last call.
    pub(crate) calls: u64,
    /// The fingerprint of all calls so far.
    pub(crate) history: u64,
    /// How often the swap regions were used.
    pub(crate) swap_uses: u64,
    /// Per peer and region (0: in the peer's memory, 1: in the own): when this rank last wrote it.
    pub(crate) swap_written: [[u64; 2]; MAX_WORLD_SIZE],
    /// Per reducer and half of the slot there: when this rank last wrote it.
    pub(crate) migrate_written: [[u64; 2]; MAX_WORLD_SIZE],
    /// How many broadcast pieces there were.
    pub(crate) broadcast_uses: u64,
    /// Per buffer: when this rank, as root, last wrote it.
    pub(crate) broadcast_written: [u64; 2],
    /// How long this rank has waited for others lately.
    pub(crate) cadence: Cadence,
    /// The threads that share the work of a step.
    pub(crate) sharing: Sharing,
}

impl Steps {
    fn new() -> Self {
        Steps {
            taken: unisono_protocol::Steps::new(),
            calls: 0,
            history: 0,
            swap_uses: 0,
            swap_written: [[0; 2]; MAX_WORLD_SIZE],
            migrate_written: [[0; 2]; MAX_WORLD_SIZE],
            broadcast_uses: 0,
            broadcast_written: [0; 2],
            cadence: Cadence::new(&waiter::LOOKS),
            sharing: Sharing::default(),
        }
    }
}

/// What one rank holds of a group.
///
/// Its lines are its own: ranks that are threads of one process have their groups side by side on the heap.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) parameters: Parameters,
    pub(crate) layout: Arc<Layout>,
    pub(crate) members: Arc<Members>,
    /// Whether ranks outnumber the cores they may use.
    pub(crate) crowded: bool,
    /// Pauses before the first look for a tag; see [`pauses_before_tags`].
    pub(crate) pauses_before_tags: u32,
    pub(crate) outgoing: Vec<Mutex<Side>>,
    pub(crate) incoming: Vec<Mutex<Side>>,
    pub(crate) loopback: Loopback,
    pub(crate) backend: Backend,
    steps: Mutex<Steps>,
    sharing: Mutex<Sharing>,
    transfers: Mutex<u64>,
    ended: OnceLock<Error>,
    pub(crate) backlog: Arc<Backlog>,
    splits: AtomicU64,
    /// How many allocations there were; locked by the one under way.
    allocations: Mutex<u64>,
    born: ForkMark,
    parent: u32,
}

/// What a backend has brought together.
pub(crate) struct Assembled {
    pub(crate) name: String,
    pub(crate) parameters: Parameters,
    pub(crate) layout: Arc<Layout>,
    pub(crate) members: Arc<Members>,
    pub(crate) crowded: bool,
    pub(crate) backend: Backend,
}

impl Group {
    pub(crate) fn new(assembled: Assembled) -> Self {
        let Assembled { name, parameters, layout, members, crowded, backend } = assembled;
        let world = members.world;
        let sides = || (0..world).map(|_| Mutex::new(Side::default())).collect::<Vec<_>>();
        Group {
            name,
            parameters,
            layout,
            crowded,
            pauses_before_tags: pauses_before_tags(),
            outgoing: sides(),
            incoming: sides(),
            loopback: Loopback::default(),
            backend,
            steps: Mutex::new(Steps::new()),
            sharing: Mutex::default(),
            transfers: Mutex::new(0),
            ended: OnceLock::new(),
            backlog: Arc::default(),
            splits: AtomicU64::new(0),
            allocations: Mutex::new(0),
            born: ForkMark::now(),
            parent: unisono_os::process::pid(),
            members,
        }
    }

    /// See that this rank may use the communicator at all.
    #[inline]
    pub(crate) fn enter(&self, operation: &'static str) -> BoxedResult<()> {
        self.check_process(operation)?;
        let state = self.backlog.state.load(Ordering::Acquire);
        if state & (CLOSED | ENDED) == 0 { Ok(()) } else { Err(self.refuse(state, operation)) }
    }

    /// The same for a collective, which comes after the asynchronous ones that were started before it.
    #[inline(always)]
    pub(crate) fn enter_in_turn(
        &self,
        operation: &'static str,
        timeout: Option<Duration>,
    ) -> BoxedResult<()> {
        self.check_process(operation)?;
        // Acquire: pairs with the releases in `Backlog::add`, `leave` and `end_with`.
        let state = self.backlog.state.load(Ordering::Acquire);
        if state == 0 { Ok(()) } else { self.heed(state, operation, timeout) }
    }

    /// Enter in turn and take the lock that puts the collectives of several threads in order.
    #[inline(always)]
    pub(crate) fn take_steps(
        &self,
        operation: &'static str,
        timeout: Option<Duration>,
    ) -> BoxedResult<MutexGuard<'_, Steps>> {
        self.enter_in_turn(operation, timeout)?;
        let steps = lock(&self.steps, operation, timeout)?;
        // Another thread may have ended the group, or left it, while this one waited for the lock.
        let state = self.backlog.state.load(Ordering::Acquire);
        if state & (CLOSED | ENDED) == 0 { Ok(steps) } else { Err(self.refuse(state, operation)) }
    }

    #[cold]
    fn heed(&self, state: u32, operation: &'static str, timeout: Option<Duration>) -> BoxedResult<()> {
        if state & (CLOSED | ENDED) != 0 {
            return Err(self.refuse(state, operation));
        }
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let is_stopped = || self.members.is_stopped();
        self.backlog.wait_for_turn(deadline, is_stopped, || check_patience(operation, timeout, deadline))?;
        // One of those that it waited for may have ended the group.
        self.enter(operation)
    }

    /// Why no call can be made in this state.
    #[cold]
    fn refuse(&self, state: u32, operation: &'static str) -> Box<Error> {
        match self.ended.get() {
            Some(error) if state & CLOSED == 0 => Box::new(error.clone()),
            _ => Box::new(Error::Closed { operation }),
        }
    }

    /// See that this process is not a forked child of the one that made the communicator.
    #[inline(always)]
    pub(crate) fn check_process(&self, operation: &'static str) -> BoxedResult<()> {
        if self.born.crossed_fork() {
            return Err(Box::new(Error::Forked { operation, parent: self.parent }));
        }
        Ok(())
    }

    /// The threads that share the work of this rank's steps; a forked child has none.
    pub(crate) fn sharing(&self) -> Sharing {
        if self.born.crossed_fork() {
            return Sharing::default(); // A thread that does not exist may hold the lock.
        }
        self.sharing.lock().clone()
    }

    /// Change who shares the work of this rank's steps, between two collectives.
    pub(crate) fn change_sharing(
        &self,
        timeout: Option<Duration>,
        change: impl FnOnce(&mut Sharing),
    ) -> BoxedResult<()> {
        let operation = "changing the threads";
        self.check_process(operation)?;
        let mut steps = lock(&self.steps, operation, timeout)?;
        let mut sharing = self.sharing.lock();
        let before = sharing.clone();
        change(&mut sharing);
        steps.sharing = sharing.clone();
        drop((sharing, steps));
        // Threads that are not needed any more are waited for, now that the locks are free.
        drop(before);
        Ok(())
    }

    /// The lock that puts the sends to (or receives from) one peer in order.
    pub(crate) fn lock_side<'g>(
        &self,
        operation: &'static str,
        side: &'g Mutex<Side>,
        timeout: Option<Duration>,
    ) -> BoxedResult<MutexGuard<'g, Side>> {
        lock(side, operation, timeout)
    }

    /// The lock that puts allocations in order, with their number.
    pub(crate) fn lock_allocations(
        &self,
        operation: &'static str,
        timeout: Option<Duration>,
    ) -> BoxedResult<MutexGuard<'_, u64>> {
        lock(&self.allocations, operation, timeout)
    }

    /// The number of the next split; the same on all ranks, because they split in the same order.
    pub(crate) fn next_split(&self) -> u64 {
        self.splits.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Show a send or recv in this rank's record.
    pub(crate) fn note_transfer(&self, call: Call) -> u64 {
        let mut transfers = self.transfers.lock();
        *transfers += 1;
        self.members.own().header().transfers.begin(*transfers, call.pack());
        *transfers
    }

    /// The transfer came to its end; the record shows it unless another one began since.
    pub(crate) fn note_transfer_end(&self, number: u64) {
        let transfers = self.transfers.lock();
        if *transfers == number {
            let header = self.members.own().header();
            header.transfers.finish(number);
            // It has waited for long, or nobody would know of a step in this call.
            if header.last_step().is_some() {
                header.note_step();
            }
        }
    }

    /// A wait ended without its peers: tell the others why, and remember it.
    #[cold]
    pub(crate) fn end_wait(&self, ended: Ended, at: Situation) -> Box<Error> {
        match ended {
            Ended::Aborted(missing) => {
                let error = self.members.explain(missing, at);
                if let Error::PeerLeft { rank, .. } = error {
                    self.members.stop(Cause::PeerLeft { rank });
                }
                self.end_with(error)
            }
            Ended::TimedOut(_) if at.interrupted => {
                self.members.stop(Cause::Aborted);
                self.end_with(interrupted(at, true))
            }
            Ended::TimedOut(missing) => {
                self.members.stop(Cause::Timeout { missing, waited: at.waited });
                self.end_with(self.timed_out(missing, at, true))
            }
        }
    }

    /// A send or recv ended without its peer. A time-out before anything had moved leaves the pair as it was, and so does the
    /// news that the peer has left, which is between these two; everything else ends the communicator.
    #[cold]
    pub(crate) fn end_transfer(&self, ended: Ended, at: Situation, moved: bool) -> Box<Error> {
        match ended {
            Ended::TimedOut(_) if !moved && at.interrupted => Box::new(interrupted(at, false)),
            Ended::TimedOut(missing) if !moved => Box::new(self.timed_out(missing, at, false)),
            Ended::Aborted(missing) if !moved => match self.members.only_left(missing, at) {
                Some(left) => Box::new(left),
                None => self.end_wait(ended, at),
            },
            ended => self.end_wait(ended, at),
        }
    }

    /// The error of a deadline that passed.
    fn timed_out(&self, missing: u64, at: Situation, terminal: bool) -> Error {
        Error::Timeout {
            call: at.call,
            number: at.number,
            waited: at.waited,
            peers: self.members.statuses(missing),
            reported_by: None,
            terminal,
        }
    }

    /// Remember a terminal error; the first one stays.
    #[cold]
    pub(crate) fn end_with(&self, error: Error) -> Box<Error> {
        let error = Box::new(self.ended.get_or_init(|| error).clone());
        self.backlog.state.fetch_or(ENDED, Ordering::AcqRel);
        error
    }

    /// What each rank is and last did. The memory that says what it did is not mapped in a forked child.
    pub(crate) fn peers(&self) -> Vec<PeerStatus> {
        if self.born.crossed_fork() { self.members.identities() } else { self.members.statuses(u64::MAX) }
    }

    /// Stop the group from any thread.
    pub(crate) fn abort(&self) {
        if !self.born.crossed_fork() {
            self.members.stop(Cause::Aborted);
            self.backlog.wake();
        }
    }

    /// Say goodbye. From here on this rank's calls fail, and a peer that still needs it gets `PeerLeft`.
    pub(crate) fn leave(&self) {
        if self.backlog.state.fetch_or(CLOSED, Ordering::AcqRel) & CLOSED == 0 && !self.born.crossed_fork() {
            self.members.leave();
            self.give_name_free();
        }
    }

    /// Let another group have this one's name. Nobody can come to this one anyway.
    pub(crate) fn give_name_free(&self) {
        if !self.born.crossed_fork() {
            self.backend.close_door(self.members.rank);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.leave();
    }
}

#[inline(always)]
fn lock<'m, T>(
    mutex: &'m Mutex<T>,
    operation: &'static str,
    timeout: Option<Duration>,
) -> BoxedResult<MutexGuard<'m, T>> {
    match mutex.try_lock() {
        Some(guard) => Ok(guard),
        None => wait_for_lock(mutex, operation, timeout),
    }
}

#[cold]
fn wait_for_lock<'m, T>(
    mutex: &'m Mutex<T>,
    operation: &'static str,
    timeout: Option<Duration>,
) -> BoxedResult<MutexGuard<'m, T>> {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        let locked = match interrupt::next_question(deadline) {
            None => Some(mutex.lock()),
            Some(until) => mutex.try_lock_until(until),
        };
        if let Some(guard) = locked {
            return Ok(guard);
        }
        check_patience(operation, timeout, deadline)?;
    }
}

/// A wait for other calls of this rank goes on while there is time and the thread wants it to.
fn check_patience(
    operation: &'static str,
    timeout: Option<Duration>,
    deadline: Option<Instant>,
) -> BoxedResult<()> {
    if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
        return Err(Box::new(Error::Busy { operation, waited: timeout.unwrap_or_default() }));
    }
    if interrupt::is_requested() {
        return Err(Box::new(Error::Interrupted { operation, terminal: false }));
    }
    Ok(())
}

/// The error of a call whose own thread asked for the end of its wait.
fn interrupted(at: Situation, terminal: bool) -> Error {
    Error::Interrupted { operation: at.call.operation.name(), terminal }
}
