//! What a pickler gives, on its way into a message.
//!
//! A pickler writes to it as to a file, and calls it with each buffer that may be left out of band. What is short is
//! gathered; long bytes objects and large buffers are held and copied once, into the message.

use parking_lot::Mutex;
use pyo3::buffer::PyUntypedBuffer;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::wire::{Bytes, Parts};

/// Buffers from here on are left out of band.
const OUT_OF_BAND: usize = 1 << 20;
/// Bytes objects from here on are held instead of copied.
const LONG: usize = 32 << 10;
/// More than this is not kept for the next message.
const MOST_KEPT: usize = 2 << 20;

/// Takes what a pickler writes; see `Pickled` in `_core.pyi`.
#[pyclass(frozen, module = "unisono._core")]
#[derive(Default)]
pub(crate) struct Pickled(Mutex<Contents>);

/// What was written so far.
#[derive(Default)]
pub(super) struct Contents {
    gathered: Vec<u8>,
    /// The main part's pieces, in order.
    pieces: Vec<Piece>,
    buffers: Vec<PyUntypedBuffer>,
}

enum Piece {
    /// Up to here of what was gathered.
    GatheredTo(usize),
    Long(Py<PyBytes>),
}

impl Contents {
    fn clear(&mut self) {
        self.gathered.clear();
        self.gathered.shrink_to(MOST_KEPT);
        self.pieces.clear();
        self.buffers.clear();
    }

    /// What is to be written, as long as this lives unchanged.
    pub(super) fn parts(&self, py: Python<'_>) -> PyResult<Parts> {
        let mut main = Vec::with_capacity(self.pieces.len());
        let mut from = 0;
        for piece in &self.pieces {
            match piece {
                Piece::GatheredTo(end) => {
                    main.push(Bytes::of_slice(self.gathered.get(from..*end).unwrap_or_default()));
                    from = *end;
                }
                Piece::Long(bytes) => main.push(Bytes::of_slice(bytes.as_bytes(py))),
            }
        }
        let others = self.buffers.iter().map(Bytes::of).collect::<PyResult<_>>()?;
        Ok(Parts { main, others })
    }
}

impl Pickled {
    pub(super) fn take(&self) -> Contents {
        std::mem::take(&mut *self.0.lock())
    }

    /// Put back what was taken.
    pub(super) fn give_back(&self, contents: Contents) {
        let replaced = std::mem::replace(&mut *self.0.lock(), contents);
        drop(replaced); // Not under the lock: buffers are Python's.
    }
}

#[pymethods]
impl Pickled {
    #[new]
    fn new() -> Self {
        Pickled::default()
    }

    /// Forget what was written.
    fn clear(&self) {
        let mut contents = self.take();
        contents.clear();
        self.give_back(contents); // Its memory is for what is pickled next.
    }

    fn write(&self, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        if let Ok(bytes) = data.cast_exact::<PyBytes>() {
            let slice = bytes.as_bytes();
            let mut contents = self.0.lock();
            if slice.len() < LONG {
                contents.gathered.extend_from_slice(slice);
                contents.gather();
            } else {
                contents.pieces.push(Piece::Long(bytes.clone().unbind()));
            }
            return Ok(slice.len());
        }
        // Of others nobody knows how long they stay.
        let buffer = PyUntypedBuffer::get(data)?;
        let from = Bytes::of(&buffer)?;
        let mut contents = self.0.lock();
        let begin = contents.gathered.len();
        contents.gathered.resize(begin + from.len(), 0);
        from.copy_at(0, contents.gathered.get_mut(begin..).unwrap_or_default());
        contents.gather();
        Ok(from.len())
    }

    /// Whether the buffer is to be pickled in band.
    fn __call__(&self, buffer: &Bound<'_, PyAny>) -> PyResult<bool> {
        let raw = buffer.call_method0(intern!(buffer.py(), "raw"))?;
        let raw = PyUntypedBuffer::get(&raw)?;
        if raw.len_bytes() < OUT_OF_BAND {
            return Ok(true);
        }
        self.0.lock().buffers.push(raw);
        Ok(false)
    }
}

impl Contents {
    /// What was gathered is a piece, together with what was gathered just before.
    fn gather(&mut self) {
        let end = self.gathered.len();
        match self.pieces.last_mut() {
            Some(Piece::GatheredTo(last)) => *last = end,
            _ => self.pieces.push(Piece::GatheredTo(end)),
        }
    }
}
