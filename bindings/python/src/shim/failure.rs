//! How what went wrong in a kernel reaches Python.
//!
//! The stable interface has no word for it: a kernel returns nothing. So a kernel throws what every torch catches, a C++
//! `std::runtime_error`, by the function with which the C++ library throws its own; torch's binding makes a `RuntimeError` with
//! the same text of it. The exception with its proper class and fields is kept for the thread: [`take_failure`]
//! gives it to who has caught the other.

#![allow(unsafe_code)]

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::fmt;

use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;

use super::functions::{Functions, Throw};
use crate::errors::raised;
use crate::interpreter::attached;

/// How a kernel ends.
pub(crate) type Outcome = Result<(), Failure>;

/// Why a kernel failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The library's error.
    Library(Box<unisono::Error>),
    /// A signal's handler raised during a wait that has come to its end.
    Handler(PyErr),
    /// An argument has the right type and the wrong value.
    Value(String),
    /// An argument has the wrong type.
    Type(String),
    /// Anything else.
    Other(String),
    /// Any of these, and where.
    At(String, Box<Failure>),
}

impl From<unisono::Error> for Failure {
    fn from(error: unisono::Error) -> Self {
        Failure::Library(Box::new(error))
    }
}

impl Failure {
    /// Say where: `on rank 1 of 4`.
    pub(crate) fn at(self, place: String) -> Self {
        Failure::At(place, Box::new(self))
    }

    /// As an exception that says `text`.
    fn exception(&self, py: Python<'_>, text: &str) -> PyErr {
        match self {
            Failure::At(_, failure) => failure.exception(py, text),
            Failure::Library(error) => {
                let exception = raised(py, error);
                // What a signal's handler raised has its own text.
                if exception.value(py).str().is_ok_and(|said| said.to_string() == error.to_string()) {
                    let _ = exception.value(py).setattr("args", (text,));
                }
                exception
            }
            Failure::Handler(raised) => raised.clone_ref(py),
            Failure::Value(_) => PyValueError::new_err(text.to_string()),
            Failure::Type(_) => PyTypeError::new_err(text.to_string()),
            Failure::Other(_) => PyRuntimeError::new_err(text.to_string()),
        }
    }

    fn place(&self) -> &str {
        if let Failure::At(place, _) = self { place } else { "" }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Library(error) => error.fmt(out),
            Failure::Handler(_) => out.write_str("a signal's handler raised an exception during the wait"),
            Failure::Value(problem) | Failure::Type(problem) | Failure::Other(problem) => {
                out.write_str(problem)
            }
            Failure::At(_, failure) => failure.fmt(out),
        }
    }
}

thread_local! {
    static TEXT: RefCell<CString> = RefCell::default();
    static EXCEPTION: RefCell<Option<PyErr>> = const { RefCell::new(None) };
}

/// Write down what went wrong in the operator of this name, for [`to_throw`] and [`take_failure`].
pub(super) fn remember(operation: &str, failure: Failure) {
    let place = failure.place();
    let text = if place.is_empty() {
        format!("{operation}: {failure}")
    } else {
        format!("{operation} {place}: {failure}")
    };
    // What is Python's goes where the interpreter's lock is held for certain, not where pyo3 may only believe so.
    attached(|py| {
        let earlier = EXCEPTION.replace(Some(failure.exception(py, &text)));
        drop((earlier, failure));
    });
    TEXT.set(CString::new(text.replace('\0', " ")).unwrap_or_default());
}

/// As [`remember`], of a panic, which is a bug in this package.
pub(super) fn remember_panic(operation: &str, panic: &(dyn Any + Send)) {
    let said = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    let problem = format!("panicked, which is a bug in unisono: {}", said.unwrap_or("no message"));
    remember(operation, Failure::Other(problem));
}

/// A C++ exception before it is thrown: `throw(text)` does it.
pub(super) struct Thrown {
    pub(super) throw: Throw,
    pub(super) text: *const c_char,
}

/// What was written down, to be thrown at once.
pub(super) fn to_throw(functions: &Functions) -> Thrown {
    Thrown { throw: functions.throw, text: TEXT.with_borrow(|text| text.as_ptr()) }
}

/// The exception for the failure of this thread's that torch reported with this text, if there is one; it is given once.
#[pyfunction]
pub(crate) fn take_failure(text: &str) -> Option<PyErr> {
    let is_it = TEXT.with_borrow(|remembered| remembered.to_bytes() == text.as_bytes());
    if is_it { EXCEPTION.take() } else { None }
}
