//! The errors of `unisono-gpu` as Python exceptions: the classes of `unisono._errors`.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use unisono_gpu::Error;
use unisono_gpu::packet::PacketError;

/// The exception for an error.
pub(super) fn raised(py: Python<'_>, error: &Error) -> PyErr {
    exception(py, error).unwrap_or_else(|problem| problem)
}

fn exception(py: Python<'_>, error: &Error) -> PyResult<PyErr> {
    let fields = PyDict::new(py);
    let name = match error {
        Error::Overdue { overdue, patience } => {
            fields.set_item("rank", overdue.rank)?;
            fields.set_item("peer", overdue.peer)?;
            fields.set_item("block", overdue.block)?;
            fields.set_item("flag", overdue.flag)?;
            fields.set_item("expected", overdue.expected)?;
            fields.set_item("found", overdue.found)?;
            fields.set_item("waited", patience.as_secs_f64())?;
            "Overdue"
        }
        Error::Driver { call, .. } => {
            fields.set_item("call", call)?;
            "DeviceError"
        }
        Error::Packet(
            PacketError::Link { .. } | PacketError::Gathering { .. } | PacketError::NotWritten { .. },
        ) => "DeviceError",
        Error::NoLibrary { .. } | Error::NoDevice { .. } | Error::NoPeerAccess { .. } => "DeviceError",
        Error::NotBuilt { .. } => "NotAvailable",
        _ => {
            fields.set_item("operation", "all_reduce")?;
            "InvalidArgument"
        }
    };
    let class = py.import("unisono._errors")?.getattr(name)?;
    Ok(PyErr::from_value(class.call((error.to_string(),), Some(&fields))?))
}
