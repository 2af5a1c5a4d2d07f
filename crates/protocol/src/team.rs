//! The threads of one rank that share a task: one leads, the others join if they are awake.
//!
//! The leader writes the task down, opens it, works on it like everybody else, closes it, and waits for those
//! who had joined. Nobody waits for a member that sleeps or is late: it finds the gate closed and never looks at the task.
//! So a team is never slower than its leader alone, but for the price of opening and closing.
//!
//! ```text
//!   gate    63 ............ 32   31 ............ 1    0
//!          +------------------+--------------------+------+
//!          | number of a task | members who joined | OPEN |
//!          +------------------+--------------------+------+
//! ```
//!
//! The one invariant that matters: **whoever touches a task has joined it while it was open, and the leader does not
//! return before all who joined are done.** Joining is one compare-and-swap on the gate, closing one swap: of the two
//! one comes first, and either the leader waits for the member or the member stays out.
//!
//! The leader is a thread at a time, in the order of a lock of the caller's. Nothing of this lies in memory that ranks
//! share.

use crate::atomics::{AtomicU64, Ordering};
use crate::sequence::Sequence;
use crate::waiting::{Ended, Wait, wait_until};
use crate::word::{Futex, Word};

/// The most threads in a team, the leader included.
pub const MOST_MEMBERS: usize = 32;
/// The most shares of a task.
pub const MOST_SHARES: u32 = 64;

const OPEN: u64 = 1;
const MEMBERS: u64 = 0xffff_fffe;
const NUMBER: u32 = 32;

/// How far a member's word may be behind the tasks before it is brought up: far less than half the range of a sequence.
const FAR_BEHIND: u64 = 1 << 24;

/// What others write often stands alone: in a pair of cache lines, as processors fetch them.
#[derive(Debug)]
#[repr(align(128))]
struct Alone<T>(T);

/// The words of a team. Members are 1, 2, …; 0 is the leader.
#[derive(Debug)]
pub struct Team {
    /// The number of the task opened last, for members to wait on. ABORT: the team is dissolved.
    tasks: Alone<Word>,
    gate: Alone<AtomicU64>,
    /// One bit for each share of the open task that somebody has taken.
    taken: Alone<AtomicU64>,
    /// Per member: the last task that it joined and is done with.
    done: Vec<Alone<Word>>,
}

/// What a member found at the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// It has joined this task and may take shares of it.
    Joined(u64),
    /// There is nothing to join before the task after this one.
    Closed(u64),
}

impl Team {
    /// A team of this many threads, the leader included; no more than [`MOST_MEMBERS`].
    pub fn new(members: usize) -> Self {
        Team {
            tasks: Alone(Word::new(0)),
            gate: Alone(AtomicU64::new(0)),
            taken: Alone(AtomicU64::new(0)),
            done: (0..members.clamp(1, MOST_MEMBERS)).map(|_| Alone(Word::new(0))).collect(),
        }
    }

    /// How many threads there are, the leader included.
    pub fn members(&self) -> usize {
        self.done.len()
    }

    /// The words that a thread of the team may sleep on.
    pub fn words(&self) -> impl Iterator<Item = &Word> {
        std::iter::once(&self.tasks.0).chain(self.done.iter().map(|done| &done.0))
    }

    /// Leader: whether members sleep, so that opening a task costs a wake-up.
    pub fn has_sleepers(&self) -> bool {
        self.tasks.0.look().has_sleepers()
    }

    /// Leader: open task `number`, the one after the last, which it has written down. Wakes those who sleep.
    pub fn open(&self, number: u64, futex: &impl Futex) {
        // Relaxed: who took shares of the task before is done (`close` has seen it); who joins this one acquires the gate.
        self.taken.0.store(0, Ordering::Relaxed);
        // Release: pairs with the compare-and-swap in `join`. Members that join meanwhile only add to this value, so
        // whoever joins after them sees the task, too.
        self.gate.0.store(number << NUMBER | OPEN, Ordering::Release);
        self.tasks.0.publish(number, futex);
    }

    /// Leader: let nobody join any more, and wait for those who have. What they wrote is seen from here on.
    pub fn close(&self, number: u64, wait: &mut impl Wait) {
        // Acquire: pairs with `join`; a member's word is not older than it was when the member joined.
        let joined = self.gate.0.swap(number << NUMBER, Ordering::AcqRel) & MEMBERS;
        // Nobody sets ABORT in these words, and a deadline would leave a member with a task that is gone: wait again.
        while wait_until(joined, number, |member| &self.done[member].0, wait).is_err() {}
    }

    /// Leader: make all members look up, without a task. `number` is the one after the last task's.
    pub fn call(&self, number: u64, futex: &impl Futex) {
        self.gate.0.store(number << NUMBER, Ordering::Release);
        self.tasks.0.publish(number, futex);
    }

