//! Several threads per rank: a team shares the copying and reducing of each step of a collective.
//!
//! The protocol stays the rank's: one thread publishes and waits, and between two such points it hands the step's work out
//! in shares ([`share`]) and goes on when all are done. So an arrival is posted after all threads of a rank have left the
//! previous step, ranks may have different numbers of threads, and nobody but this rank knows. The split changes no bits.
//!
//! A team's threads are the library's own (`Builder::threads`), which sleep between collectives, or the caller's
//! ([`Team`]), for engines that have a pool of their own.
//!
//! | file | what |
//! |---|---|
//! | [`share`] | which part of every buffer a share is |
//! | [`task`] | one step's work, lent to the members while it is open |
//! | [`callers`] | the caller's own threads, entering together |
//! | [`waiting`] | how threads of a team pass their time |
//!
//! The one invariant that matters: **nobody waits for a thread that has not taken up work**, so a team is hardly slower than
//! one thread where its members are asleep, late, or without a processor.

mod callers;
pub(crate) mod share;
mod task;
mod waiting;

use std::fmt;
use std::sync::Arc;

use unisono_os::cpu;
use unisono_protocol::team::{MOST_MEMBERS, MOST_SHARES};

use crate::background::Background;
use crate::error::{Error, Result};
use crate::memory::LINE;
pub use callers::Team;
use share::Share;
use task::Board;
use waiting::Patience;

/// The default of [`Sharing::worth`]: below, waking and joining threads cost more than they save.
const DEFAULT_WORTH: usize = 128 * 1024;
/// Members that sleep are woken once this many times the smallest work that is worth sharing has been done without them, in
/// one step or several: a wake-up costs some 20 µs on a virtual machine, as much as copying a mebibyte.
const WORTH_WAKING: usize = 16;
/// Shares into which the smallest work is cut that is worth sharing.
const SHARES_WORTH: usize = 8;
/// Shares per thread, so that a fast thread takes over from a slow one.
const SHARES_PER_THREAD: usize = 2;

/// Who shares the work of a rank's steps.
#[derive(Clone, Debug)]
pub(crate) struct Sharing {
    /// The threads, if there are several.
    pub(crate) threads: Option<Threads>,
    /// A step that moves less than this many bytes is done by the calling thread alone.
    pub(crate) worth: usize,
}

impl Default for Sharing {
    fn default() -> Self {
        Sharing { threads: None, worth: DEFAULT_WORTH }
    }
}

/// Threads that share the steps of one rank: the library's own or the caller's.
#[derive(Clone)]
pub(crate) struct Threads {
    board: Arc<Board>,
    /// Of the library's own; dropped with the last handle.
    helpers: Option<Arc<Helpers>>,
}

/// Threads of the library's own.
struct Helpers {
    board: Arc<Board>,
    threads: Vec<Background>,
}

impl Threads {
    /// The calling thread and `threads - 1` of the library's own, for one of `ranks` ranks on this machine.
    pub(crate) fn start(threads: usize, ranks: usize) -> Result<Threads> {
        check_threads(threads)?;
        let allowed = cpu::allowed_cpus();
        // A rank that was given processors of its own shares them with no other.
        let apart = cpu::online_cpus() > allowed.len();
        let on_these = if apart { threads } else { threads * ranks };
        let beyond_quota = cpu::quota().is_some_and(|quota| quota < (threads * ranks) as f64);
        let crowded = on_these > allowed.len() || beyond_quota;
        let board = Arc::new(Board::new(threads, Patience::new(crowded)));
        let mut helpers = Helpers { board: Arc::clone(&board), threads: Vec::new() };
        for member in 1..threads {
            let seat = (apart && allowed.len() >= threads).then(|| allowed[member]);
            let board = Arc::clone(&board);
            helpers.threads.push(Background::spawn("unisono-team", move || help(&board, member, seat))?);
        }
        Ok(Threads { board, helpers: Some(Arc::new(helpers)) })
    }

    /// How many threads there are, the one that calls included.
    pub(crate) fn count(&self) -> usize {
        self.board.words.members()
    }

    /// Do `work`, which moves `bytes` bytes, in shares; `worth` bytes and more are worth sharing.
    pub(crate) fn share_out(&self, bytes: usize, worth: usize, work: &(dyn Fn(Share) + Sync)) {
        let most = (self.count() * SHARES_PER_THREAD).min(MOST_SHARES as usize);
        let least = (worth / SHARES_WORTH).max(LINE);
        let shares = (bytes / least).clamp(1, most);
        self.board.share_out(shares as u32, bytes, worth.saturating_mul(WORTH_WAKING), work);
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Threads")
            .field("count", &self.count())
            .field("own", &self.helpers.is_some())
            .finish_non_exhaustive()
    }
}

/// A helper's life: help until the team is dissolved.
fn help(board: &Board, member: usize, seat: Option<usize>) {
    if let Some(seat) = seat
        && let Err(error) = cpu::pin_current_thread(&[seat])
    {
        tracing::debug!(%error, "a thread of the team runs where the system likes");
    }
    let mut patience = board.patience();
    while board.help_once(member, &mut patience, || false).is_ok() {}
}

impl Drop for Helpers {
    fn drop(&mut self) {
        if self.threads.iter().any(Background::lives_elsewhere) {
            return;
        }
        self.board.words.dissolve(&self.board.patience());
        self.threads.iter_mut().for_each(Background::join);
    }
}

/// Refuse numbers of threads that a team cannot have.
pub(crate) fn check_threads(threads: usize) -> Result<()> {
    if (1..=MOST_MEMBERS).contains(&threads) {
        return Ok(());
    }
    Err(Error::Setting {
        name: "threads".to_string(),
        value: threads.to_string(),
        problem: format!("expected 1 to {MOST_MEMBERS} threads per rank"),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn members_that_sleep_are_woken_and_help() {
        let threads = Threads::start(3, 1).unwrap();
        // Each share ends only when all three threads are inside of one.
        let all = Barrier::new(3);
        for _ in 0..100 {
            let inside = AtomicUsize::new(0);
            threads.share_out(4096, 64, &|_| {
                if inside.fetch_add(1, Ordering::Relaxed) < 3 {
                    all.wait();
                }
            });
            assert_eq!(inside.load(Ordering::Relaxed), 6);
        }
    }

    #[test]
    fn a_panic_in_any_share_is_one_of_the_caller_and_the_team_lives_on() {
        let threads = Threads::start(2, 1).unwrap();
        let both = Barrier::new(2);
        for culprit in [0, 1] {
            let order = AtomicUsize::new(0);
            let panicking = || {
                threads.share_out(1 << 20, 1 << 16, &|_| {
                    let turn = order.fetch_add(1, Ordering::Relaxed);
                    if turn < 2 {
                        both.wait();
                    }
                    let own = std::thread::current().name() != Some("unisono-team");
                    assert!(turn >= 2 || own == (culprit == 1), "as the test wants it");
                });
            };
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panicking)).is_err());
        }
        let shares = AtomicUsize::new(0);
        threads.share_out(1 << 20, 1 << 16, &|_| {
            shares.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(shares.load(Ordering::Relaxed), 4);
    }

    #[test]
    fn two_that_lead_at_once_do_not_wait_for_each_other() {
        let threads = Threads::start(2, 1).unwrap();
        let both_lead = Barrier::new(2);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    threads.share_out(0, 64, &|_| {
                        both_lead.wait();
                    })
                });
            }
        });
    }
}
