//! Time-outs and Ctrl-C.
//!
//! A wait of the library's ends by its time, by its control, or with news; Python's signal handlers it does not know. So the main
//! thread, on which Python runs them, waits for a moment at a time and lets them run in between; other threads wait in one go.

use std::time::{Duration, Instant};

use pyo3::prelude::*;
use unisono::interrupt;
use unisono::queue::{Error, Result};

use crate::signals;

/// What is longer, in seconds, has no end: 30 years.
const FOR_EVER: f64 = 1e9;

/// Seconds as Python has them: `None` and infinity are without end, what is negative is zero.
pub(super) fn patience(seconds: Option<f64>) -> Option<Duration> {
    let seconds = seconds.filter(|seconds| *seconds < FOR_EVER || seconds.is_nan())?;
    Some(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

/// Attempt with the interpreter held and without waiting, then without it for as long as `timeout` says.
#[inline]
pub(super) fn wait<T: Send>(
    py: Python<'_>,
    timeout: Option<Duration>,
    mut attempt: impl FnMut(Option<Duration>) -> Result<T> + Send,
) -> PyResult<Result<T>> {
    match attempt(Some(Duration::ZERO)) {
        Err(Error::Timeout { .. }) if timeout != Some(Duration::ZERO) => wait_long(py, timeout, attempt),
        outcome => Ok(outcome),
    }
}

/// The same, without the first attempt.
pub(super) fn wait_long<T: Send>(
    py: Python<'_>,
    timeout: Option<Duration>,
    mut attempt: impl FnMut(Option<Duration>) -> Result<T> + Send,
) -> PyResult<Result<T>> {
    signals::make_ready(py)?;
    if !signals::is_asked() {
        return Ok(py.detach(|| attempt(timeout)));
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
                    return Ok(Err(Error::Timeout { operation, waited, waited_for }));
                }
            }
            outcome => return Ok(outcome),
        }
    }
}
