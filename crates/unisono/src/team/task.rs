//! One step's work, handed by the thread that leads to the members of its team.
//!
//! The one invariant that matters: **the work is called only between the opening and the closing of its task**, so that a
//! closure on the leader's stack may be lent to the members. Who may look at it when is decided by
//! [`unisono_protocol::team`], which the models check.

#![allow(unsafe_code)]

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use parking_lot::Mutex;
use unisono_protocol::Ended;
use unisono_protocol::team::{Gate, Team as Words};

use super::share::Share;
use super::waiting::Patience;

/// What is to be done for each share.
type Work<'w> = dyn Fn(Share) + Sync + 'w;

/// The open task.
#[derive(Clone, Copy)]
struct Task {
    work: *const Work<'static>,
    shares: u32,
}

/// The words of a team and the task that they guard.
pub(super) struct Board {
    pub(super) words: Words,
    task: UnsafeCell<Option<Task>>,
    /// Who holds the lock leads.
    lead: Mutex<Lead>,
    /// What a member's share panicked with.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    patience: Patience,
}

/// What the thread that leads knows.
#[derive(Default)]
struct Lead {
    /// The number of the last task.
    number: u64,
    /// Bytes that it dealt with alone, because it would have had to wake the members.
    alone: usize,
}

// SAFETY: the cell is written by the leader alone, of whom there is one at a time (`lead`), while the gate is closed and
// all members who had joined the last task are done; it is read by members who have joined. The words order the two.
// What it points to is `Sync`.
unsafe impl Sync for Board {}
// SAFETY: as above; nothing in it belongs to a thread.
unsafe impl Send for Board {}

impl Board {
    pub(super) fn new(threads: usize, patience: Patience) -> Self {
        Board {
            words: Words::new(threads),
            task: UnsafeCell::new(None),
            lead: Mutex::default(),
            panic: Mutex::new(None),
            patience,
        }
    }

    /// Do `work`, which moves `bytes` bytes, for each of `shares` shares, together with the members that are awake. If
    /// another thread leads just now, or the members sleep and too little has come together to wake them for, do it alone.
    ///
    /// # Panics
    /// With what a member's share panicked with.
    pub(super) fn share_out(&self, shares: u32, bytes: usize, worth_waking: usize, work: &Work<'_>) {
        let Some(mut lead) = self.lead.try_lock() else { return work(Share::WHOLE) };
        if self.words.has_sleepers() {
            lead.alone = lead.alone.saturating_add(bytes);
            if lead.alone < worth_waking {
                drop(lead);
                return work(Share::WHOLE);
            }
        }
        lead.alone = 0;
        lead.number += 1;
        let number = lead.number;
        let work_for_members: *const Work<'_> = work;
        // SAFETY: only the lifetime changes. `Closing` closes the task before this function is left, by whatever way, and
        // waits for all who had joined; afterwards nobody calls the closure.
        let lent: *const Work<'static> = unsafe { std::mem::transmute(work_for_members) };
        // SAFETY: this thread leads, the gate is closed, and who had joined the last task is done: nobody reads the cell.
        unsafe { *self.task.get() = Some(Task { work: lent, shares }) };
        self.words.open(number, &self.patience);
        let closing = Closing { board: self, number };
        self.take_shares(0, shares, work);
        drop(closing);
        if let Some(panic) = self.panic.lock().take() {
            drop(lead);
            resume_unwind(panic);
        }
    }

    /// Take shares until all are taken: first those that this thread had the last time, whose lines its core holds.
    fn take_shares(&self, member: usize, shares: u32, work: &Work<'_>) {
        let first = (member as u64 * u64::from(shares) / self.words.members() as u64) as u32;
        while let Some(share) = self.words.take(first, shares) {
            work(Share::new(share, shares));
            crate::fault::reach("amid_share");
        }
    }

    /// How the threads of this team wait.
    pub(super) fn patience(&self) -> Patience {
        self.patience.clone()
    }

    /// A member: help with the open task, if there is one, then wait for another, or for a [`Board::call`], unless `is_over`.
    ///
    /// # Errors
    /// [`Ended`]: no more tasks will come, or the deadline of `patience` has passed.
    pub(super) fn help_once(
        &self,
        member: usize,
        patience: &mut Patience,
        is_over: impl Fn() -> bool,
    ) -> Result<(), Ended> {
        let number = match self.words.join(member, &self.patience) {
            Gate::Joined(number) => {
                // SAFETY: this member has joined: the leader wrote the cell before it opened the gate, and will not write
                // again before this member is done.
                if let Some(task) = unsafe { *self.task.get() } {
                    // SAFETY: the leader keeps the closure until this member is done.
                    let work = unsafe { &*task.work };
                    let outcome =
                        catch_unwind(AssertUnwindSafe(|| self.take_shares(member, task.shares, work)));
                    if let Err(panic) = outcome {
                        self.panic.lock().get_or_insert(panic);
                    }
                }
                self.words.done(member, number, &self.patience);
                number
            }
            Gate::Closed(number) => number,
        };
        // A call that came before the look at the gate will not come again; what it was for is seen here.
        if is_over() { Ok(()) } else { self.words.wait_for_next(number, patience) }
    }

    /// Make all members look up: what was written before is seen by them.
    pub(super) fn call(&self) {
        let mut lead = self.lead.lock();
        lead.number += 1;
        self.words.call(lead.number, &self.patience);
    }
}

/// Closes a task, also when a share of the leader's panicked.
struct Closing<'b> {
    board: &'b Board,
    number: u64,
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.board.words.close(self.number, &mut self.board.patience());
        if std::thread::panicking() {
            // The caller panics already: a member's panic is not kept for the next task.
            self.board.panic.lock().take();
        }
    }
}
