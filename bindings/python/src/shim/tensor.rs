//! A tensor as torch hands it to a kernel.

#![allow(unsafe_code)]

use std::ptr::null_mut;

use super::failure::Failure;
use super::functions::{Functions, RawTensor, Status};
use crate::element::Element;

/// A tensor that a kernel owns a reference to.
pub(crate) struct Tensor {
    functions: &'static Functions,
    handle: RawTensor,
}

impl Drop for Tensor {
    fn drop(&mut self) {
        // SAFETY: the handle is this tensor's own, and is not used afterwards.
        unsafe { (self.functions.delete_tensor)(self.handle) };
    }
}

/// What one of torch's functions says of a tensor.
macro_rules! asked {
    ($tensor:expr, $function:ident, $initial:expr) => {{
        let mut value = $initial;
        // SAFETY: the handle is a tensor's, and the place for the answer is ours and of the function's type.
        let status = unsafe { ($tensor.functions.$function)($tensor.handle, &raw mut value) };
        answered(status, stringify!($function)).map(|()| value)
    }};
}

impl Tensor {
    /// # Safety
    /// The handle came from torch with a reference that is handed over.
    pub(super) unsafe fn from_raw(functions: &'static Functions, handle: RawTensor) -> Self {
        Tensor { functions, handle }
    }

    /// Hand the reference over to torch.
    pub(super) fn into_raw(self) -> RawTensor {
        std::mem::ManuallyDrop::new(self).handle
    }

    /// Where its elements begin. Any number if it has none.
    pub(crate) fn start(&self) -> Result<*mut u8, Failure> {
        Ok(asked!(self, data, null_mut())?.cast())
    }

    /// How many elements it has.
    pub(crate) fn count(&self) -> Result<usize, Failure> {
        let count = asked!(self, count, 0)?;
        usize::try_from(count).map_err(|_| Failure::Value(format!("a tensor has {count} elements")))
    }

    /// Of what type its elements are.
    pub(crate) fn element(&self) -> Result<Element, Failure> {
        let code = asked!(self, dtype, 0)?;
        self.functions
            .element(code)
            .ok_or_else(|| Failure::Type(format!("elements of torch's type number {code} cannot be moved")))
    }

    /// Whether it lies on the host. Kernels for the key `CPU` may have been given as `out` what does not.
    pub(crate) fn is_on_host(&self) -> Result<bool, Failure> {
        Ok(asked!(self, device, 0)? == self.functions.cpu)
    }

    /// Its extents.
    pub(crate) fn shape(&self) -> Result<Vec<i64>, Failure> {
        Ok(self.numbers(asked!(self, sizes, null_mut())?, self.rank()?))
    }

    /// Whether its elements lie one after the other, the last extent innermost.
    pub(crate) fn is_contiguous(&self) -> Result<bool, Failure> {
        if let Some(function) = self.functions.is_contiguous {
            let mut value = false;
            // SAFETY: as in `asked`.
            let status = unsafe { function(self.handle, &raw mut value) };
            return answered(status, "is_contiguous").map(|()| value);
        }
        let strides = self.numbers(asked!(self, strides, null_mut())?, self.rank()?);
        Ok(lies_in_order(&self.shape()?, &strides))
    }

    /// A new tensor on the host of this shape, with elements like this one's, whatever they are.
    pub(crate) fn new_empty(&self, shape: &[i64]) -> Result<Tensor, Failure> {
        let (functions, dtype, rank) =
            (self.functions, asked!(self, dtype, 0)?, shape.len().cast_signed() as i64);
        let strides = strides_of(shape);
        let mut handle = null_mut();
        // SAFETY: both lists have `rank` numbers, and the place for the handle is ours.
        let status = unsafe {
            let new = functions.new_empty;
            new(rank, shape.as_ptr(), strides.as_ptr(), dtype, functions.cpu, 0, &raw mut handle)
        };
        answered(status, "empty_strided")?;
        // SAFETY: torch has just made it for us.
        Ok(unsafe { Tensor::from_raw(functions, handle) })
    }

    fn rank(&self) -> Result<usize, Failure> {
        Ok(usize::try_from(asked!(self, rank, 0)?).unwrap_or_default())
    }

    fn numbers(&self, start: *const i64, count: usize) -> Vec<i64> {
        // SAFETY: torch gave a list with a number for each dimension, which lives as long as the tensor; none may be null.
        if count == 0 { Vec::new() } else { unsafe { std::slice::from_raw_parts(start, count) }.to_vec() }
    }
}

fn answered(status: Status, what: &str) -> Result<(), Failure> {
    if status == 0 {
        Ok(())
    } else {
        Err(Failure::Other(format!("torch's {what} failed; it has printed why")))
    }
}

/// What torch wants strides of contiguous tensors to be.
fn strides_of(shape: &[i64]) -> Vec<i64> {
    let mut strides = vec![1; shape.len()];
    for index in (1..shape.len()).rev() {
        strides[index - 1] = strides[index] * shape[index].max(1);
    }
    strides
}

fn lies_in_order(shape: &[i64], strides: &[i64]) -> bool {
    let expected = strides_of(shape);
    shape.contains(&0) || (0..shape.len()).all(|at| shape[at] == 1 || strides[at] == expected[at])
}
