//! The collectives in which every rank has the same count, on Python's tensors.
//!
//! Each reads its arguments, lets go of the interpreter, and makes the library's call on pointers. Counts go to the library in
//! its own elements (`Element::moved`).

#![allow(unsafe_code)]

use std::ptr::with_exposed_provenance_mut as at;

use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;

use crate::communicator::Communicator;
use crate::tensor::Tensor;

/// A tensor of the same kind as another, of this shape, with room for a result.
pub(crate) fn new_like<'py>(tensor: &Bound<'py, PyAny>, shape: &[usize]) -> PyResult<Bound<'py, PyAny>> {
    let py = tensor.py();
    py.import("unisono._tensors")?.call_method1(intern!(py, "new_like"), (tensor, shape))
}

/// `input` in and `output` out, which are one and the same for an operation in place.
pub(crate) struct InOut<'a, 'py> {
    pub(crate) input: Tensor<'a, 'py>,
    output: Option<Tensor<'a, 'py>>,
}

impl<'a, 'py> InOut<'a, 'py> {
    /// In place, unless there is an `out`.
    pub(crate) fn new(
        operation: &str,
        tensor: &'a Bound<'py, PyAny>,
        out: Option<&'a Bound<'py, PyAny>>,
    ) -> PyResult<Self> {
        let Some(out) = out else {
            return Ok(InOut { input: Tensor::output(operation, "tensor", tensor)?, output: None });
        };
        let input = Tensor::input(operation, "tensor", tensor)?;
        let output = Tensor::output(operation, "out", out)?;
        output.expect(operation, "out", input.element(), "tensor")?;
        Ok(InOut { input, output: Some(output) })
    }

    pub(crate) fn output(&self) -> &Tensor<'a, 'py> {
        self.output.as_ref().unwrap_or(&self.input)
    }

    pub(crate) fn is_in_place(&self) -> bool {
        self.output().start() == self.input.start()
    }

    pub(crate) fn all(&self) -> [&Tensor<'a, 'py>; 2] {
        [&self.input, self.output()]
    }

    pub(crate) fn result(&self) -> Bound<'py, PyAny> {
        self.output().object().clone()
    }
}

/// A shape whose first extent is multiplied (`true`) or divided by the number of ranks; a scalar counts as one row.
pub(crate) fn rows_times(
    operation: &str,
    mut shape: Vec<usize>,
    world: usize,
    multiply: bool,
) -> PyResult<Vec<usize>> {
    if shape.is_empty() {
        shape.push(1);
    }
    if multiply {
        shape[0] *= world;
    } else if shape[0].is_multiple_of(world) {
        shape[0] /= world;
    } else {
        let rows = shape[0];
        return Err(PyValueError::new_err(format!(
            "{operation}: {rows} rows cannot be divided among {world} ranks"
        )));
    }
    Ok(shape)
}

