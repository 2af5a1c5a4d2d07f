//! What the clones of a device have in common: what was loaded, and how the runtime is called.
//!
//! The invariant: whatever is current for a thread before a call is so again after it.

#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::{CString, c_int};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use unisono_os::fork_guard::ForkMark;

use super::super::library::{self, refusal, text};
use super::api::{self, Hip, Pointer, SUCCESS};
use super::{Kernel, LIBRARY_NAMES};
use crate::error::Error;
use crate::packet::HostWords;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) hip: Hip,
    pub(super) device: c_int,
    /// A stream of our own, for what must not be recorded into somebody's graph. Pointers of the runtime's are kept as numbers.
    pub(super) own_stream: usize,
    pub(super) modules: Mutex<Modules>,
    /// Memory of the host that the device reaches: by the device's address, where it is for the host, and its length.
    pub(super) host: Mutex<HashMap<u64, (usize, usize)>>,
    /// The host's words that are mapped: by the device's address.
    pub(super) words: Mutex<HashMap<u64, Arc<HostWords>>>,
    pub(super) born: ForkMark,
}

#[derive(Debug, Default)]
pub(super) struct Modules {
    /// By where the same kernels' PTX is: it is static.
    pub(super) loaded: HashMap<usize, usize>,
    pub(super) kernels: HashMap<(usize, String), Kernel>,
}

impl Shared {
    /// Calls with the device current for this thread.
    pub(super) fn call(&self, name: &'static str, call: impl FnOnce() -> c_int) -> Result<(), Error> {
        let (hip, mut before) = (&self.hip, 0);
        // SAFETY: a place for one number.
        check(hip, "hipGetDevice", unsafe { (hip.hipGetDevice)(&raw mut before) })?;
        if before == self.device {
            return check(hip, name, call());
        }
        // SAFETY: takes a number, and checks it.
        check(hip, "hipSetDevice", unsafe { (hip.hipSetDevice)(self.device) })?;
        let code = call();
        // SAFETY: as above.
        let back = unsafe { (hip.hipSetDevice)(before) };
        check(hip, name, code)?;
        check(hip, "hipSetDevice", back)
    }

    /// As [`Shared::call`], of what is to happen now though some stream may be recorded into a graph: unless this thread says
    /// so, the runtime refuses such calls and spoils the graph.
    pub(super) fn call_uncaptured(
        &self,
        name: &'static str,
        call: impl FnOnce() -> c_int,
    ) -> Result<(), Error> {
        let exchange = self.hip.hipThreadExchangeStreamCaptureMode;
        let mut mode = api::RELAXED;
        // SAFETY: the runtime reads the number and writes the one before.
        check(&self.hip, "hipThreadExchangeStreamCaptureMode", unsafe { exchange(&raw mut mode) })?;
        let done = self.call(name, call);
        // SAFETY: as above.
        let back = unsafe { exchange(&raw mut mode) };
        done?;
        check(&self.hip, "hipThreadExchangeStreamCaptureMode", back)
    }
}

impl Shared {
    /// Takes back what `map_host` registered. Where that fails the device may still reach it: it is never unmapped then.
    pub(super) fn unregister(&self, words: Arc<HostWords>) -> Result<(), Error> {
        let memory = words.pages().0.cast();
        // SAFETY: registered by `map_host`, whose table no longer has it, so taken back once; the words are there until then.
        let done =
            self.call_uncaptured("hipHostUnregister", || unsafe { (self.hip.hipHostUnregister)(memory) });
        if done.is_err() {
            std::mem::forget(words);
        }
        done
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // A forked child has no driver.
        if self.born.crossed_fork() {
            return;
        }
        let hip = self.hip;
        // Nothing can be done about an error here; at the end of a process the runtime may be gone already.
        for (memory, _) in std::mem::take(&mut *lock(&self.host)).into_values() {
            // SAFETY: allocated by `allocate_host` and not freed, or it would not be in the table.
            let _ = self.call("hipHostFree", || unsafe { (hip.hipHostFree)(pointer(memory as u64)) });
        }
        for words in std::mem::take(&mut *lock(&self.words)).into_values() {
            let _ = self.unregister(words);
        }
        for module in std::mem::take(&mut *lock(&self.modules)).loaded.into_values() {
            // SAFETY: loaded by `module`, and no kernel of it is known to anybody else.
            let _ = self.call("hipModuleUnload", || unsafe { (hip.hipModuleUnload)(pointer(module as u64)) });
        }
        if self.own_stream != 0 {
            let stream = pointer(self.own_stream as u64);
            // SAFETY: created by `new`, used by nobody else.
            let _ = self.call("hipStreamDestroy", || unsafe { (hip.hipStreamDestroy)(stream) });
        }
    }
}

/// Loads and initialises the runtime, once.
pub(super) fn load() -> Result<Hip, Error> {
    static LOADED: OnceLock<Result<Hip, Error>> = OnceLock::new();
    LOADED
        .get_or_init(|| {
            let library = library::load("AMD's runtime", "UNISONO_HIP_LIBRARY", &LIBRARY_NAMES)?;
            let hip = Hip::load(library)?;
            // SAFETY: takes no flags; may be called any number of times.
            check(&hip, "hipInit", unsafe { (hip.hipInit)(0) })?;
            Ok(hip)
        })
        .clone()
}

pub(super) fn check(hip: &Hip, call: &'static str, code: c_int) -> Result<(), Error> {
    if code == SUCCESS {
        return Ok(());
    }
    // What is told here must not be found by the next who asks this thread's runtime how its own calls went: it remembers.
    // SAFETY: takes nothing.
    let _ = unsafe { (hip.hipGetLastError)() };
    // SAFETY: any number may be asked about; the texts are the runtime's and stay.
    let (name, description) =
        unsafe { (text((hip.hipGetErrorName)(code)), text((hip.hipGetErrorString)(code))) };
    Err(refusal(call, code, &name, &description))
}

pub(super) fn pointer(address: u64) -> Pointer {
    std::ptr::with_exposed_provenance_mut(address as usize)
}

pub(super) fn no_host_memory(call: &'static str, address: u64) -> Error {
    Error::Driver { call, reason: format!("no memory of the host that was allocated begins at {address:#x}") }
}

pub(super) fn zero_terminated(text: &str) -> Result<CString, Error> {
    let reason = "a text with a zero in it".to_owned();
    CString::new(text).map_err(|_| Error::Driver { call: "names", reason })
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
