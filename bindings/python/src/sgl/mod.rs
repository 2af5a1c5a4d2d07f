//! SGLang's shared-memory operators for CPU tensors, under their names and schemas, over this package's communicators.
//!
//! What engines call while they run are kernels in Rust, so that a call costs a microsecond. What is called once (`initialize`,
//! `shm_group_initialize`) and what only torch.compile calls (fake kernels) is Python, in `unisono/sgl_kernel`, which also has
//! the same kernels for a torch without the stable interface.
//!
//! | file | what |
//! |---|---|
//! | `groups` | the groups of ranks by their handles |
//! | `operators` | the operators: schema, checks, the library's call |
//!
//! The one invariant that matters: **an argument is refused before anything is published**, so that the group goes on.

mod groups;
mod operators;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::shim::Library;

pub(crate) use groups::{shm_adopt, shm_release};
use operators::{
    AllGather, AllGatherInto, AllReduce, AllToAll, GroupAllGather, GroupAllReduce, GroupAllToAll, Operator,
    ReduceScatter,
};

/// An operator, whichever it is.
struct Entry {
    name: &'static str,
    schema: &'static str,
    implement: fn(&Library) -> Result<(), String>,
}

const fn entry<O: Operator>() -> Entry {
    Entry { name: O::NAME, schema: O::SCHEMA, implement: |library| library.implement::<O>("CPU") }
}

const OPERATORS: [Entry; 8] = [
    entry::<AllReduce>(),
    entry::<AllGather>(),
    entry::<AllGatherInto>(),
    entry::<ReduceScatter>(),
    entry::<AllToAll>(),
    entry::<GroupAllReduce>(),
    entry::<GroupAllGather>(),
    entry::<GroupAllToAll>(),
];

/// Every operator that is implemented here, as its name and its schema.
#[pyfunction]
pub(crate) fn shm_schemas() -> Vec<(&'static str, String)> {
    OPERATORS.iter().map(|entry| (entry.name, format!("{}{}", entry.name, entry.schema))).collect()
}

/// Put those operators whose names are in `define` into the library of torch's with this name, and have the work of those in
/// `implement` done here.
#[pyfunction]
pub(crate) fn shm_register(library: &str, define: Vec<String>, implement: Vec<String>) -> PyResult<()> {
    let register = || {
        let library = Library::open(library)?;
        for Entry { name, schema, implement: implement_it } in &OPERATORS {
            if define.iter().any(|wanted| wanted == name) {
                library.define(&format!("{name}{schema}"))?;
            }
            if implement.iter().any(|wanted| wanted == name) {
                implement_it(&library)?;
            }
        }
        Ok(())
    };
    register().map_err(PyRuntimeError::new_err::<String>)
}
