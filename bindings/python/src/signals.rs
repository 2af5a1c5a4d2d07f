//! Ctrl-C during a wait.
//!
//! Python acts on a signal when its main thread runs Python code, which it does not while it waits in the library. So during
//! its waits the main thread is asked, a few times a second, to let Python act; if a signal's handler raises, as that of Ctrl-C
//! does, the wait ends and the caller gets what was raised.

use std::cell::{Cell, RefCell};

use pyo3::intern;
use pyo3::prelude::*;
use unisono::interrupt;

use crate::interpreter::attached;

thread_local! {
    static IS_READY: Cell<bool> = const { Cell::new(false) };
    static IS_ASKED: Cell<bool> = const { Cell::new(false) };
    static RAISED: RefCell<Option<PyErr>> = const { RefCell::new(None) };
}

/// Before a thread's first wait: see that Ctrl-C can end it, if it is the thread that Python runs handlers on.
#[inline]
pub(crate) fn make_ready(py: Python<'_>) -> PyResult<()> {
    if IS_READY.get() { Ok(()) } else { make_ready_once(py) }
}

/// The same where the interpreter's lock is not held. What Python has against it shows at the thread's next call.
#[inline]
pub(crate) fn make_ready_detached() {
    if !IS_READY.get() {
        attached(|py| drop(make_ready_once(py)));
    }
}

#[cold]
fn make_ready_once(py: Python<'_>) -> PyResult<()> {
    let threading = py.import("threading")?;
    let main = threading.call_method0(intern!(py, "main_thread"))?.getattr(intern!(py, "ident"))?;
    if threading.call_method0(intern!(py, "get_ident"))?.eq(main)? {
        interrupt::ask_on_this_thread(Some(wants_to_stop));
        IS_ASKED.set(true);
    }
    IS_READY.set(true);
    Ok(())
}

/// Whether this thread, which was made ready, is the one that Python runs handlers on.
pub(crate) fn is_asked() -> bool {
    IS_ASKED.get()
}

/// Let Python run the handlers of the signals that came; yes if one of them raised.
fn wants_to_stop() -> bool {
    let stops = attached(|py| match py.check_signals() {
        Ok(()) => false,
        Err(raised) => {
            RAISED.set(Some(raised));
            true
        }
    });
    stops.unwrap_or(false)
}

/// What a handler raised during the wait that it ended.
pub(crate) fn take_raised() -> Option<PyErr> {
    RAISED.take()
}
