//! The library's log: events go to a function of the caller's.
//!
//! The one invariant that matters: **no lock is held while the caller's function runs**, and a forked child, in which whoever held
//! it may not exist, does not wait for it.

#![allow(unsafe_code)]

use std::ffi::{c_char, c_void};
use std::fmt::{self, Write};
use std::sync::{Mutex, Once, PoisonError, TryLockError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::boundary::{c_string, guard, guard_or};
use crate::status::unisono_status;

/// How often an event looks for the lock to be free: it is held for moments.
const MOST_LOOKS: usize = 1000;

/// How grave an event is.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum unisono_log_level {
    /// Something failed of which no call tells.
    Error = 1,
    /// Somebody is waited for, and who; a peer is gone.
    Warn = 2,
    /// What happens once in a life.
    Info = 3,
    /// Everything else.
    Debug = 4,
}

/// Gets the library's log events as text. Called on any thread, several at once; it must return soon, must not throw, and must not call
/// this library.
pub type unisono_log_function =
    Option<unsafe extern "C" fn(context: *mut c_void, level: unisono_log_level, message: *const c_char)>;

#[derive(Clone, Copy)]
struct Log {
    function: unsafe extern "C" fn(*mut c_void, unisono_log_level, *const c_char),
    context: *mut c_void,
}

// SAFETY: the header asks for a function and a context that any thread may use.
unsafe impl Send for Log {}

static LOG: Mutex<Option<Log>> = Mutex::new(None);

fn current() -> Option<Log> {
    (0..MOST_LOOKS).find_map(|_| match LOG.try_lock() {
        Ok(log) => Some(*log),
        Err(TryLockError::Poisoned(poisoned)) => Some(*poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => {
            std::thread::yield_now();
            None
        }
    })?
}

/// From now on log events go to `log`, with `context` as its first argument; null: nowhere, as in the beginning. A call that is under way
/// on another thread may still come to the function that was named before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_set_log(log: unisono_log_function, context: *mut c_void) -> unisono_status {
    static COLLECTED: Once = Once::new();
    guard("set_log", || {
        *LOG.lock().unwrap_or_else(PoisonError::into_inner) = log.map(|function| Log { function, context });
        // This library has a copy of `tracing` of its own, so nobody else's subscriber is in the way.
        COLLECTED.call_once(|| drop(tracing::subscriber::set_global_default(Collector)));
        Ok(())
    })
}

/// Takes events and hands them on.
struct Collector;

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= Level::DEBUG
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let Some(log) = current() else { return };
        let mut text = Text::default();
        event.record(&mut text);
        let message = c_string(&(text.message + &text.fields));
        // SAFETY: the header's: a function that takes these from any thread; the text lives for the call.
        guard_or((), || unsafe {
            (log.function)(log.context, level_of(*event.metadata().level()), message.as_ptr())
        });
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn level_of(level: Level) -> unisono_log_level {
    match level {
        Level::ERROR => unisono_log_level::Error,
        Level::WARN => unisono_log_level::Warn,
        Level::INFO => unisono_log_level::Info,
        _ => unisono_log_level::Debug,
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
