//! Vendors' libraries, loaded when they are first needed, and what they say when something is wrong.
//!
//! The invariant: a function is called by the type under which it was looked up, and never after its library is gone: libraries
//! stay loaded until the process ends.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};

use libloading::Library;

use crate::error::Error;

/// Loads the first library that is there: the one that `variable` names, or one of `names`.
///
/// # Errors
///
/// [`Error::NoLibrary`] with all that was tried, and what the loader said to each.
pub(super) fn load(
    what: &'static str,
    variable: &'static str,
    names: &[&str],
) -> Result<&'static Library, Error> {
    let chosen = std::env::var(variable).ok().filter(|chosen| !chosen.is_empty());
    let names = chosen.as_deref().map_or_else(|| names.to_vec(), |chosen| vec![chosen]);
    let mut tried = Vec::with_capacity(names.len());
    for name in names {
        // SAFETY: what a vendor's library does when it is loaded is the vendor's; it is the user who installed or named it.
        match unsafe { Library::new(name) } {
            Ok(library) => return Ok(Box::leak(Box::new(library))),
            Err(problem) => tried.push(format!("{name} ({problem})")),
        }
    }
    Err(Error::NoLibrary { what, tried: tried.join("; "), variable })
}

/// A table of functions by their names in a library: a struct with a field for each, and `load` that looks all of them up.
macro_rules! functions {
    ($(#[$about:meta])* $table:ident { $($(#[$meta:meta])* $name:ident: fn($($argument:ty),* $(,)?) $(-> $result:ty)?,)* }) => {
        $(#[$about])*
        #[allow(non_snake_case, reason = "the vendor's names")]
        #[derive(Clone, Copy)]
        pub(super) struct $table {
            $($(#[$meta])* pub(super) $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl $table {
            pub(super) fn load(library: &'static libloading::Library) -> Result<Self, crate::error::Error> {
                Ok(Self {
                    // SAFETY: the field's type is the function's as the vendor declares it.
                    $($name: *unsafe {
                        library.get::<unsafe extern "C" fn($($argument),*) $(-> $result)?>(
                            concat!(stringify!($name), "\0").as_bytes(),
                        )
                    }
                    .map_err(|problem| crate::error::Error::Driver {
                        call: stringify!($name),
                        reason: format!("the library has no such function: {problem}"),
                    })?,)*
                })
            }
        }

        impl std::fmt::Debug for $table {
            fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str(stringify!($table))
            }
        }
    };
}
pub(super) use functions;

/// A vendor's text; empty where there is none.
///
/// # Safety
///
/// The pointer is null or to a text that ends with a zero and stays.
pub(super) unsafe fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

/// `CUDA_ERROR_INVALID_VALUE (1): invalid argument`.
pub(super) fn refusal(call: &'static str, code: i32, name: &str, description: &str) -> Error {
    let name = if name.is_empty() { "an error without a name" } else { name };
    let reason = match description {
        "" => format!("{name} ({code})"),
        _ => format!("{name} ({code}): {description}"),
    };
    Error::Driver { call, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_looked_for_is_said_in_full() {
        let refused = load("something", "UNISONO_NO_SUCH_VARIABLE", &["libno-such.so.1", "libno-such.so"]);
        let text = refused.map(|_| ()).unwrap_err().to_string();
        for part in ["something", "libno-such.so.1 (", "libno-such.so (", "UNISONO_NO_SUCH_VARIABLE"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn an_error_has_the_vendors_name_and_number() {
        let text = refusal("cuMemAlloc", 2, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory").to_string();
        assert_eq!(text, "cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY (2): out of memory");
    }
}
