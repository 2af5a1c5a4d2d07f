//! Where a Python object's memory lies, and what is in it.
//!
//! torch tensors are asked by their methods, which is quick; everything else shows its memory by the buffer protocol or by
//! DLPack. Only contiguous memory on the host is taken, and nothing is ever copied behind the caller's back.
//!
//! The one invariant that matters: a [`Tensor`] keeps its memory in place as long as it lives. An operation that outlives its
//! call holds what [`Tensor::keep`] gives.

use std::cell::RefCell;

use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyMemoryView, PyType};

use crate::dlpack;
use crate::element::Element;

/// Memory as an object describes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// Its address: a number, so that the call may be made by another thread.
    pub(crate) start: usize,
    /// In elements.
    pub(crate) count: usize,
    pub(crate) element: Element,
    pub(crate) writable: bool,
    pub(crate) contiguous: bool,
}

/// An object's memory, as long as this lives.
pub(crate) struct Tensor<'a, 'py> {
    object: &'a Bound<'py, PyAny>,
    memory: Memory,
    held: Held,
}

/// What keeps memory in place beside the object itself.
enum Held {
    Nothing,
    Buffer(PyUntypedBuffer),
    Object(Py<PyAny>),
}

/// What an operation that outlives its call holds of a tensor. May be dropped by any thread.
pub(crate) type Kept = [Py<PyAny>; 2];

impl<'a, 'py> Tensor<'a, 'py> {
    /// Memory to read, of the argument `name` of `operation`.
    pub(crate) fn input(operation: &str, name: &str, object: &'a Bound<'py, PyAny>) -> PyResult<Self> {
        let (memory, held) = look(object).map_err(|error| explained(object.py(), operation, name, error))?;
        if !memory.contiguous {
            return Err(PyValueError::new_err(format!(
                "{operation}: {name} is not contiguous: pass {name}.contiguous() (torch) or \
                 numpy.ascontiguousarray({name}), or a part that is"
            )));
        }
        Ok(Tensor { object, memory, held })
    }

    /// Memory to write.
    pub(crate) fn output(operation: &str, name: &str, object: &'a Bound<'py, PyAny>) -> PyResult<Self> {
        let tensor = Self::input(operation, name, object)?;
        if !tensor.memory.writable {
            return Err(PyValueError::new_err(format!("{operation}: {name} is read-only")));
        }
        Ok(tensor)
    }

    pub(crate) fn object(&self) -> &'a Bound<'py, PyAny> {
        self.object
    }

    pub(crate) fn start(&self) -> usize {
        self.memory.start
    }

    pub(crate) fn count(&self) -> usize {
        self.memory.count
    }

    pub(crate) fn element(&self) -> Element {
        self.memory.element
    }

    /// Its extents.
    pub(crate) fn shape(&self) -> PyResult<Vec<usize>> {
        match self.object.getattr(intern!(self.object.py(), "shape")) {
            Ok(shape) => shape.extract(),
            Err(_) => match &self.held {
                Held::Buffer(buffer) => Ok(buffer.shape().to_vec()),
                _ => Ok(vec![self.memory.count]),
            },
        }
    }

    /// See that it has elements of this type, like the tensor called `other`.
    pub(crate) fn expect(&self, operation: &str, name: &str, element: Element, other: &str) -> PyResult<()> {
        if self.memory.element == element {
            return Ok(());
        }
        let found = self.memory.element;
        Err(PyTypeError::new_err(format!(
            "{operation}: {name} has elements of {found:?}, but {other} of {element:?}: both must be the same"
        )))
    }

    /// See that it has this many elements.
    pub(crate) fn expect_count(&self, operation: &str, name: &str, count: usize) -> PyResult<()> {
        if self.memory.count == count {
            return Ok(());
        }
        let found = self.memory.count;
        Err(PyValueError::new_err(format!(
            "{operation}: {name} has {found} elements, but {count} are needed"
        )))
    }

    /// What keeps the memory in place after the call.
    pub(crate) fn keep(&self) -> PyResult<Kept> {
        let py = self.object.py();
        let object = self.object.clone().unbind();
        let held = match &self.held {
            Held::Nothing => py.None(),
            Held::Object(held) => held.clone_ref(py),
            Held::Buffer(_) => PyMemoryView::from(self.object)?.into_any().unbind(),
        };
        Ok([object, held])
    }
}

fn explained(py: Python<'_>, operation: &str, name: &str, error: PyErr) -> PyErr {
    let explained = PyErr::from_type(error.get_type(py), format!("{operation}: {name}: {}", error.value(py)));
    explained.set_cause(py, Some(error));
    explained
}

