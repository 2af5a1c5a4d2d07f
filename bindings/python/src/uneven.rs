//! The collectives with a count per rank. Counts are rows: what lies at one index of the first dimension.

#![allow(unsafe_code)]

use std::ptr::with_exposed_provenance_mut as at;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::collectives::new_like;
use crate::communicator::Communicator;
use crate::element::Units;
use crate::tensor::Tensor;

/// Rows of a tensor: how many there are of how many elements, and the shape of one.
struct Rows {
    elements: usize,
    shape: Vec<usize>,
}

impl Rows {
    fn of(tensor: &Tensor<'_, '_>) -> PyResult<Self> {
        let shape = tensor.shape()?;
        let shape = shape.get(1..).unwrap_or_default().to_vec();
        Ok(Rows { elements: shape.iter().product(), shape })
    }

    /// That many of them, in the library's elements.
    fn counts(&self, counts: &[usize], units: Units) -> Vec<usize> {
        counts.iter().map(|rows| rows.saturating_mul(self.elements * units.each)).collect()
    }

    /// The shape of `rows` of them.
    fn shape(&self, rows: usize) -> Vec<usize> {
        [&[rows], &self.shape[..]].concat()
    }
}

fn sum(operation: &str, counts: &[usize]) -> PyResult<usize> {
    let sum = counts.iter().try_fold(0usize, |sum, count| sum.checked_add(*count));
    sum.ok_or_else(|| PyValueError::new_err(format!("{operation}: the counts make no sense")))
}

impl Communicator {
    /// How many rows this rank has by the counts of all.
    fn own_rows(&self, operation: &str, counts: &[usize]) -> PyResult<usize> {
        let (rank, world) = (self.inner().rank(), self.inner().world_size());
        if counts.len() != world {
            let found = counts.len();
            let problem = format!("{operation}: {found} counts for {world} ranks: give one for each");
            return Err(PyValueError::new_err(problem));
        }
        Ok(counts[rank])
    }
}

/// `out`, or a new tensor like `tensor`.
fn out_or_new<'py>(
    out: Option<&Bound<'py, PyAny>>,
    tensor: &Bound<'py, PyAny>,
    shape: impl FnOnce() -> Vec<usize>,
) -> PyResult<Bound<'py, PyAny>> {
    out.map_or_else(|| new_like(tensor, &shape()), |out| Ok(out.clone()))
}

