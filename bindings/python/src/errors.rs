//! The library's errors as Python exceptions: the classes of `unisono._errors`, with the fields of the Rust error.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList};
use unisono::{Call, Error, LastOperation, PeerStatus};

use crate::signals;

/// The exception for an error. What the handler of a Python signal raised during the wait is what is raised, whether the wait ended
/// because of it or, meanwhile, of something else: the error is its cause.
pub(crate) fn raised(py: Python<'_>, error: &Error) -> PyErr {
    // Taken first: whatever becomes of the error, a later call has nothing to do with it.
    let handlers = signals::take_raised();
    let exception = exception(py, error).unwrap_or_else(|problem| problem);
    let Some(handlers) = handlers else { return exception };
    handlers.set_cause(py, Some(exception));
    handlers
}

fn exception(py: Python<'_>, error: &Error) -> PyResult<PyErr> {
    let fields = PyDict::new(py);
    let name = match error {
        Error::InvalidArgument { operation, .. } => {
            fields.set_item("operation", operation)?;
            "InvalidArgument"
        }
        Error::Timeout { call, number, waited, peers, reported_by, terminal } => {
            at(&fields, call, *number)?;
            fields.set_item("waited", waited.as_secs_f64())?;
            fields.set_item("peers", statuses(py, peers)?)?;
            fields.set_item("reported_by", reported_by)?;
            fields.set_item("terminal", terminal)?;
            "TimeoutError"
        }
        Error::PeerDied { rank, pid, last, call, number, reported_by } => {
            at(&fields, call, *number)?;
            fields.set_item("rank", rank)?;
            fields.set_item("pid", pid)?;
            fields.set_item("last", last.as_deref().map(|last| last_operation(py, last)).transpose()?)?;
            fields.set_item("reported_by", reported_by)?;
            "PeerDied"
        }
        Error::PeerLeft { rank, pid, call, number, terminal } => {
            at(&fields, call, *number)?;
            fields.set_item("rank", rank)?;
            fields.set_item("pid", pid)?;
            fields.set_item("terminal", terminal)?;
            "PeerLeft"
        }
        Error::Mismatch { number, rank, mine, peer, theirs } => {
            at(&fields, mine, *number)?;
            fields.set_item("rank", rank)?;
            fields.set_item("peer", peer)?;
            fields.set_item("theirs", theirs)?;
            "Mismatch"
        }
        Error::Aborted { by, call, number } => {
            at(&fields, call, *number)?;
            fields.set_item("by", by)?;
            "Aborted"
        }
        Error::Busy { operation, waited } => {
            fields.set_item("operation", operation)?;
            fields.set_item("waited", waited.as_secs_f64())?;
            "Busy"
        }
        Error::Interrupted { operation, terminal } => {
            fields.set_item("operation", operation)?;
            fields.set_item("terminal", terminal)?;
            "Interrupted"
        }
        Error::Closed { operation } => {
            fields.set_item("operation", operation)?;
            "Closed"
        }
        Error::Forked { operation, parent } => {
            fields.set_item("operation", operation)?;
            fields.set_item("parent", parent)?;
            "Forked"
        }
        Error::Rendezvous { group, problem, missing } => {
            fields.set_item("group", group)?;
            fields.set_item("problem", problem)?;
            fields.set_item("missing", missing)?;
            "RendezvousError"
        }
        Error::Setting { name, value, problem } => {
            fields.set_item("name", name)?;
            fields.set_item("value", value)?;
            fields.set_item("problem", problem)?;
            "SettingError"
        }
        Error::OutOfMemory { needed, available, limited_by, .. } => {
            fields.set_item("needed", needed)?;
            fields.set_item("available", available)?;
            fields.set_item("limited_by", limited_by)?;
            "OutOfMemory"
        }
        _ => "Error",
    };
    let class = module(py)?.getattr(name)?;
    Ok(PyErr::from_value(class.call((error.to_string(),), Some(&fields))?))
}

fn module(py: Python<'_>) -> PyResult<&Bound<'_, PyModule>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let module = MODULE.get_or_try_init(py, || Ok::<_, PyErr>(py.import("unisono._errors")?.unbind()))?;
    Ok(module.bind(py))
}

/// Which call an error is about.
fn at(fields: &Bound<'_, PyDict>, call: &Call, number: u64) -> PyResult<()> {
    fields.set_item("operation", call.operation.name())?;
    fields.set_item("call", call.to_string())?;
    fields.set_item("number", number)
}

/// What is known of ranks, as objects of `unisono.PeerStatus`.
pub(crate) fn statuses<'py>(py: Python<'py>, peers: &[PeerStatus]) -> PyResult<Bound<'py, PyList>> {
    let class = module(py)?.getattr("PeerStatus")?;
    let list = PyList::empty(py);
    for peer in peers {
        let last = peer.last.as_ref().map(|last| last_operation(py, last)).transpose()?;
        list.append(class.call1((peer.rank, peer.pid, peer.alive, last))?)?;
    }
    Ok(list)
}

fn last_operation<'py>(py: Python<'py>, last: &LastOperation) -> PyResult<Bound<'py, PyAny>> {
    module(py)?.getattr("LastOperation")?.call1((last.number, last.call.to_string(), last.finished))
}
