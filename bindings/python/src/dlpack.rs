//! DLPack: how array libraries show one another their memory.
//!
//! An object's `__dlpack__` makes a capsule that holds a description of its memory. The description is read here and the
//! capsule is left as it is: while it lives so does the memory, and its own destructor gives it back.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_void};

use pyo3::exceptions::{PyBufferError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict, PyTuple};

use crate::element::Element;
use crate::tensor::Memory;

const PLAIN: &CStr = c"dltensor";
const VERSIONED: &CStr = c"dltensor_versioned";
/// `kDLCPU`, and `kDLCUDAHost`, which is memory of the host, too.
const HOST_DEVICES: [i32; 2] = [1, 3];
const READ_ONLY: u64 = 1;
const MAJOR: u32 = 1;

/// A description of memory, as DLPack lays it out.
#[repr(C)]
struct Description {
    data: *mut c_void,
    device_type: i32,
    device_id: i32,
    dimensions: i32,
    code: u8,
    bits: u8,
    lanes: u16,
    shape: *const i64,
    strides: *const i64,
    byte_offset: u64,
}

/// What a capsule of version 1 points to.
#[repr(C)]
struct Versioned {
    major: u32,
    minor: u32,
    context: *mut c_void,
    deleter: *mut c_void,
    flags: u64,
    description: Description,
}

/// Ask the object for a capsule: of version 1 if it knows of versions, else a plain one.
pub(crate) fn capsule<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyCapsule>> {
    let py = object.py();
    let arguments = PyDict::new(py);
    arguments.set_item("max_version", PyTuple::new(py, [MAJOR, 0])?)?;
    let capsule = match object.call_method("__dlpack__", (), Some(&arguments)) {
        Err(error) if error.is_instance_of::<PyTypeError>(py) => object.call_method0("__dlpack__")?,
        capsule => capsule?,
    };
    Ok(capsule.cast_into::<PyCapsule>()?)
}

/// The memory that a capsule describes. It is valid as long as the capsule lives.
pub(crate) fn memory(capsule: &Bound<'_, PyCapsule>) -> PyResult<Memory> {
    let (description, writable) = if capsule.is_valid_checked(Some(VERSIONED)) {
        let versioned = capsule.pointer_checked(Some(VERSIONED))?.cast::<Versioned>();
        // SAFETY: a capsule of this name points to a struct that begins with its version, whatever that is.
        let major = unsafe { (*versioned.as_ptr()).major };
        if major != MAJOR {
            return Err(PyBufferError::new_err(format!("DLPack of version {major}: expected {MAJOR}")));
        }
        // SAFETY: of this version it is laid out as `Versioned`, and lives as long as the capsule.
        let versioned = unsafe { versioned.as_ref() };
        (&versioned.description, versioned.flags & READ_ONLY == 0)
    } else {
        let plain = capsule.pointer_checked(Some(PLAIN))?.cast::<Description>();
        // SAFETY: a capsule of this name points to a struct that begins with the description, and lives as long as it.
        (unsafe { plain.as_ref() }, true)
    };
    read(description, writable)
}

fn read(description: &Description, writable: bool) -> PyResult<Memory> {
    if !HOST_DEVICES.contains(&description.device_type) {
        let device = description.device_type;
        return Err(PyTypeError::new_err(format!(
            "the tensor is on a device (DLPack's type {device}): copy it to the host first"
        )));
    }
    let dimensions = usize::try_from(description.dimensions)
        .map_err(|_| PyBufferError::new_err("DLPack: a negative number of dimensions"))?;
    let extents = |start: *const i64| {
        if start.is_null() || dimensions == 0 {
            return Vec::new();
        }
        // SAFETY: as DLPack has it, there are `dimensions` numbers, which live as long as the description.
        unsafe { std::slice::from_raw_parts(start, dimensions) }.to_vec()
    };
    let (shape, strides) = (extents(description.shape), extents(description.strides));
    let element =
        Element::of_dlpack(description.code, description.bits, description.lanes).ok_or_else(|| {
            let (code, bits) = (description.code, description.bits);
            PyTypeError::new_err(format!("elements of DLPack's type {code} with {bits} bits cannot be moved"))
        })?;
    let count =
        shape.iter().try_fold(1usize, |count, extent| count.checked_mul(usize::try_from(*extent).ok()?));
    let count = count.ok_or_else(|| PyBufferError::new_err("DLPack: a shape that makes no sense"))?;
    Ok(Memory {
        start: description.data.expose_provenance().wrapping_add(description.byte_offset as usize),
        count,
        element,
        writable,
        contiguous: count <= 1 || strides.is_empty() || is_contiguous(&shape, &strides),
    })
}

/// Whether elements lie one after the other, the last index running fastest.
fn is_contiguous(shape: &[i64], strides: &[i64]) -> bool {
    let mut expected = 1;
    shape.iter().zip(strides).rev().all(|(extent, stride)| {
        let fits = *extent == 1 || *stride == expected;
        expected *= extent;
        fits
    })
}
