//! Several tensors of this process folded into one, as a reduction folds those of several ranks.
//!
//! For data that came from elsewhere, such as other nodes' sums: the result has the bits that a reduction over ranks with
//! these values would have, whatever the machine.

#![allow(unsafe_code)]

use std::ptr::{with_exposed_provenance as from, with_exposed_provenance_mut as to};

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use unisono_kernels::Reducer;

use crate::tensor::Tensor;

/// Fold `tensors`, in their order, into `out`, which may be one of them.
#[pyfunction]
#[pyo3(signature = (tensors, op, out))]
pub(crate) fn fold(
    py: Python<'_>,
    tensors: Vec<Bound<'_, PyAny>>,
    op: &str,
    out: &Bound<'_, PyAny>,
) -> PyResult<()> {
    const NAME: &str = "fold";
    let output = Tensor::output(NAME, "out", out)?;
    let inputs =
        tensors.iter().map(|tensor| Tensor::input(NAME, "tensors", tensor)).collect::<PyResult<Vec<_>>>()?;
    if inputs.is_empty() {
        return Err(PyValueError::new_err(format!(
            "{NAME}: there is nothing to fold: give at least one tensor"
        )));
    }
    for input in &inputs {
        input.expect(NAME, "tensors", output.element(), "out")?;
        input.expect_count(NAME, "tensors", output.count())?;
    }
    let (units, op) = output.element().reduced(NAME, op)?;
    let bytes = output.count() * output.element().size_bytes();
    let overlaps = |start: usize| start != output.start() && start.abs_diff(output.start()) < bytes;
    if inputs.iter().any(|input| overlaps(input.start())) {
        return Err(PyValueError::new_err(format!(
            "{NAME}: out overlaps a tensor: pass the same memory, or other memory"
        )));
    }
    let reducer = Reducer::new(units.dtype, op)
        .map_err(|problem| PyTypeError::new_err(format!("{NAME}: {problem}")))?;
    let count = output.count() * units.each;
    let (starts, end) = (inputs.iter().map(Tensor::start).collect::<Vec<_>>(), output.start());
    py.detach(|| {
        let sources: Vec<*const u8> = starts.into_iter().map(from).collect();
        // SAFETY: every tensor holds that many elements, as it said, and is kept in place until the call is over; the output is
        // one of them or overlaps none (checked), and there is at least one.
        unsafe { reducer.reduce(&[to(end)], &sources, count) };
    });
    Ok(())
}
