//! SGLang's shared-memory operators for CPU tensors, under their names and schemas, over this package's communicators.
//!
//! The first eight are those that engines call while they run: kernels in Rust, so that a call costs a microsecond. What is called once
//! (`initialize`, `shm_group_initialize`) and what only torch.compile calls (fake kernels) is Python, in
//! `unisono/sgl_kernel`, which also has the way for a torch without the stable interface.
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

/// Every operator that is implemented here, as its name and its schema.
#[pyfunction]
pub(crate) fn shm_schemas() -> Vec<(&'static str, String)> {
    fn one<O: Operator>() -> (&'static str, String) {
        (O::NAME, format!("{}{}", O::NAME, O::SCHEMA))
    }
    vec![
        one::<AllReduce>(),
        one::<AllGather>(),
        one::<AllGatherInto>(),
        one::<ReduceScatter>(),
        one::<AllToAll>(),
        one::<GroupAllReduce>(),
        one::<GroupAllGather>(),
        one::<GroupAllToAll>(),
    ]
}

/// Put those operators whose names are in `define` into the library of torch's with this name, and have the work of those in
/// `implement` done here.
#[pyfunction]
pub(crate) fn shm_register(library: &str, define: Vec<String>, implement: Vec<String>) -> PyResult<()> {
    let register = || {
        let library = Library::open(library)?;
        one::<AllReduce>(&library, &define, &implement)?;
        one::<AllGather>(&library, &define, &implement)?;
        one::<AllGatherInto>(&library, &define, &implement)?;
        one::<ReduceScatter>(&library, &define, &implement)?;
        one::<AllToAll>(&library, &define, &implement)?;
        one::<GroupAllReduce>(&library, &define, &implement)?;
        one::<GroupAllGather>(&library, &define, &implement)?;
        one::<GroupAllToAll>(&library, &define, &implement)
    };
    register().map_err(PyRuntimeError::new_err)
}

fn one<O: Operator>(library: &Library, define: &[String], implement: &[String]) -> Result<(), String> {
    if define.iter().any(|name| name == O::NAME) {
        library.define(&format!("{}{}", O::NAME, O::SCHEMA))?;
    }
    if implement.iter().any(|name| name == O::NAME) {
        library.implement::<O>("CPU")?;
    }
    Ok(())
}
