//! Registered (symmetric) memory: allocated by all ranks at once, and mapped by all.
//!
//! Large collectives on it need no staging (see [`push_bytes`](crate::Parameters)): ranks read and write one another's memory in
//! place. [`Communicator::alloc`](crate::Communicator::alloc) gives a [`Registered`] buffer; an operation takes all of it
//! or a [`RegisteredSlice`] of it, which must be the same on all ranks.
//!
//! The one invariant that matters: **no reference to the contents is ever made**, because other ranks write them during an
//! operation. Contents are copied in and out; who can promise that no operation is under way may ask for a slice.

#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use unisono_kernels::{DType, Element};

use crate::error::{Error, Result};
use crate::group::allocation::Allocation;
use crate::memory::{Source, Target, copy};

/// How many elements are filled at a time.
const FILLED_AT_ONCE: usize = 512;

/// A rank's buffer of registered memory; every rank of the communicator has one of the same type and length.
///
/// Dropping it is local: peers that still use it keep it. It may outlive the communicator.
///
/// ```
/// use unisono::{Communicator, ReduceOp};
///
/// let ranks = Communicator::in_process(2)?;
/// std::thread::scope(|scope| {
///     for comm in ranks {
///         scope.spawn(move || {
///             let mut hidden = comm.alloc::<f32>(100_000)?;
///             hidden.fill(comm.rank() as f32 + 1.0)?;
///             comm.all_reduce_registered(&mut hidden, ReduceOp::Sum)?;
///             comm.all_reduce_registered(hidden.slice(..64)?, ReduceOp::Max)?;
///             assert_eq!(hidden.get(0)?, 3.0);
///             Ok::<_, unisono::Error>(())
///         });
///     }
/// });
/// # Ok::<_, unisono::Error>(())
/// ```
#[derive(Debug)]
pub struct Registered<T> {
    memory: RegisteredMemory,
    elements: PhantomData<T>,
}

/// A part of a [`Registered`] buffer, for one operation. Every rank passes the part with the same offset and length.
#[derive(Debug)]
pub struct RegisteredSlice<'a, T> {
    memory: &'a RegisteredMemory,
    offset: usize,
    count: usize,
    elements: PhantomData<&'a mut [T]>,
}

/// Registered memory whose element type is given at run time: for bindings, see [`Raw`](crate::Raw).
///
/// Cloning gives another handle on the same memory.
#[derive(Clone, Debug)]
pub struct RegisteredMemory {
    pub(crate) allocation: Arc<Allocation>,
    count: usize,
    dtype: DType,
}

impl RegisteredMemory {
    pub(crate) fn new(allocation: Allocation, count: usize, dtype: DType) -> Self {
        RegisteredMemory { allocation: Arc::new(allocation), count, dtype }
    }

    /// How many elements it was allocated for.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The type it was allocated for; operations may take it for another.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Its size in bytes.
    pub fn size_bytes(&self) -> usize {
        self.count * self.dtype.size_bytes()
    }

    /// Where this rank's memory begins: at a page. Other ranks write it during an operation, and it is not mapped in a forked
    /// child.
    pub fn as_mut_ptr(&self) -> *mut u8 {
        self.allocation.own().pointer()
    }

    /// This rank's bytes of the elements from `offset` on, which lie inside.
    fn bytes_of<T: Element>(
        &self,
        operation: &'static str,
        offset: usize,
        count: usize,
    ) -> Result<Target<'_>> {
        self.allocation.check_mapped(operation)?;
        if offset.checked_add(count).is_none_or(|end| end > self.count) {
            let problem = format!(
                "{count} elements from {offset} reach outside the {} that were allocated",
                self.count
            );
            return Err(Error::argument(operation, problem));
        }
        Ok(self.allocation.own().part(offset * size_of::<T>(), count * size_of::<T>()))
    }
}

impl<T: Element> Registered<T> {
    pub(crate) fn new(memory: RegisteredMemory) -> Self {
        Registered { memory, elements: PhantomData }
    }

    /// How many elements it has.
    pub fn len(&self) -> usize {
        self.memory.count
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.memory.count == 0
    }

