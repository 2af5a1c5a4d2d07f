//! Ending a wait from within: what the calling thread itself has to attend to, such as a signal.
//!
//! A program in another language cannot act on Ctrl-C while one of its threads waits in here. So a thread may name a function
//! that is asked during its waits for other ranks; if the function says yes, the wait ends with
//! [`Error::Interrupted`](crate::Error::Interrupted). A call whose peers are on time never asks: the question is put only to
//! a thread that has waited for [`ASK_EVERY`], asleep or not, and then at least as often.
//!
//! The one invariant that matters: **a thread that has named no function is never woken for its sake.**

use std::cell::Cell;
use std::time::{Duration, Instant};

/// How often a thread that waits is asked.
pub const ASK_EVERY: Duration = Duration::from_millis(50);

thread_local! {
    static QUESTION: Cell<Option<fn() -> bool>> = const { Cell::new(None) };
}

/// From now on `question` is asked while the calling thread waits in a call on a communicator, for other ranks or for other
/// calls of its own rank, or in the rendezvous (`None`: nothing is): whether to end that wait.
///
/// It is not asked in the other waits, which end by their time-outs alone or as their own controls say: those for an asynchronous
/// operation ([`Pending`](crate::Pending)), at the end of a scope, inside a team of threads, and of a [queue](crate::queue).
///
/// A wait whose end comes while the function runs is over, whatever the function says: who must act on a yes remembers it.
/// The function may take its time, but it keeps this rank from going on meanwhile. It must not make a collective call on
/// a communicator that the thread is waiting in.
///
/// ```
/// use std::sync::atomic::{AtomicBool, Ordering};
/// static STOP: AtomicBool = AtomicBool::new(false); // set by a signal handler, say
///
/// unisono::interrupt::ask_on_this_thread(Some(|| STOP.load(Ordering::Relaxed)));
/// ```
pub fn ask_on_this_thread(question: Option<fn() -> bool>) {
    QUESTION.set(question);
}

/// Whether the calling thread is to be asked at all.
pub(crate) fn is_possible() -> bool {
    QUESTION.get().is_some()
}

/// Ask the calling thread whether to end its wait.
pub(crate) fn is_requested() -> bool {
    QUESTION.get().is_some_and(|question| question())
}

/// How long the calling thread may sleep of what is left to it (`None`: for ever), so that it is asked in time.
pub(crate) fn nap(left: Option<Duration>) -> Option<Duration> {
    if !is_possible() {
        return left;
    }
    Some(left.map_or(ASK_EVERY, |left| left.min(ASK_EVERY)))
}

/// The same with a deadline.
pub(crate) fn next_question(deadline: Option<Instant>) -> Option<Instant> {
    let question = is_possible().then(|| Instant::now() + ASK_EVERY);
    [deadline, question].into_iter().flatten().min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_thread_that_named_a_question_is_woken_for_it() {
        assert_eq!((nap(None), next_question(None), is_requested()), (None, None, false));
        ask_on_this_thread(Some(|| true));
        assert_eq!(nap(None), Some(ASK_EVERY));
        assert_eq!(nap(Some(Duration::from_millis(1))), Some(Duration::from_millis(1)));
        assert!(is_requested() && next_question(None).is_some());
        std::thread::spawn(|| assert!(!is_possible() && !is_requested())).join().unwrap();
        ask_on_this_thread(None);
        assert!(!is_possible());
    }
}
