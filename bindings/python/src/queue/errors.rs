//! The queue's errors as Python exceptions: the classes of `unisono._queue_errors`, with the fields of the Rust error.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList};
use unisono::queue::{Error, Presence, ReaderStatus, Role, WaitedFor};

use super::turns::Unavailable;

/// The exception for an error.
#[cold]
pub(super) fn raised(py: Python<'_>, error: &Error) -> PyErr {
    exception(py, error).unwrap_or_else(|problem| problem)
}

/// The exception for a side that is not to be had.
#[cold]
pub(super) fn unavailable(py: Python<'_>, operation: &str, why: Unavailable) -> PyErr {
    let (name, problem) = match why {
        Unavailable::Closed => ("QueueClosed", "this side of the queue was closed"),
        Unavailable::Held => (
            "QueueHeld",
            "the last message or slot is still held: release it, and what was made over it, first",
        ),
        Unavailable::Busy => ("QueueBusy", "another thread's call took as long as this one may wait"),
        Unavailable::Forked => (
            "QueueForked",
            "this process was forked from the one that has the queue, while it was in use there",
        ),
    };
    let fields = PyDict::new(py);
    let made = fields
        .set_item("operation", operation)
        .and_then(|()| build(py, name, &format!("{operation}: {problem}"), &fields));
    made.unwrap_or_else(|problem| problem)
}

/// The exception for a message that is not what it should be.
#[cold]
pub(super) fn malformed(py: Python<'_>, number: u64, problem: &str) -> PyErr {
    let fields = PyDict::new(py);
    let text = format!("message {number} was not made by enqueue: {problem}");
    let made = fields.set_item("number", number).and_then(|()| build(py, "QueueMalformed", &text, &fields));
    made.unwrap_or_else(|problem| problem)
}

fn exception(py: Python<'_>, error: &Error) -> PyResult<PyErr> {
    let fields = PyDict::new(py);
    let name = match error {
        Error::System(error) => return Ok(crate::errors::raised(py, error)),
        Error::InvalidArgument { operation, .. } => {
            fields.set_item("operation", operation)?;
            "QueueInvalidArgument"
        }
        Error::Timeout { operation, waited, waited_for } => {
            fields.set_item("operation", operation)?;
            fields.set_item("waited", waited.as_secs_f64())?;
            fields.set_item("readers", readers_of(py, waited_for)?)?;
            fields.set_item("writer", writer_of(py, waited_for)?)?;
            "QueueTimeout"
        }
        Error::PeerDied { role, rank, pid } => {
            peer(&fields, *role, *rank, *pid)?;
            "QueuePeerDied"
        }
        Error::PeerLeft { role, rank, pid } => {
            peer(&fields, *role, *rank, *pid)?;
            "QueuePeerLeft"
        }
        Error::PeerBroken { role, rank, pid, problem } => {
            peer(&fields, *role, *rank, *pid)?;
            fields.set_item("problem", problem)?;
            "QueuePeerBroken"
        }
        Error::LinkLost { role, rank, pid, address } => {
            peer(&fields, *role, *rank, *pid)?;
            fields.set_item("address", address)?;
            "QueueLinkLost"
        }
        Error::Lost { expected, found, parts } => {
            fields.set_item("expected", expected)?;
            fields.set_item("found", found)?;
            fields.set_item("parts", *parts)?;
            "QueueLost"
        }
        Error::RankTaken { rank, pid } => {
            fields.set_item("rank", rank)?;
            fields.set_item("pid", pid)?;
            "QueueRankTaken"
        }
        Error::UnknownRank { rank, ranks } => {
            fields.set_item("rank", rank)?;
            fields.set_item("ranks", ranks)?;
            "QueueUnknownRank"
        }
        Error::Meeting { queue, problem } => {
            fields.set_item("queue", queue)?;
            fields.set_item("problem", problem)?;
            "QueueMeeting"
        }
        Error::Handle { problem } => {
            fields.set_item("problem", problem)?;
            "QueueHandleError"
        }
        Error::Elsewhere { problem } => {
            fields.set_item("problem", problem)?;
            "QueueElsewhere"
        }
        Error::Undelivered { operation, problem } => {
            fields.set_item("operation", operation)?;
            fields.set_item("problem", problem)?;
            "QueueUndelivered"
        }
        Error::Cancelled { operation } => {
            fields.set_item("operation", operation)?;
            "QueueCancelled"
        }
        Error::ShutDown { operation } => {
            fields.set_item("operation", operation)?;
            "QueueShutDown"
        }
        Error::Forked { operation } => {
            fields.set_item("operation", operation)?;
            "QueueForked"
        }
        _ => "QueueError",
    };
    build(py, name, &error.to_string(), &fields)
}

fn build(py: Python<'_>, name: &str, text: &str, fields: &Bound<'_, PyDict>) -> PyResult<PyErr> {
    let class = module(py)?.getattr(name)?;
    Ok(PyErr::from_value(class.call((text,), Some(fields))?))
}

fn module(py: Python<'_>) -> PyResult<&Bound<'_, PyModule>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let import = || Ok::<_, PyErr>(py.import("unisono._queue_errors")?.unbind());
    Ok(MODULE.get_or_try_init(py, import)?.bind(py))
}

fn peer(fields: &Bound<'_, PyDict>, role: Role, rank: usize, pid: u32) -> PyResult<()> {
    let role = match role {
        Role::Writer => "writer",
        Role::Reader => "reader",
    };
    fields.set_item("role", role)?;
    fields.set_item("rank", rank)?;
    fields.set_item("pid", pid)
}

fn readers_of<'py>(py: Python<'py>, waited_for: &WaitedFor) -> PyResult<Bound<'py, PyList>> {
    match waited_for {
        WaitedFor::Readers(readers) => statuses(py, readers),
        _ => Ok(PyList::empty(py)),
    }
}

fn writer_of<'py>(py: Python<'py>, waited_for: &WaitedFor) -> PyResult<Option<Bound<'py, PyAny>>> {
    let WaitedFor::Writer { rank, pid, messages, address, last_step } = waited_for else { return Ok(None) };
    let last_step = last_step.map(|ago| ago.as_secs_f64());
    module(py)?.getattr("WriterStatus")?.call1((rank, pid, messages, address, last_step)).map(Some)
}

/// What is known of readers, as objects of `unisono.queue.ReaderStatus`.
pub(super) fn statuses<'py>(py: Python<'py>, readers: &[ReaderStatus]) -> PyResult<Bound<'py, PyList>> {
    let class = module(py)?.getattr("ReaderStatus")?;
    let list = PyList::empty(py);
    for reader in readers {
        let presence = match reader.presence {
            Presence::Awaited => "awaited",
            Presence::Alive => "alive",
            Presence::Left => "left",
            Presence::Dead => "dead",
            Presence::Broken => "broken",
            Presence::Unreachable => "unreachable",
            _ => "unknown",
        };
        let last_step = reader.last_step.map(|ago| ago.as_secs_f64());
        let (messages, bytes) = (reader.lag_messages, reader.lag_bytes);
        let fields = (reader.rank, reader.pid, presence, messages, bytes, last_step, &reader.address);
        list.append(class.call1(fields)?)?;
    }
    Ok(list)
}