#[pymethods]
impl Communicator {
    #[pyo3(signature = (tensor, op="sum", *, out=None, wait=true))]
    fn all_reduce<'py>(
        &self,
        tensor: &Bound<'py, PyAny>,
        op: &str,
        out: Option<&Bound<'py, PyAny>>,
        wait: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let data = InOut::new("all_reduce", tensor, out)?;
        data.output().expect_count("all_reduce", "out", data.input.count())?;
        let (units, op) = data.input.element().reduced("all_reduce", op)?;
        let count = data.input.count() * units.each;
        let (input, output) = (data.input.start(), data.output().start());
        let size = units.dtype.size_bytes();
        if data.is_in_place()
            && let Some((memory, offset)) = self.registered.find(input, count * size)
            && offset.is_multiple_of(size)
        {
            return self.carry_out(&data.all(), data.result(), wait, move |comm| {
                // SAFETY: the tensor is kept until the call is over; by Python's convention nobody touches it meanwhile.
                unsafe { comm.raw().all_reduce_registered(&memory, offset / size, count, units.dtype, op) }
            });
        }
        self.carry_out(&data.all(), data.result(), wait, move |comm| {
            // SAFETY: both hold that many elements, as they said, and are kept in place until the call is over.
            unsafe { comm.raw().all_reduce(at(input), at(output), count, units.dtype, op) }
        })
    }

    #[pyo3(signature = (tensor, root, op="sum", *, out=None, wait=true))]
    fn reduce<'py>(
        &self,
        tensor: &Bound<'py, PyAny>,
        root: usize,
        op: &str,
        out: Option<&Bound<'py, PyAny>>,
        wait: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let data = InOut::new("reduce", tensor, out)?;
        data.output().expect_count("reduce", "out", data.input.count())?;
        let (units, op) = data.input.element().reduced("reduce", op)?;
        let count = data.input.count() * units.each;
        let (input, output) = (data.input.start(), data.output().start());
        let size = units.dtype.size_bytes();
        if data.is_in_place()
            && let Some((memory, offset)) = self.registered.find(input, count * size)
            && offset.is_multiple_of(size)
        {
            return self.carry_out(&data.all(), data.result(), wait, move |comm| {
                // SAFETY: as in `all_reduce`.
                unsafe { comm.raw().reduce_registered(&memory, offset / size, count, units.dtype, op, root) }
            });
        }
        self.carry_out(&data.all(), data.result(), wait, move |comm| {
            // SAFETY: as in `all_reduce`.
            unsafe { comm.raw().reduce(at(input), at(output), count, units.dtype, op, root) }
        })
    }

    #[pyo3(signature = (tensor, root, *, wait=true))]
    fn broadcast<'py>(
        &self,
        tensor: &Bound<'py, PyAny>,
        root: usize,
        wait: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let data = InOut::new("broadcast", tensor, None)?;
        let units = data.input.element().moved();
        let (start, count) = (data.input.start(), data.input.count() * units.each);
        let size = units.dtype.size_bytes();
        if let Some((memory, offset)) = self.registered.find(start, count * size)
            && offset.is_multiple_of(size)
        {
            return self.carry_out(&data.all(), data.result(), wait, move |comm| {
                // SAFETY: as in `all_reduce`.
                unsafe { comm.raw().broadcast_registered(&memory, offset / size, count, units.dtype, root) }
            });
        }
        self.carry_out(&data.all(), data.result(), wait, move |comm| {
            // SAFETY: as in `all_reduce`.
            unsafe { comm.raw().broadcast(at(start), count, units.dtype, root) }
        })
    }

    #[pyo3(signature = (tensor, op="sum", *, out=None, wait=true))]
    fn reduce_scatter<'py>(
        &self,
        tensor: &Bound<'py, PyAny>,
        op: &str,
        out: Option<&Bound<'py, PyAny>>,
        wait: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        const NAME: &str = "reduce_scatter";
        let world = self.inner().world_size();
        let input = Tensor::input(NAME, "tensor", tensor)?;
        let out = match out {
            Some(out) => out.clone(),
            None => new_like(tensor, &rows_times(NAME, input.shape()?, world, false)?)?,
        };
        let output = Tensor::output(NAME, "out", &out)?;
        output.expect(NAME, "out", input.element(), "tensor")?;
        input.expect_count(NAME, "tensor", output.count() * world)?;
        let (units, op) = input.element().reduced(NAME, op)?;
        let (from, to, count) = (input.start(), output.start(), output.count() * units.each);
        self.carry_out(&[&input, &output], out.clone(), wait, move |comm| {
            // SAFETY: as in `all_reduce`; the input holds a block for each rank.
            unsafe { comm.raw().reduce_scatter(at(from), at(to), count, units.dtype, op) }
        })
    }

    #[pyo3(signature = (tensor, *, dim=0, out=None, wait=true))]
    fn all_gather<'py>(
        &self,
        tensor: &Bound<'py, PyAny>,
        dim: isize,
        out: Option<&Bound<'py, PyAny>>,
        wait: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        const NAME: &str = "all_gather";
        let world = self.inner().world_size();
        let input = Tensor::input(NAME, "tensor", tensor)?;
        let mut shape = if dim == 0 && out.is_some() { Vec::new() } else { input.shape()? };
        let rank = shape.len();
        let along = usize::try_from(if dim < 0 { dim + rank.cast_signed() } else { dim }).ok();
        let Some(along) = along.filter(|along| *along < rank || dim == 0) else {
            return Err(PyValueError::new_err(format!("{NAME}: there is no dimension {dim} in {shape:?}")));
        };
        let out = match out {
            Some(out) => out.clone(),
            None => {
                let mut gathered = shape.clone();
                match gathered.get_mut(along) {
                    Some(extent) => *extent *= world,
                    None => gathered.push(world),
                }
                new_like(tensor, &gathered)?
            }
        };
        let output = Tensor::output(NAME, "out", &out)?;
        output.expect(NAME, "out", input.element(), "tensor")?;
        output.expect_count(NAME, "out", input.count() * world)?;
        let units = input.element().moved();
        let (from, to, count) = (input.start(), output.start(), input.count() * units.each);
        if along == 0 {
            return self.carry_out(&[&input, &output], out.clone(), wait, move |comm| {
                // SAFETY: as in `all_reduce`; the output holds a block for each rank.
                unsafe { comm.raw().all_gather(at(from), at(to), count, units.dtype) }
            });
        }
        shape.push(units.each);
        self.carry_out(&[&input, &output], out.clone(), wait, move |comm| {
            // SAFETY: as above.
            unsafe { comm.raw().all_gather_dim(at(from), at(to), &shape, along.cast_signed(), units.dtype) }
        })
    }

    #[pyo3(signature = (tensor, root, *, out=None, wait=true))]
    fn gather<'py>(
        &self,
        tensor: &Bound<'py, PyAny>,
        root: usize,
        out: Option<&Bound<'py, PyAny>>,
        wait: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        const NAME: &str = "gather";
        let py = tensor.py();
        let world = self.inner().world_size();
        let input = Tensor::input(NAME, "tensor", tensor)?;
        let units = input.element().moved();
        let (from, count) = (input.start(), input.count() * units.each);
        if self.inner().rank() != root {
            return self.carry_out(&[&input], py.None().into_bound(py), wait, move |comm| {
                // SAFETY: as in `all_reduce`; only the root has an output.
                unsafe { comm.raw().gather(at(from), std::ptr::null_mut(), count, units.dtype, root) }
            });
        }
        let out = match out {
            Some(out) => out.clone(),
            None => new_like(tensor, &rows_times(NAME, input.shape()?, world, true)?)?,
        };
        let output = Tensor::output(NAME, "out", &out)?;
        output.expect(NAME, "out", input.element(), "tensor")?;
        output.expect_count(NAME, "out", input.count() * world)?;
        let to = output.start();
        self.carry_out(&[&input, &output], out.clone(), wait, move |comm| {
            // SAFETY: as in `all_reduce`; the output holds a block for each rank.
            unsafe { comm.raw().gather(at(from), at(to), count, units.dtype, root) }
        })
    }

    #[pyo3(signature = (tensor, root, *, out=None, wait=true))]
    fn scatter<'py>(
        &self,
        tensor: Option<&Bound<'py, PyAny>>,
        root: usize,
        out: Option<&Bound<'py, PyAny>>,
        wait: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        const NAME: &str = "scatter";
        let world = self.inner().world_size();
        let is_root = self.inner().rank() == root;
        let input = match tensor {
            Some(tensor) if is_root => Some(Tensor::input(NAME, "tensor", tensor)?),
            None if is_root => return Err(PyValueError::new_err(format!("{NAME}: the root needs a tensor"))),
            _ => None,
        };
        let out = match (out, &input) {
            (Some(out), _) => out.clone(),
            (None, Some(input)) => {
                new_like(input.object(), &rows_times(NAME, input.shape()?, world, false)?)?
            }
            (None, None) => {
                return Err(PyValueError::new_err(format!("{NAME}: every rank but the root needs an out")));
            }
        };
        let output = Tensor::output(NAME, "out", &out)?;
        let units = output.element().moved();
        let (to, count) = (output.start(), output.count() * units.each);
        let mut kept = vec![&output];
        let mut from = 0;
        if let Some(input) = &input {
            output.expect(NAME, "out", input.element(), "tensor")?;
            input.expect_count(NAME, "tensor", output.count() * world)?;
            from = input.start();
            kept.push(input);
        }
        self.carry_out(&kept, out.clone(), wait, move |comm| {
            // SAFETY: as in `all_reduce`; the root's input holds a block for each rank, and the others' is not looked at.
            unsafe { comm.raw().scatter(at(from), at(to), count, units.dtype, root) }
        })
    }

    #[pyo3(signature = (tensor, *, out=None, wait=true))]
    fn all_to_all<'py>(
        &self,
        tensor: &Bound<'py, PyAny>,
        out: Option<&Bound<'py, PyAny>>,
        wait: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        const NAME: &str = "all_to_all";
        let world = self.inner().world_size();
        let data = InOut::new(NAME, tensor, out)?;
        data.output().expect_count(NAME, "out", data.input.count())?;
        if !data.input.count().is_multiple_of(world) {
            let count = data.input.count();
            let problem = format!("{NAME}: {count} elements cannot be divided among {world} ranks");
            return Err(PyValueError::new_err(problem));
        }
        let units = data.input.element().moved();
        let (from, to) = (data.input.start(), data.output().start());
        let count = data.input.count() / world * units.each;
        self.carry_out(&data.all(), data.result(), wait, move |comm| {
            // SAFETY: as in `all_reduce`; both hold a block for each rank.
            unsafe { comm.raw().all_to_all(at(from), at(to), count, units.dtype) }
        })
    }
}
