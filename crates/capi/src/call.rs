//! One call as data: what the functions of `collectives` fill in, and what `unisono_start` takes.
//!
//! [`Plan::carry_out`] is the only place that makes the library's calls, so that a started call is the same as a made one.

#![allow(unsafe_code)]

use std::borrow::Cow;
use std::ffi::c_void;
use std::mem::MaybeUninit;

use unisono::{Communicator, DType, Operation, ReduceOp, RegisteredMemory};

use crate::boundary::{Result, array, index, object, refused};
use crate::registered::unisono_memory;
use crate::types::{meaning_of, unisono_dtype, unisono_op, unisono_operation};
use crate::versioned::{self, versioned};

/// One call, for unisono_start(). What an operation does not need is not looked at, and is best left zero.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct unisono_call {
    /// sizeof(unisono_call), set by the caller.
    pub struct_size: usize,
    /// What is asked for.
    pub operation: MaybeUninit<unisono_operation>,
    /// The type of the elements.
    pub dtype: MaybeUninit<unisono_dtype>,
    /// The reduction.
    pub op: MaybeUninit<unisono_op>,
    /// The root; the other side of a send or recv.
    pub root: i32,
    /// Where the input is.
    pub input: *const c_void,
    /// Where the output goes; also the data of a broadcast and a recv.
    pub output: *mut c_void,
    /// Elements, as the operation's function says.
    pub count: usize,
    /// One count per rank: of the uneven operations; of all_to_all_v what is sent.
    pub counts: *const usize,
    /// Of all_to_all_v one count per rank: what is received.
    pub recv_counts: *const usize,
    /// Of all_gather along a dimension: the input's shape.
    pub shape: *const usize,
    /// How many dimensions it has; 0 if there is no shape.
    pub dimensions: usize,
    /// Registered memory instead of input and output, in place; null: none.
    pub memory: *const unisono_memory,
    /// Where in it the elements begin, in elements.
    pub offset: usize,
    /// Of all_gather along a dimension: which; negative ones count from the last.
    pub dim: i64,
}
versioned!(unisono_call, dim: i64);

impl unisono_call {
    /// A call of which nothing is said but what is asked for.
    #[inline]
    pub(crate) fn new(operation: unisono_operation) -> Self {
        unisono_call {
            struct_size: size_of::<Self>(),
            operation: MaybeUninit::new(operation),
            dtype: MaybeUninit::new(unisono_dtype::F32),
            op: MaybeUninit::new(unisono_op::Sum),
            root: 0,
            input: std::ptr::null(),
            output: std::ptr::null_mut(),
            count: 0,
            counts: std::ptr::null(),
            recv_counts: std::ptr::null(),
            shape: std::ptr::null(),
            dimensions: 0,
            memory: std::ptr::null(),
            offset: 0,
            dim: 0,
        }
    }
}

/// A caller's structure, whatever its age.
///
/// # Safety
/// The pointer is null, or as many bytes may be read there as the structure says.
pub(crate) unsafe fn read(operation: &'static str, call: *const unisono_call) -> Result<unisono_call> {
    // SAFETY: the caller's word.
    unsafe { versioned::read(operation, call) }
}

/// A call whose lists and handles were looked at: they lie where the caller has them, or in the plan itself.
pub(crate) struct Plan<'a> {
    operation: Operation,
    dtype: MaybeUninit<unisono_dtype>,
    op: MaybeUninit<unisono_op>,
    root: i32,
    input: *const u8,
    output: *mut u8,
    count: usize,
    counts: Cow<'a, [usize]>,
    recv_counts: Cow<'a, [usize]>,
    shape: Option<Cow<'a, [usize]>>,
    dim: i64,
    memory: Option<Cow<'a, RegisteredMemory>>,
    offset: usize,
}

// SAFETY: the two pointers are the caller's memory, which by the header nobody touches until the call is over.
unsafe impl Send for Plan<'static> {}

impl<'a> Plan<'a> {
    /// # Safety
    /// Lists, shape and memory are what the header says, as long as the plan lives.
    #[inline]
    pub(crate) unsafe fn of(call: &unisono_call, world_size: usize, rank: usize) -> Result<Self> {
        let operation = meaning_of("start", call.operation)?;
        let name = operation.name();
        let root = call.root;
        let has_counts = match operation {
            Operation::AllGatherV | Operation::ReduceScatterV | Operation::AllToAllV => true,
            // Only the root has them.
            Operation::GatherV | Operation::ScatterV => usize::try_from(root).is_ok_and(|root| root == rank),
            _ => false,
        };
        let length = |wanted: bool| if wanted { world_size } else { 0 };
        let takes_memory = matches!(
            operation,
            Operation::AllReduce
                | Operation::Reduce
                | Operation::ReduceScatter
                | Operation::AllGather
                | Operation::Broadcast
        );
        if !call.memory.is_null() && !takes_memory {
            return Err(refused(name, "it does not work on registered memory: pass its address"));
        }
        // SAFETY: the caller's word, for all of them.
        unsafe {
            Ok(Plan {
                operation,
                dtype: call.dtype,
                op: call.op,
                root,
                input: call.input.cast(),
                output: call.output.cast(),
                count: call.count,
                counts: array(name, "the list of counts", call.counts, length(has_counts))?.into(),
                recv_counts: array(
                    name,
                    "the list of counts to receive",
                    call.recv_counts,
                    length(operation == Operation::AllToAllV),
                )?
                .into(),
                shape: match call.dimensions {
                    0 => None,
                    dimensions => Some(array(name, "the shape", call.shape, dimensions)?.into()),
                },
                dim: call.dim,
                memory: match call.memory.is_null() {
                    true => None,
                    false => {
                        Some(Cow::Borrowed(object(name, "the registered memory", call.memory)?.library()))
                    }
                },
                offset: call.offset,
            })
        }
    }

