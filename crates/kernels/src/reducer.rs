//! The door to the reduce kernels.
//!
//! A [`Reducer`] is made once for a type and an operation, when the kernel is looked up; a call of
//! [`Reducer::reduce`] then costs an indirect call and, for floats, a look at the thread's modes. The
//! collectives make one per operation. The one invariant that matters: whatever the reducer was resolved to,
//! it gives the same bits.

#![allow(unsafe_code)]

use std::fmt;

use crate::arch::{Kernels, kernels, selected};
use crate::dtype::DType;
use crate::float_environment::DefaultFloatEnvironment;
use crate::generic::instruction_set::Kernel;
use crate::isa::Isa;
use crate::op::ReduceOp;

/// A reduction was asked for that is not defined: a bitwise operation on floats.
///
/// Use an integer type, or one of sum, product, min, max and average.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("reduction {op} is not defined for elements of type {dtype}: and, or and xor are for integers only")]
pub struct UnsupportedReduction {
    /// The element type that was asked for.
    pub dtype: DType,
    /// The operation that was asked for.
    pub op: ReduceOp,
}

/// Rows of memory: the first one, and how far it is from one to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strided<Pointer> {
    /// The first byte of the first row.
    pub pointer: Pointer,
    /// The distance in bytes from the start of a row to the start of the next.
    pub stride: usize,
}

/// Folds values of one type from several places into one, with one operation.
///
/// The same inputs give the same bits on every machine and instruction set; see the crate's description.
#[derive(Clone, Copy)]
pub struct Reducer {
    kernel: Kernel,
    dtype: DType,
    op: ReduceOp,
    isa: Isa,
}

impl Reducer {
    /// The reducer for this type and operation, on [`Isa::selected`], or on the best instruction set where
    /// that is an error.
    ///
    /// # Errors
    /// [`UnsupportedReduction`] for a bitwise operation on floats.
    #[inline(always)]
    pub fn new(dtype: DType, op: ReduceOp) -> Result<Reducer, UnsupportedReduction> {
        Reducer::of(selected(), dtype, op)
    }

    /// The reducer for this type and operation on the given instruction set, or on the portable one where
    /// the machine lacks it ([`Reducer::isa`] tells).
    ///
    /// # Errors
    /// [`UnsupportedReduction`] for a bitwise operation on floats.
    pub fn with_isa(dtype: DType, op: ReduceOp, isa: Isa) -> Result<Reducer, UnsupportedReduction> {
        Reducer::of(&kernels(isa), dtype, op)
    }

    // Always: handed over in memory, its single bytes would be read back as a word, which waits for them to be written.
    #[inline(always)]
    fn of(kernels: &Kernels, dtype: DType, op: ReduceOp) -> Result<Reducer, UnsupportedReduction> {
        let kernel = (kernels.reduction)(dtype, op).ok_or(UnsupportedReduction { dtype, op })?;
        Ok(Reducer { kernel, dtype, op, isa: kernels.isa })
    }

    /// The type of the elements.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The operation.
    pub fn op(&self) -> ReduceOp {
        self.op
    }

    /// The instruction set of the kernel.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// For each of `count` elements, folds the values of all sources, in their order, and stores the result
    /// to every destination.
    ///
    /// The memory may be written by others meanwhile: the results are then unspecified, and nothing worse.
    ///
    /// # Safety
    /// `count` elements may be read at each source and written at each destination, at any alignment. There
    /// is at least one source. A destination is the same pointer as one of the sources, or overlaps no
    /// source and no other destination.
    #[inline]
    pub unsafe fn reduce(&self, destinations: &[*mut u8], sources: &[*const u8], count: usize) {
        let _modes = self.dtype.is_float().then(DefaultFloatEnvironment::enter);
        // SAFETY: the machine has the kernel's instruction set, as `with_isa` takes kernels from
        // `arch::kernels` alone, which asks; the rest is what the caller vouches for.
        unsafe { (self.kernel)(destinations, sources, count) };
    }

    /// As [`Reducer::reduce`], for `rows` rows of `row_count` elements each.
    ///
    /// # Safety
    /// As for [`Reducer::reduce`], for each row: row `i` of a place begins at `pointer + i * stride`. No row
    /// of a destination overlaps another row of any place, except the same row of a source that has the same
    /// pointer and stride.
    pub unsafe fn reduce_rows(
        &self,
        destinations: &[Strided<*mut u8>],
        sources: &[Strided<*const u8>],
        row_count: usize,
        rows: usize,
    ) {
        let row_bytes = row_count * self.dtype.size_bytes();
        let is_dense = destinations.iter().all(|place| place.stride == row_bytes)
            && sources.iter().all(|place| place.stride == row_bytes);
        let (row_count, rows) = if is_dense { (row_count * rows, rows.min(1)) } else { (row_count, rows) };
        let _modes = self.dtype.is_float().then(DefaultFloatEnvironment::enter);
        with_pointers(destinations, |destination_row| {
            with_pointers(sources, |source_row| {
                for row in 0..rows {
                    for (pointer, place) in destination_row.iter_mut().zip(destinations) {
                        *pointer = place.pointer.wrapping_add(row * place.stride);
                    }
                    for (pointer, place) in source_row.iter_mut().zip(sources) {
                        *pointer = place.pointer.wrapping_add(row * place.stride);
                    }
                    // SAFETY: the kernel's instruction set is there, as in `reduce`; the caller vouches for
                    // this row of every place, and dense rows are one row of their sum.
                    unsafe { (self.kernel)(destination_row, source_row, row_count) };
                }
            });
        });
    }
}

/// How many pointers of a row fit the stack.
const POINTERS_ON_STACK: usize = 64;

/// Calls with one pointer for each place: those of the first row.
fn with_pointers<Pointer: Copy>(places: &[Strided<Pointer>], use_them: impl FnOnce(&mut [Pointer])) {
    match places {
        [] => use_them(&mut []),
        &[first, ..] if places.len() <= POINTERS_ON_STACK => {
            let mut pointers = [first.pointer; POINTERS_ON_STACK];
            use_them(&mut pointers[..places.len()]);
        }
        _ => use_them(&mut places.iter().map(|place| place.pointer).collect::<Vec<_>>()),
    }
}

impl fmt::Debug for Reducer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Reducer")
            .field("dtype", &self.dtype)
            .field("op", &self.op)
            .field("isa", &self.isa)
            .finish_non_exhaustive()
    }
}
