//! Memory that all ranks have mapped, as an object with the buffer protocol, and how a communicator knows it again.
//!
//! Tensors over this memory look like any others. The communicator finds by their address that they are not: an operation in
//! place on them needs no staging.

#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::c_int;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use unisono::RegisteredMemory;

use crate::communicator::Communicator;
use crate::element::Element;

const LONGEST_HELD: Duration = Duration::from_secs(1);

/// The registered memory of a communicator, by where it begins.
#[derive(Default)]
pub(crate) struct Registry {
    /// How many there are: what every call looks at.
    count: AtomicUsize,
    memories: Mutex<BTreeMap<usize, RegisteredMemory>>,
}

impl Registry {
    /// The registered memory in which these bytes lie, and how many bytes before them.
    #[inline]
    pub(crate) fn find(&self, start: usize, bytes: usize) -> Option<(RegisteredMemory, usize)> {
        if self.count.load(Ordering::Relaxed) == 0 || bytes == 0 { None } else { self.search(start, bytes) }
    }

    fn search(&self, start: usize, bytes: usize) -> Option<(RegisteredMemory, usize)> {
        let memories = self.memories.lock();
        let (begins, memory) = memories.range(..=start).next_back()?;
        let offset = start - begins;
        (offset + bytes <= memory.size_bytes()).then(|| (memory.clone(), offset))
    }

    fn add(&self, memory: &RegisteredMemory) {
        let mut memories = self.memories.lock();
        memories.insert(memory.as_mut_ptr().addr(), memory.clone());
        self.count.store(memories.len(), Ordering::Relaxed);
    }

    fn remove(&self, memory: &RegisteredMemory) {
        // It is held for moments, unless this is a forked child in which whoever held it does not exist.
        if let Some(mut memories) = self.memories.try_lock_for(LONGEST_HELD) {
            memories.remove(&memory.as_mut_ptr().addr());
            self.count.store(memories.len(), Ordering::Relaxed);
        }
    }
}

/// A rank's piece of registered memory, as bytes; see `unisono.RegisteredBuffer` in `_core.pyi`.
#[pyclass(frozen, weakref, module = "unisono")]
pub(crate) struct RegisteredBuffer {
    memory: RegisteredMemory,
    registry: Arc<Registry>,
}

impl Drop for RegisteredBuffer {
    fn drop(&mut self) {
        self.registry.remove(&self.memory);
    }
}

#[pymethods]
impl RegisteredBuffer {
    fn __len__(&self) -> usize {
        self.memory.size_bytes()
    }

    /// # Safety
    /// Python's: `view` is valid, and given back by `PyBuffer_Release`.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let memory = &slf.get().memory;
        let length = isize::try_from(memory.size_bytes())?;
        // SAFETY: `view` is valid (the caller); the memory has that many bytes at its address and lives as long as this
        // object, to which the view holds a reference.
        let filled = unsafe {
            ffi::PyBuffer_FillInfo(view, slf.as_ptr(), memory.as_mut_ptr().cast(), length, 0, flags)
        };
        if filled < 0 { Err(PyErr::fetch(slf.py())) } else { Ok(()) }
    }
}

#[pymethods]
impl Communicator {
    /// A tensor over registered memory.
    #[pyo3(signature = (shape, dtype=None))]
    fn empty<'py>(
        slf: &Bound<'py, Self>,
        shape: &Bound<'py, PyAny>,
        dtype: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let tensors = slf.py().import("unisono._tensors")?;
        match dtype {
            Some(dtype) => tensors.call_method1("empty", (slf, shape, dtype)),
            None => tensors.call_method1("empty", (slf, shape, "f32")),
        }
    }

    /// Registered memory for `count` elements of the type with this name, on every rank, zeroed.
    fn allocate(&self, py: Python<'_>, count: usize, dtype: &str) -> PyResult<RegisteredBuffer> {
        let element = Element::named(dtype).ok_or_else(|| {
            PyValueError::new_err(format!("empty: no type of elements is called {dtype:?}"))
        })?;
        let units = element.moved();
        let count = count.saturating_mul(units.each);
        let memory = self.detached(py, |comm| comm.raw().alloc(count, units.dtype))?;
        let registry = Arc::clone(&self.registered);
        if !memory.is_empty() {
            registry.add(&memory);
        }
        Ok(RegisteredBuffer { memory, registry })
    }
}
