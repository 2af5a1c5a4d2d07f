//! The operators: schema, checks, the library's call.
//!
//! Reductions are the library's: summed in the order of the ranks, in f32 for the half types, rounded once. Any count, also
//! none, goes; chunks are the library's business.

#![allow(unsafe_code)]

use unisono::ReduceOp;

use super::groups::{ShmGroup, group};
use crate::element::{Element, Units};
use crate::shim::{Call, Failure, Kernel, Outcome, Tensor};
use crate::signals;

/// A kernel with the schema that it is registered under.
pub(super) trait Operator: Kernel {
    /// What follows the name in torch's language for schemas.
    const SCHEMA: &'static str;
}

/// An operator by its name, its schema, and what it does.
macro_rules! operator {
    ($(#[$doc:meta])* $type:ident, $name:literal, $schema:literal, $run:expr) => {
        $(#[$doc])*
        pub(super) struct $type;

        impl Kernel for $type {
            const NAME: &'static str = $name;

            fn run(call: &mut Call<'_>) -> Outcome {
                let run: fn(&mut Call<'_>) -> Outcome = $run;
                run(call)
            }
        }

        impl Operator for $type {
            const SCHEMA: &'static str = $schema;
        }
    };
}

operator!(
    /// Fold the tensors of all ranks into one, in place.
    AllReduce, "shm_allreduce", "(Tensor(a!) data, int reduce_op, int handle=0) -> ()",
    |call| all_reduce(&call.tensor(0)?, call.integer(1)?, call.integer_or(2, 0))
);

operator!(
    /// The tensors of all ranks, one after the other along a dimension.
    AllGather, "shm_allgather", "(Tensor data, int dim, int handle=0) -> Tensor",
    |call| {
        let gathered = all_gather(&call.tensor(0)?, call.integer(1)?, call.integer_or(2, 0))?;
        call.give(gathered)
    }
);

operator!(
    /// The same along the first dimension, into a tensor that is there.
    AllGatherInto, "shm_allgather_into_tensor", "(Tensor(a!) out, Tensor data, int handle=0) -> ()",
    |call| all_gather_into(&call.tensor(0)?, &call.tensor(1)?, call.integer_or(2, 0))
);

operator!(
    /// Fold the tensors of all ranks; each keeps its part of the first dimension.
    ReduceScatter, "shm_reduce_scatter_tensor", "(Tensor(a!) out, Tensor data, int op, int handle=0) -> ()",
    |call| reduce_scatter(&call.tensor(0)?, &call.tensor(1)?, call.integer(2)?, call.integer_or(3, 0))
);

operator!(
    /// Part `r` of this rank's tensor becomes this rank's part of rank `r`'s.
    AllToAll, "shm_alltoall", "(Tensor(a!) out, Tensor data, int handle=0) -> ()",
    |call| all_to_all(&call.tensor(0)?, &call.tensor(1)?, call.integer_or(2, 0))
);

operator!(
    /// [`AllReduce`] by sum, the group first.
    GroupAllReduce, "shm_group_allreduce", "(int handle, Tensor(a!) data) -> ()",
    |call| all_reduce(&call.tensor(1)?, 0, call.integer(0)?)
);

operator!(
    /// [`AllGatherInto`], the group first.
    GroupAllGather, "shm_group_allgather", "(int handle, Tensor(a!) out, Tensor data) -> ()",
    |call| all_gather_into(&call.tensor(1)?, &call.tensor(2)?, call.integer(0)?)
);

operator!(
    /// [`AllToAll`], the group first.
    GroupAllToAll, "shm_group_alltoall", "(int handle, Tensor(a!) out, Tensor data) -> ()",
    |call| all_to_all(&call.tensor(1)?, &call.tensor(2)?, call.integer(0)?)
);

fn all_reduce(data: &Tensor, op: i64, handle: i64) -> Outcome {
    on(handle, |group| {
        let memory = memory("data", data)?;
        let (units, op) = reduced(&memory, op)?;
        let (start, count, size) = (memory.start, memory.count * units.each, units.dtype.size_bytes());
        if let Some((registered, offset)) = group.registered.find(start.addr(), count * size)
            && offset.is_multiple_of(size)
        {
            let raw = group.comm.raw();
            // SAFETY: the tensor is the caller's until this returns; by torch's convention nobody touches it meanwhile.
            return Ok(unsafe {
                raw.all_reduce_registered(&registered, offset / size, count, units.dtype, op)
            }?);
        }
        // SAFETY: it holds that many elements, as torch says, is contiguous, and is the caller's until this returns.
        Ok(unsafe { group.comm.raw().all_reduce(start, start, count, units.dtype, op) }?)
    })
}

fn all_gather(data: &Tensor, dim: i64, handle: i64) -> Result<Tensor, Failure> {
    on(handle, |group| {
        let memory = memory("data", data)?;
        let units = memory.element.moved();
        let mut shape = data.shape()?;
        if shape.is_empty() {
            shape.push(1);
        }
        let rank = i64::try_from(shape.len()).unwrap_or(i64::MAX);
        let along = usize::try_from(if dim < 0 { dim + rank } else { dim }).unwrap_or(usize::MAX);
        let mut gathered = shape.clone();
        let Some(extent) = gathered.get_mut(along) else {
            return Err(Failure::Value(format!(
                "there is no dimension {dim} in {shape:?}: expected {} to {}",
                -rank,
                rank - 1
            )));
        };
        let world = i64::try_from(group.comm.world_size()).unwrap_or(i64::MAX);
        *extent = extent
            .checked_mul(world)
            .ok_or_else(|| Failure::Value(format!("{world} times {shape:?} is too large")))?;
        let out = data.new_empty(&gathered)?;
        let extents: Vec<usize> = shape
            .iter()
            .map(|extent| usize::try_from(*extent).unwrap_or_default())
            .chain([units.each])
            .collect();
        let to = out.start()?;
        // SAFETY: as in `all_reduce`; the output, which is nobody else's yet, holds a block for each rank.
        unsafe {
            group.comm.raw().all_gather_dim(memory.start, to, &extents, along.cast_signed(), units.dtype)
        }?;
        Ok(out)
    })
}

fn all_gather_into(out: &Tensor, data: &Tensor, handle: i64) -> Outcome {
    on(handle, |group| {
        let (from, to) = (memory("data", data)?, memory("out", out)?);
        to.expect(group.comm.world_size(), &from, "as many elements as the data of all ranks together")?;
        let Units { dtype, each } = from.element.moved();
        // SAFETY: as in `all_reduce`; the output holds a block for each rank.
        Ok(unsafe { group.comm.raw().all_gather(from.start, to.start, from.count * each, dtype) }?)
    })
}

fn reduce_scatter(out: &Tensor, data: &Tensor, op: i64, handle: i64) -> Outcome {
    on(handle, |group| {
        let (from, to) = (memory("data", data)?, memory("out", out)?);
        from.expect(group.comm.world_size(), &to, "as many elements as the outputs of all ranks together")?;
        let (Units { dtype, each }, op) = reduced(&from, op)?;
        // SAFETY: as in `all_reduce`; the input holds a block for each rank.
        Ok(unsafe { group.comm.raw().reduce_scatter(from.start, to.start, to.count * each, dtype, op) }?)
    })
}

fn all_to_all(out: &Tensor, data: &Tensor, handle: i64) -> Outcome {
    on(handle, |group| {
        let (from, to, world) = (memory("data", data)?, memory("out", out)?, group.comm.world_size());
        to.expect(1, &from, "as many elements as data")?;
        if !from.count.is_multiple_of(world) {
            return Err(Failure::Value(format!(
                "{} elements cannot be divided among {world} ranks",
                from.count
            )));
        }
        let Units { dtype, each } = from.element.moved();
        // SAFETY: as in `all_reduce`; both hold a block for each rank.
        Ok(unsafe { group.comm.raw().all_to_all(from.start, to.start, from.count / world * each, dtype) }?)
    })
}

/// Make a call on the group with this handle.
#[inline]
fn on<T>(handle: i64, call: impl FnOnce(&ShmGroup) -> Result<T, Failure>) -> Result<T, Failure> {
    let group = group(handle)?;
    signals::make_ready_detached();
    let outcome = call(&group);
    // What was waited for may have come while a handler ran that raised: the call is over, and what was raised is told.
    let outcome = if outcome.is_ok() {
        signals::take_raised().map_or(outcome, |raised| Err(Failure::Handler(raised)))
    } else {
        outcome
    };
    outcome.map_err(|failure| {
        failure.at(format!("on rank {} of {}", group.comm.rank(), group.comm.world_size()))
    })
}

/// A tensor's memory, seen to be what the library can take.
struct Memory {
    name: &'static str,
    start: *mut u8,
    count: usize,
    element: Element,
}

#[inline]
fn memory(name: &'static str, tensor: &Tensor) -> Result<Memory, Failure> {
    if !tensor.is_on_host()? {
        return Err(Failure::Type(format!("{name} is not on the CPU: copy it to the host first")));
    }
    if !tensor.is_contiguous()? {
        return Err(Failure::Value(format!(
            "{name} is not contiguous: pass {name}.contiguous(), or a part that is"
        )));
    }
    Ok(Memory { name, start: tensor.start()?, count: tensor.count()?, element: tensor.element()? })
}

impl Memory {
    /// See that it has `times` as many elements as `other`, of the same type.
    #[inline]
    fn expect(&self, times: usize, other: &Memory, what: &str) -> Outcome {
        let (name, found, theirs) = (self.name, self.element, other.element);
        if found != theirs {
            let problem = format!(
                "{name} has elements of {found:?}, but {} of {theirs:?}: both must be the same",
                other.name
            );
            return Err(Failure::Type(problem));
        }
        if other.count.checked_mul(times) != Some(self.count) {
            let problem = format!(
                "{name} has {} elements and {} {}: {name} must have {what}",
                self.count, other.name, other.count
            );
            return Err(Failure::Value(problem));
        }
        Ok(())
    }
}

/// As what a tensor is reduced, and by what: operations have the numbers of `torch.distributed.ReduceOp`.
#[inline]
fn reduced(memory: &Memory, op: i64) -> Result<(Units, ReduceOp), Failure> {
    const NUMBERED: [ReduceOp; 8] = [
        ReduceOp::Sum,
        ReduceOp::Average,
        ReduceOp::Product,
        ReduceOp::Min,
        ReduceOp::Max,
        ReduceOp::And,
        ReduceOp::Or,
        ReduceOp::Xor,
    ];
    let named = usize::try_from(op).ok().and_then(|number| NUMBERED.get(number)).copied();
    let Some(op) = named else {
        return Err(Failure::Value(format!(
            "no reduce operation has number {op}: they are those of torch.distributed.ReduceOp, 0 (sum) to 7"
        )));
    };
    memory
        .element
        .reduced_by(op)
        .ok_or_else(|| Failure::Type(format!("{op} is not defined for elements of {:?}", memory.element)))
}