fn look(object: &Bound<'_, PyAny>) -> PyResult<(Memory, Held)> {
    if is_torch_tensor(object)? {
        return Ok((torch_memory(object)?, Held::Nothing));
    }
    let refused = match PyUntypedBuffer::get(object) {
        Ok(buffer) => return Ok((buffer_memory(&buffer)?, Held::Buffer(buffer))),
        Err(refused) => refused,
    };
    // numpy shows nobody its arrays of types that it does not know itself: they are looked at as numbers of the same size.
    if let Some(element) = foreign_numpy_type(object) {
        let carrier = if element.size_bytes() == 1 { "uint8" } else { "uint16" };
        let view = object.call_method1(intern!(object.py(), "view"), (carrier,))?;
        let buffer = PyUntypedBuffer::get(&view)?;
        return Ok((Memory { element, ..buffer_memory(&buffer)? }, Held::Object(view.unbind())));
    }
    if object.hasattr(intern!(object.py(), "__dlpack__"))? {
        let capsule = dlpack::capsule(object)?;
        return Ok((dlpack::memory(&capsule)?, Held::Object(capsule.into_any().unbind())));
    }
    Err(PyTypeError::new_err(format!(
        "expected a torch tensor, a numpy array, or anything with the buffer protocol or DLPack ({})",
        refused.value(object.py())
    )))
}

/// Whether it is a `torch.Tensor`, if torch has been imported at all.
fn is_torch_tensor(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    static TENSOR: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let py = object.py();
    if let Some(tensor) = TENSOR.get(py) {
        return object.is_instance(tensor.bind(py));
    }
    static MODULES: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let modules =
        MODULES.get_or_try_init(py, || Ok::<_, PyErr>(py.import("sys")?.getattr("modules")?.unbind()))?;
    let torch = modules.bind(py).call_method1(intern!(py, "get"), (intern!(py, "torch"),))?;
    // While it is being imported it has no `Tensor` yet.
    let Ok(tensor) = torch.getattr(intern!(py, "Tensor")) else { return Ok(false) };
    let tensor = tensor.cast_into::<PyType>()?;
    let is_tensor = object.is_instance(&tensor)?;
    let _ = TENSOR.set(py, tensor.unbind());
    Ok(is_tensor)
}

fn torch_memory(tensor: &Bound<'_, PyAny>) -> PyResult<Memory> {
    let py = tensor.py();
    if !tensor.getattr(intern!(py, "is_cpu"))?.is_truthy()? {
        let device = tensor.getattr(intern!(py, "device"))?;
        return Err(PyTypeError::new_err(format!("the tensor is on {device}: copy it to the host first")));
    }
    let element = torch_element(&tensor.getattr(intern!(py, "dtype"))?)?;
    // Their memory has other values than they show.
    if tensor.call_method0(intern!(py, "is_conj"))?.is_truthy()? {
        return Err(PyValueError::new_err("the tensor is a conjugate view: call .resolve_conj()"));
    }
    if tensor.call_method0(intern!(py, "is_neg"))?.is_truthy()? {
        return Err(PyValueError::new_err("the tensor is a negated view: call .resolve_neg()"));
    }
    let contiguous = tensor.call_method0(intern!(py, "is_contiguous"))?.is_truthy()?;
    let count = tensor.call_method0(intern!(py, "numel"))?.extract()?;
    let start: usize = tensor.call_method0(intern!(py, "data_ptr"))?.extract()?;
    if start == 0 && count > 0 {
        return Err(PyTypeError::new_err("the tensor has no memory of its own (sparse, meta, or fake)"));
    }
    Ok(Memory { start, count, element, writable: true, contiguous })
}

/// What a `torch.dtype` stands for. There are a few dozen of them, which live as long as the interpreter.
pub(crate) fn torch_element(dtype: &Bound<'_, PyAny>) -> PyResult<Element> {
    thread_local! {
        static KNOWN: RefCell<Vec<(usize, Element)>> = const { RefCell::new(Vec::new()) };
    }
    let address = dtype.as_ptr() as usize;
    let known =
        KNOWN.with_borrow(|known| known.iter().find(|(at, _)| *at == address).map(|(_, element)| *element));
    if let Some(element) = known {
        return Ok(element);
    }
    let name = dtype.str()?.to_string();
    let element = Element::named(name.strip_prefix("torch.").unwrap_or(&name))
        .ok_or_else(|| PyTypeError::new_err(format!("elements of {name} cannot be moved")))?;
    KNOWN.with_borrow_mut(|known| known.push((address, element)));
    Ok(element)
}

fn buffer_memory(buffer: &PyUntypedBuffer) -> PyResult<Memory> {
    let format = buffer.format().to_bytes();
    let element = Element::of_format(format, buffer.item_size()).ok_or_else(|| {
        let (format, size) = (String::from_utf8_lossy(format), buffer.item_size());
        PyTypeError::new_err(format!("elements of format {format:?} with {size} bytes cannot be moved"))
    })?;
    Ok(Memory {
        start: buffer.buf_ptr().expose_provenance(),
        count: buffer.item_count(),
        element,
        writable: !buffer.readonly(),
        contiguous: buffer.is_c_contiguous(),
    })
}

/// The type of a numpy array whose elements numpy knows by name only, such as those of `ml_dtypes`.
fn foreign_numpy_type(object: &Bound<'_, PyAny>) -> Option<Element> {
    let py = object.py();
    let name = object.getattr(intern!(py, "dtype")).ok()?.getattr(intern!(py, "name")).ok()?;
    let element = Element::named(name.extract().ok()?)?;
    let size: usize = object.getattr(intern!(py, "itemsize")).ok()?.extract().ok()?;
    (size == element.size_bytes() && size <= 2 && object.hasattr(intern!(py, "view")).ok()?)
        .then_some(element)
}
