//! The library for C and C++: `libunisono.so` and `include/unisono.h`, which is made from this crate.
//!
//! Thin on purpose: what a caller passes is checked here, the library does the rest, and what goes wrong becomes a number and
//! a record that the calling thread can ask for. Names are those of the header, so that one is found from the other.
//!
//! | file | what |
//! |---|---|
//! | `boundary` | the only way in: panics end here, pointers and numbers are looked at before they are used |
//! | `versioned` | structures that may grow |
//! | `status`, `problem`, `error` | what went wrong: the number, why, and the record of the calling thread |
//! | `types` | element types, reductions and operations |
//! | `connect`, `communicator` | meeting the other ranks, and the life of a communicator |
//! | `call`, `collectives` | one call as data, and the functions that make them |
//! | `registered` | memory that all ranks have mapped |
//! | `request` | calls that are started and waited for later |
//! | `queue` | a queue's writer and its readers |
//! | `shm` | the functions of SGLang's shared-memory operations, over pointer, type and shape |
//! | `log`, `interrupt` | functions of the caller's that the library calls |
//!
//! The one invariant that matters: **whatever a caller passes as a number, or as null, is answered by an error.** What a pointer
//! that is not null points at is the caller's word, as the header states it.

// The names are C's, and so is what the callers of these functions have to keep: the header says it for all of them.
#![allow(non_camel_case_types, clippy::missing_safety_doc)]

mod boundary;
mod problem;
mod versioned;

// In the order in which the header is read: its functions come in that of these modules.
pub mod status;

pub mod types;

pub mod connect;

pub mod communicator;

pub mod collectives;

pub mod registered;

pub mod call;

pub mod request;

pub mod queue;

pub mod error;

pub mod log;

pub mod interrupt;

pub mod shm;

use std::ffi::c_char;

/// Changes when a program that was compiled with an older header could not run with this library.
pub const UNISONO_ABI_VERSION: u32 = 1;

/// A time without end.
pub const UNISONO_FOREVER: f64 = -1.0;

/// The library's version, such as "0.1.0".
#[allow(unsafe_code, reason = "the symbol's name")]
#[unsafe(no_mangle)]
pub extern "C" fn unisono_version() -> *const c_char {
    const VERSION: &std::ffi::CStr =
        match std::ffi::CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => c"",
        };
    VERSION.as_ptr()
}

/// UNISONO_ABI_VERSION of the library that was loaded.
#[allow(unsafe_code, reason = "the symbol's name")]
#[unsafe(no_mangle)]
pub extern "C" fn unisono_abi_version() -> u32 {
    UNISONO_ABI_VERSION
}
