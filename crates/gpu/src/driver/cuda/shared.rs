//! What the clones of a device have in common: its context, what was loaded, and how the driver is called.
//!
//! The invariant: whatever is current for a thread before a call is so again after it.

#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::{CString, c_int};
use std::ptr::null_mut;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use libloading::Library;
use unisono_os::fork_guard::ForkMark;

use super::super::library::{self, refusal, text};
use super::api::{self, Cuda, Opaque, SUCCESS, Switch};
use super::multicast::Multicasts;
use super::{Kernel, LIBRARY_NAMES};
use crate::error::Error;
use crate::packet::HostWords;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) cuda: Cuda,
    pub(super) device: c_int,
    /// The driver's pointers are kept as numbers: only the driver looks behind them, from any thread.
    pub(super) context: usize,
    /// A stream of our own, for what must not be recorded into somebody's graph.
    pub(super) own_stream: usize,
    pub(super) modules: Mutex<Modules>,
    /// Memory of the host that the device reaches: by the device's address.
    pub(super) host: Mutex<HashMap<u64, HostMemory>>,
    /// The host's words that are mapped: by the device's address.
    pub(super) words: Mutex<HashMap<u64, Arc<HostWords>>>,
    pub(super) born: ForkMark,
    pub(super) multicasts: Multicasts,
}

#[derive(Debug, Default)]
pub(super) struct Modules {
    /// By where the text is: it is static.
    pub(super) loaded: HashMap<usize, usize>,
    pub(super) kernels: HashMap<(usize, String), Kernel>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct HostMemory {
    pub(super) pointer: usize,
    pub(super) bytes: usize,
}

impl Shared {
    /// Calls with the context current; what was current before is so again afterwards.
    pub(super) fn call(&self, name: &'static str, call: impl FnOnce() -> c_int) -> Result<(), Error> {
        let cuda = &self.cuda;
        // SAFETY: the context is retained as long as this is.
        check(cuda, "cuCtxPushCurrent", unsafe { (cuda.cuCtxPushCurrent_v2)(pointer(self.context)) })?;
        let code = call();
        let mut popped = null_mut();
        // SAFETY: a place for one pointer.
        let back = unsafe { (cuda.cuCtxPopCurrent_v2)(&raw mut popped) };
        check(cuda, name, code)?;
        check(cuda, "cuCtxPopCurrent", back)
    }

    /// As [`Shared::call`], of what is to happen now though some stream may be recorded into a graph: unless this thread says
    /// so, the driver refuses such calls and spoils the graph.
    pub(super) fn call_uncaptured(
        &self,
        name: &'static str,
        call: impl FnOnce() -> c_int,
    ) -> Result<(), Error> {
        let exchange = self.cuda.cuThreadExchangeStreamCaptureMode;
        let mut mode = api::RELAXED;
        // SAFETY: the driver reads the number and writes the one before.
        check(&self.cuda, "cuThreadExchangeStreamCaptureMode", unsafe { exchange(&raw mut mode) })?;
        let done = self.call(name, call);
        // SAFETY: as above.
        let back = unsafe { exchange(&raw mut mode) };
        done?;
        check(&self.cuda, "cuThreadExchangeStreamCaptureMode", back)
    }
}

impl Shared {
    /// Takes back what `map_host` registered. Where that fails the device may still reach it: it is never unmapped then.
    pub(super) fn unregister(&self, words: Arc<HostWords>) -> Result<(), Error> {
        let memory = words.pages().0.cast();
        // SAFETY: registered by `map_host`, whose table no longer has it, so taken back once; the words are there until then.
        let done = self
            .call_uncaptured("cuMemHostUnregister", || unsafe { (self.cuda.cuMemHostUnregister)(memory) });
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
        let cuda = self.cuda;
        // Nothing can be done about an error here; at the end of a process the driver may be gone already.
        for memory in std::mem::take(&mut *lock(&self.host)).into_values() {
            let memory = std::ptr::with_exposed_provenance_mut(memory.pointer);
            // SAFETY: allocated by `allocate_host` and not freed, or it would not be in the table.
            let _ = self.call("cuMemFreeHost", || unsafe { (cuda.cuMemFreeHost)(memory) });
        }
        for words in std::mem::take(&mut *lock(&self.words)).into_values() {
            let _ = self.unregister(words);
        }
        self.leave_all();
        for module in std::mem::take(&mut *lock(&self.modules)).loaded.into_values() {
            // SAFETY: loaded by `module`, and no kernel of it is known to anybody else.
            let _ = self.call("cuModuleUnload", || unsafe { (cuda.cuModuleUnload)(pointer(module)) });
        }
        if self.own_stream != 0 {
            let stream = pointer(self.own_stream);
            // SAFETY: created by `new`, used by nobody else.
            let _ = self.call("cuStreamDestroy", || unsafe { (cuda.cuStreamDestroy_v2)(stream) });
        }
        // SAFETY: retained by `new`.
        let _ = unsafe { (cuda.cuDevicePrimaryCtxRelease_v2)(self.device) };
    }
}

/// Loads and initialises the driver, once.
pub(super) fn load() -> Result<Cuda, Error> {
    loaded().map(|(cuda, _)| cuda)
}

/// What multicast objects take of it.
pub(super) fn load_switch() -> Result<Switch, Error> {
    let (_, library) = loaded()?;
    Switch::load(library).map_err(|missing| Error::NoMulticast {
        why: format!("NVIDIA's driver is too old for them: {missing}"),
    })
}

fn loaded() -> Result<(Cuda, &'static Library), Error> {
    static LOADED: OnceLock<Result<(Cuda, &'static Library), Error>> = OnceLock::new();
    LOADED
        .get_or_init(|| {
            let library = library::load("NVIDIA's driver", "UNISONO_CUDA_LIBRARY", &LIBRARY_NAMES)?;
            let cuda = Cuda::load(library)?;
            // SAFETY: takes no flags; may be called any number of times.
            check(&cuda, "cuInit", unsafe { (cuda.cuInit)(0) })?;
            Ok((cuda, library))
        })
        .clone()
}

pub(super) fn check(cuda: &Cuda, call: &'static str, code: c_int) -> Result<(), Error> {
    if code == SUCCESS {
        return Ok(());
    }
    let (mut name, mut description) = (std::ptr::null(), std::ptr::null());
    // SAFETY: any number may be asked about; places for one pointer each.
    let _ = unsafe { (cuda.cuGetErrorName)(code, &raw mut name) };
    // SAFETY: as above.
    let _ = unsafe { (cuda.cuGetErrorString)(code, &raw mut description) };
    // SAFETY: null, or texts of the driver's that stay.
    let (name, description) = unsafe { (text(name), text(description)) };
    Err(refusal(call, code, &name, &description))
}

pub(super) fn pointer(number: usize) -> Opaque {
    std::ptr::without_provenance_mut(number)
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
