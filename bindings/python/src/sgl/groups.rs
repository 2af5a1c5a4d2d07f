//! The groups of ranks that the operators run on, by their handles: 0 is the one that `initialize` made, others are
//! numbered as they come.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::communicator::Communicator;
use crate::registered::Registry;
use crate::shim::Failure;

/// A group as the operators need it.
pub(super) struct ShmGroup {
    pub(super) comm: unisono::Communicator,
    pub(super) registered: Arc<Registry>,
}

/// By handle; a group that was released leaves its place empty for good, so that no handle ever means another group.
static GROUPS: RwLock<Vec<Option<Arc<ShmGroup>>>> = RwLock::new(Vec::new());

/// Operators look groups up without the interpreter, for moments; in a forked child it can be that whoever looked does not exist.
const LONGEST_LOOK: Duration = Duration::from_secs(1);

/// The group with this handle.
#[inline]
pub(super) fn group(handle: i64) -> Result<Arc<ShmGroup>, Failure> {
    let groups = GROUPS.read();
    let found = usize::try_from(handle).ok().and_then(|handle| groups.get(handle)).and_then(Clone::clone);
    found.ok_or_else(|| no_group(handle))
}

#[cold]
fn no_group(handle: i64) -> Failure {
    let problem = if handle == 0 {
        "no group: call initialize(size, rank) on every rank first".to_string()
    } else {
        format!("no group has handle {handle}: pass what shm_group_initialize(name, size, rank) returned")
    };
    Failure::Value(problem)
}

/// Make a communicator the group of a handle: of 0, the default, or of the next one. Gives the handle.
#[pyfunction]
pub(crate) fn shm_adopt(comm: &Communicator, default: bool) -> PyResult<usize> {
    let group = ShmGroup { comm: comm.inner().clone(), registered: Arc::clone(&comm.registered) };
    let group = Some(Arc::new(group));
    let mut groups = GROUPS.try_write_for(LONGEST_LOOK).ok_or_else(|| {
        PyRuntimeError::new_err(
            "this process was forked while an operator ran: it cannot have groups of its own",
        )
    })?;
    if groups.is_empty() {
        groups.push(None);
    }
    if default {
        groups[0] = group;
        return Ok(0);
    }
    groups.push(group);
    Ok(groups.len() - 1)
}

/// Forget the group of a handle. Whether there was one.
#[pyfunction]
pub(crate) fn shm_release(py: Python<'_>, handle: usize) -> bool {
    let groups = GROUPS.try_write_for(LONGEST_LOOK);
    let group = groups.and_then(|mut groups| groups.get_mut(handle).and_then(Option::take));
    let was_there = group.is_some();
    // The last handle on a communicator waits for what was started on it.
    py.detach(|| drop(group));
    was_there
}
