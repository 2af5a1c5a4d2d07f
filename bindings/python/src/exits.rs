//! Started operations when the interpreter ends.
//!
//! The last handle on a communicator waits for what was started on it. At the end of a program, above all one that ends
//! with an exception, nobody may be left to make the peers' part of it, and the interpreter would wait for the operation's
//! whole time-out. So at exit operations get a moment, and then their group is stopped.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pyo3::prelude::*;

/// How often is looked whether they are over.
const NAP: Duration = Duration::from_millis(2);

/// The groups that have handles in Python.
static GROUPS: Mutex<Vec<Weak<Started>>> = Mutex::new(Vec::new());

/// What was started on a group and is not over. All handles on the group share it.
pub(crate) struct Started {
    comm: unisono::Communicator,
    running: Arc<AtomicUsize>,
    process: u32,
}

/// Counts an operation as long as it runs.
pub(crate) struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Started {
    pub(crate) fn on(comm: &unisono::Communicator) -> Arc<Self> {
        let started =
            Arc::new(Started { comm: comm.clone(), running: Arc::default(), process: std::process::id() });
        let mut groups = GROUPS.lock();
        groups.retain(|group| group.strong_count() > 0);
        groups.push(Arc::downgrade(&started));
        started
    }

    /// Count one more until what this gives is dropped.
    pub(crate) fn one_more(&self) -> Running {
        self.running.fetch_add(1, Ordering::Relaxed);
        Running(Arc::clone(&self.running))
    }

    /// In a forked child nobody works on what its parent started.
    fn is_running(&self) -> bool {
        self.process == std::process::id() && self.running.load(Ordering::Relaxed) > 0
    }
}

/// Wait up to `seconds` for all started operations of this process, then stop the groups of those that are not over.
#[pyfunction]
pub(crate) fn end_started(py: Python<'_>, seconds: f64) {
    let patience = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    py.detach(|| {
        let mut groups: Vec<Arc<Started>> = GROUPS.lock().iter().filter_map(Weak::upgrade).collect();
        let since = Instant::now();
        loop {
            groups.retain(|group| group.is_running());
            if groups.is_empty() || since.elapsed() >= patience {
                break;
            }
            std::thread::sleep(NAP);
        }
        for group in &groups {
            let (name, operations) = (group.comm.name(), group.running.load(Ordering::Relaxed));
            tracing::warn!(
                name,
                operations,
                "the interpreter ends, and started operations are not over: aborting"
            );
            group.comm.abort();
        }
    });
}