#[pymethods]
impl Communicator {
    #[pyo3(signature = (tensor, counts, *, out=None, wait=true))]
    fn all_gather_v<'py>(
        &self,
        tensor: &Bound<'py, PyAny>,
        counts: Vec<usize>,
        out: Option<&Bound<'py, PyAny>>,
        wait: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        const NAME: &str = "all_gather_v";
        let (own, all) = (self.own_rows(NAME, &counts)?, sum(NAME, &counts)?);
        let input = Tensor::input(NAME, "tensor", tensor)?;
        let rows = Rows::of(&input)?;
        let out = out_or_new(out, tensor, || rows.shape(all))?;
        let output = Tensor::output(NAME, "out", &out)?;
        output.expect(NAME, "out", input.element(), "tensor")?;
        input.expect_count(NAME, "tensor", own.saturating_mul(rows.elements))?;
        output.expect_count(NAME, "out", all.saturating_mul(rows.elements))?;
        let units = input.element().moved();
        let counts = rows.counts(&counts, units);
        let (from, to) = (input.start(), output.start());
        self.carry_out(&[&input, &output], out.clone(), wait, move |comm| {
            // SAFETY: both hold what the counts say (checked), and are kept in place until the call is over.
            unsafe { comm.raw().all_gather_v(at(from), at(to), &counts, units.dtype) }
        })
    }

    #[pyo3(signature = (tensor, counts, op="sum", *, out=None, wait=true))]
    fn reduce_scatter_v<'py>(
        &self,
        tensor: &Bound<'py, PyAny>,
        counts: Vec<usize>,
        op: &str,
        out: Option<&Bound<'py, PyAny>>,
        wait: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        const NAME: &str = "reduce_scatter_v";
        let (own, all) = (self.own_rows(NAME, &counts)?, sum(NAME, &counts)?);
        let input = Tensor::input(NAME, "tensor", tensor)?;
        let rows = Rows::of(&input)?;
        let out = out_or_new(out, tensor, || rows.shape(own))?;
        let output = Tensor::output(NAME, "out", &out)?;
        output.expect(NAME, "out", input.element(), "tensor")?;
        input.expect_count(NAME, "tensor", all.saturating_mul(rows.elements))?;
        output.expect_count(NAME, "out", own.saturating_mul(rows.elements))?;
        let (units, op) = input.element().reduced(NAME, op)?;
        let counts = rows.counts(&counts, units);
        let (from, to) = (input.start(), output.start());
        self.carry_out(&[&input, &output], out.clone(), wait, move |comm| {
            // SAFETY: as in `all_gather_v`.
            unsafe { comm.raw().reduce_scatter_v(at(from), at(to), &counts, units.dtype, op) }
        })
    }

    #[pyo3(signature = (tensor, send_counts, recv_counts, *, out=None, wait=true))]
    fn all_to_all_v<'py>(
        &self,
        tensor: &Bound<'py, PyAny>,
        send_counts: Vec<usize>,
        recv_counts: Vec<usize>,
        out: Option<&Bound<'py, PyAny>>,
        wait: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        const NAME: &str = "all_to_all_v";
        self.own_rows(NAME, &send_counts)?;
        self.own_rows(NAME, &recv_counts)?;
        let (sent, received) = (sum(NAME, &send_counts)?, sum(NAME, &recv_counts)?);
        let input = Tensor::input(NAME, "tensor", tensor)?;
        let rows = Rows::of(&input)?;
        let out = out_or_new(out, tensor, || rows.shape(received))?;
        let output = Tensor::output(NAME, "out", &out)?;
        output.expect(NAME, "out", input.element(), "tensor")?;
        input.expect_count(NAME, "tensor", sent.saturating_mul(rows.elements))?;
        output.expect_count(NAME, "out", received.saturating_mul(rows.elements))?;
        let units = input.element().moved();
        let (sent, received) = (rows.counts(&send_counts, units), rows.counts(&recv_counts, units));
        let (from, to) = (input.start(), output.start());
        self.carry_out(&[&input, &output], out.clone(), wait, move |comm| {
            // SAFETY: as in `all_gather_v`.
            unsafe { comm.raw().all_to_all_v(at(from), &sent, at(to), &received, units.dtype) }
        })
    }

    #[pyo3(signature = (tensor, root, counts=None, *, out=None, wait=true))]
    fn gather_v<'py>(
        &self,
        tensor: &Bound<'py, PyAny>,
        root: usize,
        counts: Option<Vec<usize>>,
        out: Option<&Bound<'py, PyAny>>,
        wait: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        const NAME: &str = "gather_v";
        let py = tensor.py();
        let input = Tensor::input(NAME, "tensor", tensor)?;
        let units = input.element().moved();
        let (from, count) = (input.start(), input.count() * units.each);
        if self.inner().rank() != root {
            return self.carry_out(&[&input], py.None().into_bound(py), wait, move |comm| {
                // SAFETY: as in `all_gather_v`; only the root has an output.
                unsafe { comm.raw().gather_v(at(from), count, std::ptr::null_mut(), &[], units.dtype, root) }
            });
        }
        let counts =
            counts.ok_or_else(|| PyValueError::new_err(format!("{NAME}: the root needs the counts")))?;
        let (own, all) = (self.own_rows(NAME, &counts)?, sum(NAME, &counts)?);
        let rows = Rows::of(&input)?;
        let out = out_or_new(out, tensor, || rows.shape(all))?;
        let output = Tensor::output(NAME, "out", &out)?;
        output.expect(NAME, "out", input.element(), "tensor")?;
        input.expect_count(NAME, "tensor", own.saturating_mul(rows.elements))?;
        output.expect_count(NAME, "out", all.saturating_mul(rows.elements))?;
        let counts = rows.counts(&counts, units);
        let to = output.start();
        self.carry_out(&[&input, &output], out.clone(), wait, move |comm| {
            // SAFETY: as in `all_gather_v`.
            unsafe { comm.raw().gather_v(at(from), count, at(to), &counts, units.dtype, root) }
        })
    }

    #[pyo3(signature = (tensor, root, counts=None, *, out=None, wait=true))]
    fn scatter_v<'py>(
        &self,
        tensor: Option<&Bound<'py, PyAny>>,
        root: usize,
        counts: Option<Vec<usize>>,
        out: Option<&Bound<'py, PyAny>>,
        wait: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        const NAME: &str = "scatter_v";
        let needs = |what: &str| PyValueError::new_err(format!("{NAME}: {what}"));
        if self.inner().rank() != root {
            let out = out.ok_or_else(|| needs("every rank but the root needs an out"))?;
            let output = Tensor::output(NAME, "out", out)?;
            let units = output.element().moved();
            let (to, count) = (output.start(), output.count() * units.each);
            return self.carry_out(&[&output], out.clone(), wait, move |comm| {
                // SAFETY: as in `all_gather_v`; only the root has an input.
                unsafe { comm.raw().scatter_v(std::ptr::null(), &[], at(to), count, units.dtype, root) }
            });
        }
        let tensor = tensor.ok_or_else(|| needs("the root needs a tensor"))?;
        let counts = counts.ok_or_else(|| needs("the root needs the counts"))?;
        let (own, all) = (self.own_rows(NAME, &counts)?, sum(NAME, &counts)?);
        let input = Tensor::input(NAME, "tensor", tensor)?;
        let rows = Rows::of(&input)?;
        let out = out_or_new(out, tensor, || rows.shape(own))?;
        let output = Tensor::output(NAME, "out", &out)?;
        output.expect(NAME, "out", input.element(), "tensor")?;
        input.expect_count(NAME, "tensor", all.saturating_mul(rows.elements))?;
        output.expect_count(NAME, "out", own.saturating_mul(rows.elements))?;
        let units = input.element().moved();
        let counts = rows.counts(&counts, units);
        let (from, to, count) = (input.start(), output.start(), output.count() * units.each);
        self.carry_out(&[&input, &output], out.clone(), wait, move |comm| {
            // SAFETY: as in `all_gather_v`.
            unsafe { comm.raw().scatter_v(at(from), &counts, at(to), count, units.dtype, root) }
        })
    }
}
