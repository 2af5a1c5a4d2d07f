//! A team of the caller's own threads: for engines whose threads are there anyway, as OpenMP's are.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use unisono_os::cpu;
use unisono_protocol::{Ended, Sequence, Word, wait_until};

use super::task::Board;
use super::waiting::Patience;
use super::{Threads, check_threads};
use crate::error::{Error, Result};

/// Threads of the caller's that enter operations together: one [leads](Team::lead), the others [help](Team::help).
///
/// Each time, thread 0 calls `lead` and makes one collective or several on a communicator that was
/// [given](crate::Communicator::set_team) this team; threads 1 to `threads - 1` call `help`, share the copying and reducing,
/// and return with the same result when it has returned. Only thread 0 needs the data.
///
/// ```
/// use unisono::{Communicator, ReduceOp, Team};
///
/// let comm = Communicator::in_process(1)?.remove(0);
/// let team = Team::new(3)?;
/// comm.set_team(&team)?;
/// std::thread::scope(|scope| {
///     for thread in 1..3 {
///         let team = &team;
///         scope.spawn(move || team.help(thread).expect("all went well"));
///     }
///     let mut data = vec![1.0f32; 1 << 20];
///     team.lead(|| comm.all_reduce(&mut data, ReduceOp::Sum)).expect("all went well");
/// });
/// # Ok::<_, unisono::Error>(())
/// ```
#[derive(Clone)]
pub struct Team {
    shared: Arc<Shared>,
    timeout: Option<Duration>,
}

struct Shared {
    threads: Threads,
    patience: Patience,
    /// How often thread 0 has come back from leading.
    led: Word,
    /// Per thread: how often it has come back from helping.
    helped: Vec<Word>,
    /// The number of times that were led, and what the last one gave; who holds the lock leads.
    leading: Mutex<u64>,
    result: Mutex<Result<()>>,
    /// Per thread: how often it has helped, for itself alone.
    times: Vec<Mutex<u64>>,
}

impl Team {
    /// A team of this many threads, 1 to 32.
    ///
    /// # Errors
    /// [`Error::Setting`] for another number.
    pub fn new(threads: usize) -> Result<Team> {
        check_threads(threads)?;
        let patience = Patience::new(threads as f64 > cpu::usable_cores());
        let board = Arc::new(Board::new(threads, patience.clone()));
        let words = || (0..threads).map(|_| Word::new(0)).collect();
        let shared = Shared {
            threads: Threads { board, helpers: None },
            patience,
            led: Word::new(0),
            helped: words(),
            leading: Mutex::new(0),
            result: Mutex::new(Ok(())),
            times: (0..threads).map(|_| Mutex::new(0)).collect(),
        };
        Ok(Team { shared: Arc::new(shared), timeout: Some(crate::DEFAULT_TIMEOUT) })
    }

    /// How many threads there are.
    pub fn threads(&self) -> usize {
        self.shared.threads.count()
    }

    /// A handle on the same team whose threads wait this long for one another; `None` is for ever, the default 30 minutes.
    #[must_use]
    pub fn with_timeout(&self, timeout: Option<Duration>) -> Self {
        Team { shared: Arc::clone(&self.shared), timeout }
    }

    /// Thread 0: make collectives that the others help with. Returns what `work` does, once all have come and gone.
    ///
    /// # Errors
    /// Those of `work`; [`Error::Team`] if a thread does not come in time, or another thread is leading.
    pub fn lead(&self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let shared = &*self.shared;
        let Some(mut times) = shared.leading.try_lock() else {
            return Err(Error::team("two threads lead at once: only one thread of a team calls lead"));
        };
        *times += 1;
        // However `work` ends, the others go on.
        let mut time = Time { shared, number: *times, result: None };
        let result = work();
        time.result = Some(result.clone());
        drop(time);
        self.wait_for_all(*times)?;
        result
    }

    /// Thread `thread`, from 1 on: help with what thread 0 makes, and return with its result.
    ///
    /// # Errors
    /// Those of thread 0's work; [`Error::Team`] if it does not lead in time; [`Error::InvalidArgument`] if there is no such
    /// thread.
    pub fn help(&self, thread: usize) -> Result<()> {
        let shared = &*self.shared;
        let Some(mut times) = shared.times.get(thread).filter(|_| thread > 0).and_then(Mutex::try_lock)
        else {
            let problem = format!("thread {thread}: expected 1 to {}, each once", self.threads() - 1);
            return Err(Error::argument("help", problem));
        };
        let time = *times + 1;
        let is_over = || shared.led.look().sequence().has_reached(Sequence::of(time));
        let mut patience = shared.patience.until(self.deadline());
        while !is_over() {
            if shared.threads.board.help_once(thread, &mut patience, is_over).is_ok() {
                continue;
            }
            if !shared.leading.is_locked() {
                return Err(Error::team(format!("thread 0 has not led within {:.1?}", self.timeout)));
            }
            // It is in an operation, which has a deadline of its own.
            patience = shared.patience.until(self.deadline());
        }
        *times = time;
        let result = shared.result.lock().clone();
        // Release: the leader changes the result only after it has seen this.
        shared.helped[thread].publish(time, &shared.patience);
        result
    }

    fn deadline(&self) -> Option<Instant> {
        self.timeout.and_then(|timeout| Instant::now().checked_add(timeout))
    }

    fn wait_for_all(&self, time: u64) -> Result<()> {
        let shared = &*self.shared;
        let others = (1..self.threads()).fold(0, |others, thread| others | 1 << thread);
        let mut patience = shared.patience.until(self.deadline());
        wait_until(others, time, |thread| &shared.helped[thread], &mut patience).map_err(|ended| {
            let (Ended::Aborted(missing) | Ended::TimedOut(missing)) = ended;
            let missing: Vec<usize> =
                (1..self.threads()).filter(|thread| missing >> thread & 1 == 1).collect();
            Error::team(format!("threads {missing:?} have not helped within {:.1?}", self.timeout))
        })
    }
}

/// One time that thread 0 leads; dropped, it is over and the others are told, also if it panicked.
struct Time<'t> {
    shared: &'t Shared,
    number: u64,
    result: Option<Result<()>>,
}

impl Drop for Time<'_> {
    fn drop(&mut self) {
        let result = self.result.take().unwrap_or_else(|| Err(Error::team("the thread that leads panicked")));
        *self.shared.result.lock() = result;
        // Release: who sees this sees the result. Nobody sleeps on it: they sleep on the tasks, hence the call.
        self.shared.led.publish(self.number, &self.shared.patience);
        self.shared.threads.board.call();
    }
}

impl Team {
    pub(crate) fn as_threads(&self) -> &Threads {
        &self.shared.threads
    }
}

impl fmt::Debug for Team {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Team").field("threads", &self.threads()).finish_non_exhaustive()
    }
}