    /// The same with lists and memory of its own.
    pub(crate) fn into_owned(self) -> Plan<'static> {
        Plan {
            counts: self.counts.into_owned().into(),
            recv_counts: self.recv_counts.into_owned().into(),
            shape: self.shape.map(|shape| shape.into_owned().into()),
            memory: self.memory.map(|memory| Cow::Owned(memory.into_owned())),
            ..self
        }
    }

    /// What carrying out would find wrong before it calls the library.
    pub(crate) fn check(&self) -> Result<()> {
        use Operation as O;
        if self.operation != O::Barrier {
            self.dtype()?;
        }
        if matches!(self.operation, O::AllReduce | O::Reduce | O::ReduceScatter | O::ReduceScatterV) {
            self.op()?;
        }
        if matches!(
            self.operation,
            O::Broadcast | O::Reduce | O::Gather | O::Scatter | O::GatherV | O::ScatterV | O::Send | O::Recv
        ) {
            self.root()?;
        }
        Ok(())
    }

    fn dtype(&self) -> Result<DType> {
        meaning_of(self.operation.name(), self.dtype)
    }

    fn op(&self) -> Result<ReduceOp> {
        meaning_of(self.operation.name(), self.op)
    }

    fn root(&self) -> Result<usize> {
        index(self.operation.name(), "the other rank", self.root)
    }

    /// Make the call.
    ///
    /// # Safety
    /// Input and output hold what the operation's function says in the header, and no other thread touches them meanwhile.
    #[inline]
    pub(crate) unsafe fn carry_out(&self, comm: &Communicator) -> Result<()> {
        if let Some(memory) = &self.memory {
            // SAFETY: the caller's word, the same for registered memory.
            return unsafe { self.carry_out_registered(comm, memory) };
        }
        let raw = comm.raw();
        let (input, output, count) = (self.input, self.output, self.count);
        // SAFETY: the contract of `Raw` is the header's, which the caller keeps.
        unsafe {
            match self.operation {
                Operation::AllReduce => raw.all_reduce(input, output, count, self.dtype()?, self.op()?)?,
                Operation::Reduce => {
                    raw.reduce(input, output, count, self.dtype()?, self.op()?, self.root()?)?
                }
                Operation::ReduceScatter => {
                    raw.reduce_scatter(input, output, count, self.dtype()?, self.op()?)?
                }
                Operation::AllGather => match &self.shape {
                    Some(shape) => {
                        raw.all_gather_dim(input, output, shape, self.dim as isize, self.dtype()?)?
                    }
                    None => raw.all_gather(input, output, count, self.dtype()?)?,
                },
                Operation::Broadcast => raw.broadcast(output, count, self.dtype()?, self.root()?)?,
                Operation::Gather => raw.gather(input, output, count, self.dtype()?, self.root()?)?,
                Operation::Scatter => raw.scatter(input, output, count, self.dtype()?, self.root()?)?,
                Operation::AllToAll => raw.all_to_all(input, output, count, self.dtype()?)?,
                Operation::Barrier => comm.barrier()?,
                Operation::AllGatherV => raw.all_gather_v(input, output, &self.counts, self.dtype()?)?,
                Operation::ReduceScatterV => {
                    raw.reduce_scatter_v(input, output, &self.counts, self.dtype()?, self.op()?)?;
                }
                Operation::AllToAllV => {
                    raw.all_to_all_v(input, &self.counts, output, &self.recv_counts, self.dtype()?)?;
                }
                Operation::GatherV => {
                    raw.gather_v(input, count, output, &self.counts, self.dtype()?, self.root()?)?;
                }
                Operation::ScatterV => {
                    raw.scatter_v(input, &self.counts, output, count, self.dtype()?, self.root()?)?;
                }
                Operation::Send => raw.send(input, count, self.dtype()?, self.root()?)?,
                Operation::Recv => raw.recv(output, count, self.dtype()?, self.root()?)?,
                other => return Err(refused("start", format!("{other} cannot be started"))),
            }
        }
        Ok(())
    }

    /// # Safety
    /// No other thread touches these elements meanwhile.
    unsafe fn carry_out_registered(&self, comm: &Communicator, memory: &RegisteredMemory) -> Result<()> {
        let raw = comm.raw();
        let (offset, count, dtype) = (self.offset, self.count, self.dtype()?);
        // SAFETY: the caller's word.
        unsafe {
            match self.operation {
                Operation::AllReduce => {
                    raw.all_reduce_registered(memory, offset, count, dtype, self.op()?)?
                }
                Operation::Reduce => {
                    raw.reduce_registered(memory, offset, count, dtype, self.op()?, self.root()?)?;
                }
                Operation::ReduceScatter => {
                    raw.reduce_scatter_registered(memory, offset, count, dtype, self.op()?)?;
                }
                Operation::AllGather => raw.all_gather_registered(memory, offset, count, dtype)?,
                Operation::Broadcast => {
                    raw.broadcast_registered(memory, offset, count, dtype, self.root()?)?
                }
                other => return Err(refused("start", format!("{other} does not work on registered memory"))),
            }
        }
        Ok(())
    }
}
