//! Named points of a protocol at which a test stops or kills its own process.
//!
//! Only with the feature `fault-points`; without it every point is nothing. A test sets
//! `UNISONO_FAULT=POINT@NUMBER` (die there, by SIGKILL, at the given pass), `UNISONO_FAULT=POINT@NUMBER:stop`
//! (SIGSTOP instead) in the environment of the rank that is to fail.

/// Pass a named point.
#[cfg(not(feature = "fault-points"))]
#[inline(always)]
pub fn reach(_point: &'static str) {}

/// Pass a named point: die or stop here, if the environment says so.
#[cfg(feature = "fault-points")]
pub fn reach(point: &'static str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use crate::process;

    struct Fault {
        point: String,
        pass: u64,
        stop: bool,
        passed: AtomicU64,
    }
    static FAULT: OnceLock<Option<Fault>> = OnceLock::new();
    let fault = FAULT.get_or_init(|| {
        let text = std::env::var("UNISONO_FAULT").ok()?;
        let (text, stop) = match text.strip_suffix(":stop") {
            Some(text) => (text.to_string(), true),
            None => (text, false),
        };
        let (point, pass) = text.split_once('@')?;
        Some(Fault { point: point.to_string(), pass: pass.parse().ok()?, stop, passed: AtomicU64::new(0) })
    });
    let Some(fault) = fault else { return };
    if fault.point == point && fault.passed.fetch_add(1, Ordering::Relaxed) + 1 == fault.pass {
        let signal = if fault.stop { process::Signal::Stop } else { process::Signal::Kill };
        // A process may always signal itself; a test whose process goes on says so.
        let _ = process::kill(process::pid(), signal);
    }
}
