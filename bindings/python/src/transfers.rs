//! Send and recv.

#![allow(unsafe_code)]

use std::ptr::with_exposed_provenance_mut as at;

use pyo3::prelude::*;

use crate::communicator::Communicator;
use crate::tensor::Tensor;

#[pymethods]
impl Communicator {
    fn send<'py>(&self, tensor: &Bound<'py, PyAny>, to: usize) -> PyResult<()> {
        let data = Tensor::input("send", "tensor", tensor)?;
        let units = data.element().moved();
        let (start, count) = (data.start(), data.count() * units.each);
        self.detached(tensor.py(), |comm| {
            // SAFETY: it holds that many elements, as it said, and is kept in place until the call is over.
            unsafe { comm.raw().send(at(start), count, units.dtype, to) }
        })
    }

    fn recv<'py>(&self, tensor: &Bound<'py, PyAny>, source: usize) -> PyResult<Bound<'py, PyAny>> {
        let data = Tensor::output("recv", "tensor", tensor)?;
        let units = data.element().moved();
        let (start, count) = (data.start(), data.count() * units.each);
        self.detached(tensor.py(), |comm| {
            // SAFETY: as in `send`.
            unsafe { comm.raw().recv(at(start), count, units.dtype, source) }
        })?;
        Ok(tensor.clone())
    }
}
