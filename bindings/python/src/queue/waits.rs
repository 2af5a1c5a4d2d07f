//! Time-outs and Ctrl-C.
//!
//! A wait of the library's ends by its time, by its control, or with news; Python's signal handlers it does not know. So the main
//! thread, on which Python runs them, waits for a moment at a time and lets them run in between; other threads wait in one go.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use unisono::interrupt;
use unisono::queue::{Error, Result};

use crate::signals;

/// What is longer, in seconds, has no end: 30 years.
const FOR_EVER: f64 = 1e9;

/// How long a call may wait, and how much of that has gone by.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    whole: Option<Duration>,
    spent: Duration,
}

impl Patience {
    pub(super) fn of(seconds: Option<f64>) -> Self {
        Patience { whole: patience(seconds), spent: Duration::ZERO }
    }

    /// What is left of it; `None`: it has no end.
    #[inline]
    pub(super) fn left(&self) -> Option<Duration> {
        self.whole.map(|whole| whole.saturating_sub(self.spent))
    }

    pub(super) fn spend(&mut self, waited: Duration) {
        self.spent += waited;
    }

    /// A time-out counts what was waited before.
    fn in_all<T>(&self, outcome: Result<T>) -> Result<T> {
        outcome.map_err(|error| match error {
            Error::Timeout { operation, waited, waited_for } => {
                Error::Timeout { operation, waited: self.spent + waited, waited_for }
            }
            other => other,
        })
    }
}

/// Seconds as Python has them: `None` and infinity are without end, what is negative is zero.
pub(super) fn patience(seconds: Option<f64>) -> Option<Duration> {
    let seconds = seconds.filter(|seconds| *seconds < FOR_EVER || seconds.is_nan())?;
    Some(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

/// Attempt with the interpreter held and without waiting, then without it for as long as there is patience.
#[inline]
pub(super) fn wait<T: Send>(
    py: Python<'_>,
    patience: Patience,
    mut attempt: impl FnMut(Option<Duration>) -> Result<T> + Send,
) -> PyResult<Result<T>> {
    match attempt(Some(Duration::ZERO)) {
        Err(Error::Timeout { .. }) if patience.left() != Some(Duration::ZERO) => {
            wait_long(py, patience, attempt)
        }
        outcome => Ok(patience.in_all(outcome)),
    }
}

/// The same, without the first attempt.
pub(super) fn wait_long<T: Send>(
    py: Python<'_>,
    patience: Patience,
    mut attempt: impl FnMut(Option<Duration>) -> Result<T> + Send,
) -> PyResult<Result<T>> {
    signals::make_ready(py)?;
    let timeout = patience.left();
    if !signals::is_asked() {
        return Ok(patience.in_all(py.detach(|| attempt(timeout))));
    }
    let since = Instant::now();
    loop {
        let left = timeout.map(|timeout| timeout.saturating_sub(since.elapsed()));
        let nap = left.map_or(interrupt::ASK_EVERY, |left| left.min(interrupt::ASK_EVERY));
        match py.detach(|| attempt(Some(nap))) {
            Err(Error::Timeout { operation, waited_for, .. }) => {
                py.check_signals()?;
                let waited = since.elapsed();
                if timeout.is_some_and(|timeout| waited >= timeout) {
                    return Ok(patience.in_all(Err(Error::Timeout { operation, waited, waited_for })));
                }
            }
            outcome => return Ok(outcome),
        }
    }
}

/// What `work`, which cannot be asked to end, gives. The main thread lets a thread of its own do it, so that Ctrl-C ends the wait.
/// The work does not end by that: the thread goes on with it for as long as it takes, and what comes of it is dropped there.
pub(super) fn wait_beside<T: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce() -> T + Send + 'static,
) -> PyResult<T> {
    signals::make_ready(py)?;
    if !signals::is_asked() {
        return Ok(py.detach(work));
    }
    let (done, outcome) = mpsc::sync_channel(1);
    let begun = thread::Builder::new().name("unisono-opening".into()).spawn(move || drop(done.send(work())));
    begun?;
    let outcome = Mutex::new(outcome);
    loop {
        match py.detach(|| outcome.lock().recv_timeout(interrupt::ASK_EVERY)) {
            Ok(outcome) => return Ok(outcome),
            Err(RecvTimeoutError::Timeout) => py.check_signals()?,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(PyRuntimeError::new_err(
                    "the thread that opens a queue panicked, which is a bug in unisono",
                ));
            }
        }
    }
}
