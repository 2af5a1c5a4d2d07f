//! The library's log events, on their way to Python's `logging`.
//!
//! Threads of the library must not take the interpreter's lock: one that waited for it while the interpreter ends would be
//! waited for in turn. So an event is written down as text and put into a queue of bounded length, without waiting; a daemon
//! thread of Python's (`unisono._logging`) takes it out and hands it to the logger `unisono`. What does not fit is counted,
//! and the count is told. The lock is the standard library's: its sleepers are known to the kernel alone, and a forked child finds
//! nothing of those that it does not have.

use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::time::Duration;

use pyo3::prelude::*;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record as SpanRecord};
use tracing::{Event, Level, Metadata, Subscriber};

/// How many events wait for Python at most.
const MOST_RECORDS: usize = 1024;

/// How often an event looks for the queue to be free.
const MOST_LOOKS: usize = 1000;

/// Python's number for a level, and the text.
type Record = (u8, String);

#[derive(Default)]
struct Queue {
    records: Mutex<Waiting>,
    added: Condvar,
}

#[derive(Default)]
struct Waiting {
    records: VecDeque<Record>,
    lost: usize,
}

static QUEUE: OnceLock<Queue> = OnceLock::new();

/// From now on log events are collected. Once per process; a second call changes nothing.
#[pyfunction]
pub(crate) fn collect_records() {
    // This module has a copy of `tracing` of its own, so nobody else's subscriber is in the way.
    if QUEUE.set(Queue::default()).is_ok() {
        let _ = tracing::subscriber::set_global_default(Collector);
    }
}

/// The next event, as its level and text: waits for it up to `seconds`.
#[pyfunction]
pub(crate) fn next_record(py: Python<'_>, seconds: f64) -> Option<(u8, String)> {
    let queue = QUEUE.get()?;
    let patience = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    py.detach(|| {
        let mut waiting = queue.lock();
        if waiting.records.is_empty() && waiting.lost == 0 {
            let woken = queue.added.wait_timeout(waiting, patience);
            waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        let record = waiting.records.pop_front();
        record.or_else(|| match std::mem::take(&mut waiting.lost) {
            0 => None,
            lost => Some((30, format!("{lost} log events were lost: too many at once"))),
        })
    })
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is held for moments, unless this is a forked child in which whoever held it does not exist.
    fn lock_soon(&self) -> Option<MutexGuard<'_, Waiting>> {
        (0..MOST_LOOKS).find_map(|_| match self.records.try_lock() {
            Ok(waiting) => Some(waiting),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => {
                std::thread::yield_now();
                None
            }
        })
    }
}

/// Takes events and puts them into the queue.
struct Collector;

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= Level::DEBUG
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &SpanRecord<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let Some(queue) = QUEUE.get() else { return };
        let mut text = Text::default();
        event.record(&mut text);
        let Some(mut waiting) = queue.lock_soon() else { return };
        if waiting.records.len() < MOST_RECORDS {
            waiting.records.push_back((python_level(*event.metadata().level()), text.message + &text.fields));
            queue.added.notify_one();
        } else {
            waiting.lost += 1;
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// As `logging` has them.
fn python_level(level: Level) -> u8 {
    match level {
        Level::ERROR => 40,
        Level::WARN => 30,
        Level::INFO => 20,
        _ => 10,
    }
}

/// An event as one line: the message, then the fields.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
