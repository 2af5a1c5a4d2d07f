//! What a tensor's elements are: for the library a [`DType`] to move, and one to reduce.
//!
//! Python knows more types than the library computes with. Those are moved as what has their size: `bool` and the 8-bit floats
//! as bytes, a complex number as its two components.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use unisono::{DType, ReduceOp};

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    /// One of the library's own.
    Plain(DType),
    /// A byte that is 0 or 1.
    Bool,
    /// Two components.
    Complex(DType),
    /// Eight bits that the library does not compute with.
    Opaque,
}

/// Elements as the library counts them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Units {
    pub(crate) dtype: DType,
    /// How many of these make one element.
    pub(crate) each: usize,
}

impl Element {
    /// By the name that torch and numpy call it, or the library.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "bool" | "bool_" => Element::Bool,
            "complex64" | "cfloat" => Element::Complex(DType::F32),
            "complex128" | "cdouble" => Element::Complex(DType::F64),
            _ if name.starts_with("float8_") => Element::Opaque,
            "float32" | "float" => Element::Plain(DType::F32),
            "float64" | "double" => Element::Plain(DType::F64),
            "float16" | "half" => Element::Plain(DType::F16),
            "bfloat16" => Element::Plain(DType::BF16),
            "int8" => Element::Plain(DType::I8),
            "int16" | "short" => Element::Plain(DType::I16),
            "int32" | "int" => Element::Plain(DType::I32),
            "int64" | "long" => Element::Plain(DType::I64),
            "uint8" => Element::Plain(DType::U8),
            "uint16" => Element::Plain(DType::U16),
            "uint32" => Element::Plain(DType::U32),
            "uint64" => Element::Plain(DType::U64),
            _ => return name.parse().ok().map(Element::Plain),
        })
    }

    /// By the buffer protocol's format and size.
    pub(crate) fn of_format(format: &[u8], size: usize) -> Option<Self> {
        let code = match format {
            [b'@' | b'=' | b'<' | b'|', code @ ..] => code,
            code => code,
        };
        Some(match (code, size) {
            (b"f", 4) => Element::Plain(DType::F32),
            (b"d", 8) => Element::Plain(DType::F64),
            (b"e", 2) => Element::Plain(DType::F16),
            (b"?", 1) => Element::Bool,
            (b"Zf", 8) => Element::Complex(DType::F32),
            (b"Zd", 16) => Element::Complex(DType::F64),
            (b"b", 1) => Element::Plain(DType::I8),
            (b"B" | b"c", 1) => Element::Plain(DType::U8),
            (b"h" | b"i" | b"l" | b"q" | b"n", 2) => Element::Plain(DType::I16),
            (b"h" | b"i" | b"l" | b"q" | b"n", 4) => Element::Plain(DType::I32),
            (b"h" | b"i" | b"l" | b"q" | b"n", 8) => Element::Plain(DType::I64),
            (b"H" | b"I" | b"L" | b"Q" | b"N", 2) => Element::Plain(DType::U16),
            (b"H" | b"I" | b"L" | b"Q" | b"N", 4) => Element::Plain(DType::U32),
            (b"H" | b"I" | b"L" | b"Q" | b"N", 8) => Element::Plain(DType::U64),
            _ => return None,
        })
    }

    /// By DLPack's codes.
    pub(crate) fn of_dlpack(code: u8, bits: u8, lanes: u16) -> Option<Self> {
        Some(match (code, bits, lanes) {
            (0, 8, 1) => Element::Plain(DType::I8),
            (0, 16, 1) => Element::Plain(DType::I16),
            (0, 32, 1) => Element::Plain(DType::I32),
            (0, 64, 1) => Element::Plain(DType::I64),
            (1, 8, 1) => Element::Plain(DType::U8),
            (1, 16, 1) => Element::Plain(DType::U16),
            (1, 32, 1) => Element::Plain(DType::U32),
            (1, 64, 1) => Element::Plain(DType::U64),
            (2, 16, 1) => Element::Plain(DType::F16),
            (2, 32, 1) => Element::Plain(DType::F32),
            (2, 64, 1) => Element::Plain(DType::F64),
            (4, 16, 1) => Element::Plain(DType::BF16),
            (5, 64, 1) => Element::Complex(DType::F32),
            (5, 128, 1) => Element::Complex(DType::F64),
            (6, 8, 1) => Element::Bool,
            (7..=14, 8, 1) => Element::Opaque,
            _ => return None,
        })
    }

    /// As what it is moved.
    pub(crate) fn moved(self) -> Units {
        match self {
            Element::Plain(dtype) => Units { dtype, each: 1 },
            Element::Bool | Element::Opaque => Units { dtype: DType::U8, each: 1 },
            Element::Complex(dtype) => Units { dtype, each: 2 },
        }
    }

    pub(crate) fn size_bytes(self) -> usize {
        let Units { dtype, each } = self.moved();
        dtype.size_bytes() * each
    }

    /// As what it is reduced, and by which operation.
    pub(crate) fn reduced(self, operation: &str, op: &str) -> PyResult<(Units, ReduceOp)> {
        let op = op_named(op)?;
        self.reduced_by(op).ok_or_else(|| {
            PyTypeError::new_err(format!("{operation}: {op} is not defined for elements of {self:?}"))
        })
    }

    /// As what it is reduced by an operation, if that is defined, and by which operation on that.
    #[inline]
    pub(crate) fn reduced_by(self, op: ReduceOp) -> Option<(Units, ReduceOp)> {
        let op = match (self, op) {
            (Element::Bool, ReduceOp::Sum | ReduceOp::Max | ReduceOp::Or) => ReduceOp::Max,
            (Element::Bool, ReduceOp::Product | ReduceOp::Min | ReduceOp::And) => ReduceOp::Min,
            (Element::Bool, ReduceOp::Xor) => ReduceOp::Xor,
            (Element::Complex(_), ReduceOp::Sum | ReduceOp::Average) | (Element::Plain(_), _) => op,
            _ => return None,
        };
        Some((self.moved(), op))
    }
}

/// A reduce operation by its name.
fn op_named(name: &str) -> PyResult<ReduceOp> {
    Ok(match name {
        "sum" => ReduceOp::Sum,
        "product" | "prod" => ReduceOp::Product,
        "min" => ReduceOp::Min,
        "max" => ReduceOp::Max,
        "average" | "avg" | "mean" => ReduceOp::Average,
        "and" | "band" => ReduceOp::And,
        "or" | "bor" => ReduceOp::Or,
        "xor" | "bxor" => ReduceOp::Xor,
        _ => {
            let known = ReduceOp::ALL.map(ReduceOp::name).join(", ");
            return Err(PyValueError::new_err(format!(
                "no reduce operation is called {name:?}; there are {known}"
            )));
        }
    })
}