    /// A part of it.
    ///
    /// # Errors
    /// [`InvalidArgument`](Error::InvalidArgument) if it reaches outside.
    pub fn slice(&mut self, range: impl RangeBounds<usize>) -> Result<RegisteredSlice<'_, T>> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => self.len(),
        };
        if start > end || end > self.len() {
            let problem =
                format!("elements {start} to {end} reach outside the {} that were allocated", self.len());
            return Err(Error::argument("slice", problem));
        }
        Ok(RegisteredSlice { memory: &self.memory, offset: start, count: end - start, elements: PhantomData })
    }

    /// Copy `into.len()` elements from `offset` on out of it.
    ///
    /// # Errors
    /// [`InvalidArgument`](Error::InvalidArgument) if they reach outside; [`Forked`](Error::Forked) in a forked child.
    pub fn read_into(&self, offset: usize, into: &mut [T]) -> Result<()> {
        let from = self.memory.bytes_of::<T>("read_into", offset, into.len())?;
        copy(Target::of(into), from.as_source());
        Ok(())
    }

    /// Copy `from` into it, to the elements from `offset` on.
    ///
    /// # Errors
    /// As [`read_into`](Self::read_into).
    pub fn write_from(&mut self, offset: usize, from: &[T]) -> Result<()> {
        copy(self.memory.bytes_of::<T>("write_from", offset, from.len())?, Source::of(from));
        Ok(())
    }

    /// One element.
    ///
    /// # Errors
    /// As [`read_into`](Self::read_into).
    pub fn get(&self, index: usize) -> Result<T> {
        let from = self.memory.bytes_of::<T>("get", index, 1)?;
        // SAFETY: one whole element lies there (just checked); any bit pattern is a value of an `Element`, and
        // the read asks for no alignment. A peer that writes meanwhile changes the value and nothing else.
        Ok(unsafe { from.pointer().cast::<T>().read_unaligned() })
    }

    /// Set one element.
    ///
    /// # Errors
    /// As [`read_into`](Self::read_into).
    pub fn set(&mut self, index: usize, value: T) -> Result<()> {
        self.write_from(index, &[value])
    }

    /// Set every element to `value`.
    ///
    /// # Errors
    /// [`Forked`](Error::Forked) in a forked child.
    pub fn fill(&mut self, value: T) -> Result<()> {
        let values = [value; FILLED_AT_ONCE];
        for offset in (0..self.len()).step_by(FILLED_AT_ONCE) {
            let count = FILLED_AT_ONCE.min(self.len() - offset);
            self.write_from(offset, &values[..count])?;
        }
        Ok(())
    }

    /// Where this rank's elements begin: at a page. Other ranks write them during an operation.
    pub fn as_ptr(&self) -> *const T {
        self.memory.as_mut_ptr().cast_const().cast()
    }

    /// As [`as_ptr`](Self::as_ptr), to write them.
    pub fn as_mut_ptr(&mut self) -> *mut T {
        self.memory.as_mut_ptr().cast()
    }

    /// This rank's elements, without copying.
    ///
    /// # Safety
    /// As long as the slice lives, no operation on this memory is under way on any rank, nobody writes the memory by
    /// other means, and this process is not a forked child. When an operation has returned successfully on this
    /// rank it is over on all; after an error it may not be, and the memory must not be looked at this way any more.
    pub unsafe fn as_slice(&self) -> &[T] {
        // SAFETY: the memory begins at a page, holds `len` elements, of which any bit pattern is a value, and lives as
        // long as `self`; the caller promises that nobody writes it.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.len()) }
    }

    /// As [`as_slice`](Self::as_slice), to write them.
    ///
    /// # Safety
    /// As there, and nobody reads the memory either.
    pub unsafe fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: as in `as_slice`; the caller promises that nobody else uses the memory, and `self` is borrowed
        // exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr(), self.len()) }
    }

    /// The memory, for operations that take the element type at run time.
    pub fn memory(&self) -> &RegisteredMemory {
        &self.memory
    }
}

impl<'a, T: Element> RegisteredSlice<'a, T> {
    /// How many elements it has.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Its first element's place in the buffer.
    pub fn offset(&self) -> usize {
        self.offset
    }

    pub(crate) fn memory(&self) -> &'a RegisteredMemory {
        self.memory
    }
}

impl<'a, T: Element> From<&'a mut Registered<T>> for RegisteredSlice<'a, T> {
    /// All of it.
    fn from(all: &'a mut Registered<T>) -> Self {
        RegisteredSlice { memory: &all.memory, offset: 0, count: all.len(), elements: PhantomData }
    }
}