    /// Whoever has joined, and the leader: take a share of `shares`, beginning to look at `first`; `None` once all are
    /// taken.
    pub fn take(&self, first: u32, shares: u32) -> Option<u32> {
        let shares = shares.min(MOST_SHARES);
        let all = u64::MAX >> (MOST_SHARES - shares.max(1));
        loop {
            // Relaxed: a share is taken by the one whose `fetch_or` came first, and brings nothing with it.
            let free = !self.taken.0.load(Ordering::Relaxed) & all;
            let from_first = free & (u64::MAX << (first % MOST_SHARES));
            let candidates = if from_first == 0 { free } else { from_first };
            if candidates == 0 {
                return None;
            }
            let share = candidates.trailing_zeros();
            if self.taken.0.fetch_or(1 << share, Ordering::Relaxed) & (1 << share) == 0 {
                return Some(share);
            }
        }
    }

    /// Member: join the open task, unless it is closed or this member has joined it before.
    pub fn join(&self, member: usize, futex: &impl Futex) -> Gate {
        let bit = 1 << member;
        // Acquire: pairs with `call`; what the leader wrote down before it called is seen by who finds its number here.
        let mut gate = self.gate.0.load(Ordering::Acquire);
        loop {
            let number = gate >> NUMBER;
            if gate & OPEN == 0 || gate & bit != 0 {
                return Gate::Closed(number);
            }
            self.bring_up(member, number, futex);
            // Acquire: pairs with the store in `open`. Release: the word that was brought up goes with the bit.
            match self.gate.0.compare_exchange(gate, gate | bit, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Gate::Joined(number),
                Err(found) => gate = found,
            }
        }
    }

    /// Sequence numbers wrap: the word of a member that has not joined for a long time must not look as if it were ahead.
    fn bring_up(&self, member: usize, number: u64, futex: &impl Futex) {
        let word = &self.done[member].0;
        let behind = Sequence::of(number.wrapping_sub(u64::from(word.look().sequence().bits()))).bits();
        if u64::from(behind) > FAR_BEHIND {
            word.publish(number.wrapping_sub(1), futex);
        }
    }

    /// Member: done with task `number`, which it had joined. What it wrote is seen by the leader.
    pub fn done(&self, member: usize, number: u64, futex: &impl Futex) {
        self.done[member].0.publish(number, futex);
    }

    /// Member: wait for a task after `number`.
    ///
    /// # Errors
    /// [`Ended`]: the team is dissolved, or the waiter's deadline has passed.
    pub fn wait_for_next(&self, number: u64, wait: &mut impl Wait) -> Result<(), Ended> {
        wait_until(1, number + 1, |_| &self.tasks.0, wait)
    }

    /// No task will come any more.
    pub fn dissolve(&self, futex: &impl Futex) {
        self.tasks.0.abort(futex);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::atomics::AtomicU32;
    use crate::waiting::Turn;

    struct Alert;

    impl Futex for Alert {
        fn sleep_while(&mut self, _word: &AtomicU32, _expected: u32) {}
        fn wake_all(&self, _word: &AtomicU32) {}
    }

    impl Wait for Alert {
        fn turn(&mut self, _missing: u64) -> Turn {
            Turn::LookAgain
        }
    }

    #[test]
    fn every_share_is_taken_once_beginning_where_one_likes() {
        let team = Team::new(2);
        for shares in [1, 5, MOST_SHARES] {
            team.open(1, &Alert);
            let mut taken: Vec<u32> = std::iter::from_fn(|| team.take(shares / 2, shares)).collect();
            assert_eq!(taken[0], shares / 2);
            taken.sort_unstable();
            assert_eq!(taken, (0..shares).collect::<Vec<_>>());
            team.close(1, &mut Alert);
        }
    }

    #[test]
    fn a_member_joins_once_and_only_while_the_gate_is_open() {
        let team = Team::new(3);
        assert_eq!(team.join(1, &Alert), Gate::Closed(0));
        team.open(1, &Alert);
        assert_eq!(team.join(1, &Alert), Gate::Joined(1));
        assert_eq!(team.join(1, &Alert), Gate::Closed(1));
        team.done(1, 1, &Alert);
        team.close(1, &mut Alert);
        assert_eq!(team.join(2, &Alert), Gate::Closed(1));
    }

    #[test]
    fn a_member_that_slept_through_half_of_all_numbers_is_waited_for() {
        let team = Team::new(2);
        let number = (1 << 29) + 5;
        team.open(number, &Alert);
        assert_eq!(team.join(1, &Alert), Gate::Joined(number));
        assert!(!team.done[1].0.look().sequence().has_reached(Sequence::of(number)));
    }
}
