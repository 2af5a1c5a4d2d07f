//! Adding operators to a library of torch's.

#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::CString;
use std::ptr::null_mut;

use parking_lot::Mutex;

use super::functions::{Functions, RawLibrary, Status};
use super::kernel::{Kernel, boxed};

/// What torch's messages about operators name as their source.
const FILE: &std::ffi::CStr = c"unisono";

/// A library of torch's (what is between the dots in `torch.ops.<library>.<operator>`), to add operators to. They stay as long as
/// the process lives.
pub(crate) struct Library {
    functions: &'static Functions,
    name: CString,
    handle: RawLibrary,
    /// For each dispatch key a library of implementations.
    keys: Mutex<HashMap<&'static str, RawLibrary>>,
}

// SAFETY: torch's registrations are guarded by a lock of its own, and the handles are used for nothing else.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

impl Library {
    /// The library with this name, whether it has operators already or none.
    ///
    /// # Errors
    /// Text that says what is missing: torch is not in the process, or is older than 2.7.
    pub(crate) fn open(name: &str) -> Result<Self, String> {
        let functions = Functions::get()?;
        let name = text(name)?;
        let mut handle = null_mut();
        // SAFETY: both texts end with a zero and are copied; the place for the handle is ours.
        let status =
            unsafe { (functions.open_fragment)(name.as_ptr(), FILE.as_ptr(), line!(), &raw mut handle) };
        done(status, || format!("open the library {name:?}"))?;
        Ok(Library { functions, name, handle, keys: Mutex::default() })
    }

    /// Add an operator: `name(Tensor(a!) data, int handle=0) -> ()`.
    ///
    /// # Errors
    /// The schema makes no sense to torch (which prints why), or there is an operator of that name.
    pub(crate) fn define(&self, schema: &str) -> Result<(), String> {
        let schema = text(schema)?;
        // SAFETY: the handle is a library's; the text ends with a zero and is copied.
        let status = unsafe { (self.functions.define)(self.handle, schema.as_ptr()) };
        done(status, || format!("define {schema:?}"))
    }

    /// Have `K` do the work of the operator with its name, for tensors with this dispatch key: `"CPU"`.
    ///
    /// # Errors
    /// torch refused, and printed why.
    pub(crate) fn implement<K: Kernel>(&self, key: &'static str) -> Result<(), String> {
        let library = self.implementations(key)?;
        let name = text(K::NAME)?;
        // SAFETY: the handle is a library's, the text ends with a zero and is copied, and the kernel is a function with torch's
        // calling convention for such kernels.
        let status = unsafe { (self.functions.implement)(library, name.as_ptr(), boxed::<K>) };
        done(status, || format!("implement {name:?}"))
    }

    fn implementations(&self, key: &'static str) -> Result<RawLibrary, String> {
        let mut keys = self.keys.lock();
        if let Some(library) = keys.get(key) {
            return Ok(*library);
        }
        let key_text = text(key)?;
        let mut handle = null_mut();
        // SAFETY: as in `open`.
        let status = unsafe {
            let open = self.functions.open_implementation;
            open(self.name.as_ptr(), key_text.as_ptr(), FILE.as_ptr(), line!(), &raw mut handle)
        };
        done(status, || format!("open the library {:?} for {key}", self.name))?;
        keys.insert(key, handle);
        Ok(handle)
    }
}

fn text(text: &str) -> Result<CString, String> {
    CString::new(text).map_err(|_| format!("{text:?} has a zero in it"))
}

fn done(status: Status, what: impl FnOnce() -> String) -> Result<(), String> {
    if status == 0 { Ok(()) } else { Err(format!("torch could not {}; it has printed why", what())) }
}
