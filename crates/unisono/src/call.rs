//! What a rank asks for: the description of one call, as errors print it and as peers compare it.
//!
//! All ranks must make the same calls in the same order. Each call's description is folded into a running
//! fingerprint that is published with every step; two ranks whose histories differ anywhere see it at their next
//! wait, and the records of their last calls say where.

use std::fmt;
use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};
use unisono_kernels::{DType, ReduceOp};
use unisono_protocol::record::Fields;

/// The operations of a communicator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Operation {
    /// Every rank gets the reduction of all inputs.
    AllReduce = 1,
    /// Rank `r` gets block `r` of the reduction of all inputs.
    ReduceScatter,
    /// Every rank gets all inputs, in rank order.
    AllGather,
    /// Every rank gets the root's data.
    Broadcast,
    /// The root gets the reduction of all inputs.
    Reduce,
    /// The root gets all inputs, in rank order.
    Gather,
    /// Rank `r` gets block `r` of the root's data.
    Scatter,
    /// Rank `r` gets block `r` of every rank's input.
    AllToAll,
    /// Nobody leaves before all have come.
    Barrier,
    /// All-gather with a length per rank.
    AllGatherV,
    /// Reduce-scatter with a length per rank.
    ReduceScatterV,
    /// All-to-all with a length per pair.
    AllToAllV,
    /// Gather with a length per rank.
    GatherV,
    /// Scatter with a length per rank.
    ScatterV,
    /// Data to one other rank.
    Send,
    /// Data from one other rank.
    Recv,
    /// Forming sub-groups.
    Split,
    /// Leaving together.
    Close,
    /// Making registered memory.
    Alloc,
}

impl Operation {
    const ALL: [Operation; 19] = [
        Operation::AllReduce,
        Operation::ReduceScatter,
        Operation::AllGather,
        Operation::Broadcast,
        Operation::Reduce,
        Operation::Gather,
        Operation::Scatter,
        Operation::AllToAll,
        Operation::Barrier,
        Operation::AllGatherV,
        Operation::ReduceScatterV,
        Operation::AllToAllV,
        Operation::GatherV,
        Operation::ScatterV,
        Operation::Send,
        Operation::Recv,
        Operation::Split,
        Operation::Close,
        Operation::Alloc,
    ];

    /// The name of the method, as in `all_reduce`.
    pub fn name(self) -> &'static str {
        match self {
            Operation::AllReduce => "all_reduce",
            Operation::ReduceScatter => "reduce_scatter",
            Operation::AllGather => "all_gather",
            Operation::Broadcast => "broadcast",
            Operation::Reduce => "reduce",
            Operation::Gather => "gather",
            Operation::Scatter => "scatter",
            Operation::AllToAll => "all_to_all",
            Operation::Barrier => "barrier",
            Operation::AllGatherV => "all_gather_v",
            Operation::ReduceScatterV => "reduce_scatter_v",
            Operation::AllToAllV => "all_to_all_v",
            Operation::GatherV => "gather_v",
            Operation::ScatterV => "scatter_v",
            Operation::Send => "send",
            Operation::Recv => "recv",
            Operation::Split => "split",
            Operation::Close => "close",
            Operation::Alloc => "alloc",
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|operation| *operation as u8 == code)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How the data of a call travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
#[non_exhaustive]
pub enum Algorithm {
    /// Pairs of regions whose roles flip with every use; one step.
    Swap = 1,
    /// Slices go to their reducer and come back in the same lines; two steps.
    Migrate,
    /// One writer, several readers.
    Shared,
    /// A window of bytes from one rank to one other.
    Window,
    /// Swap whose messages say by themselves that they have come.
    Packet,
    /// Migrate in chunks, of which the next is handed out before the last has come back.
    Pipeline,
    /// Each rank writes its share of the result into all ranks' registered memory; two steps.
    Push,
}

impl Algorithm {
    const ALL: [Algorithm; 7] = [
        Algorithm::Swap,
        Algorithm::Migrate,
        Algorithm::Shared,
        Algorithm::Window,
        Algorithm::Packet,
        Algorithm::Pipeline,
        Algorithm::Push,
    ];

    /// Its name in messages and in `UNISONO_ALGORITHM`.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Packet => "packet",
            Algorithm::Pipeline => "pipeline",
            Algorithm::Swap => "swap",
            Algorithm::Migrate => "migrate",
            Algorithm::Shared => "shared",
            Algorithm::Window => "window",
            Algorithm::Push => "push",
        }
    }
}

/// Where data lies in registered memory: in which allocation, and from which element.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Place(NonZeroU64);

impl Place {
    /// Bits 1 to 47 hold the offset, those above the allocation, and bit 0 is set, so that no place is 0.
    const ALLOCATION: u32 = 48;

    fn new(allocation: u64, offset: usize) -> Self {
        let offset = (offset as u64) << 1 & ((1 << Self::ALLOCATION) - 1);
        Place(NonZeroU64::MIN | (allocation << Self::ALLOCATION) | offset)
    }

    /// The number of the allocation, counted from 1 per communicator; above 65,535 it begins again.
    pub fn allocation(self) -> u16 {
        (self.0.get() >> Self::ALLOCATION) as u16
    }

    /// Elements from the start of the allocation.
    pub fn offset(self) -> usize {
        ((self.0.get() & ((1 << Self::ALLOCATION) - 1)) >> 1) as usize
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "element {} of allocation {}", self.offset(), self.allocation())
    }
}

/// One call on a communicator, with everything that all ranks must agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Call {
    /// What is asked for.
    pub operation: Operation,
    /// The element type; none for a barrier.
    pub dtype: Option<DType>,
    /// The reduction; none where nothing is reduced.
    pub reduce_op: Option<ReduceOp>,
    /// Elements per rank (for the uneven forms: of all ranks together, 0 where only some ranks know).
    pub count: usize,
    /// The root of a rooted operation, the other side of a send or recv.
    pub root: Option<usize>,
    /// How the data travels; none where there is no data.
    pub algorithm: Option<Algorithm>,
    /// A digest of what does not fit the fields above: shape and dimension, lengths per rank, or the place.
    pub shape: u64,
    /// Where the data lies in registered memory; none for other memory.
    pub place: Option<Place>,
}

impl Call {
    #[inline(always)]
    pub(crate) fn new(operation: Operation) -> Self {
        Call {
            operation,
            dtype: None,
            reduce_op: None,
            count: 0,
            root: None,
            algorithm: None,
            shape: 0,
            place: None,
        }
    }

    #[inline(always)]
    pub(crate) fn of(self, count: usize, dtype: DType) -> Self {
        Call { count, dtype: Some(dtype), ..self }
    }

    #[inline(always)]
    pub(crate) fn reducing(self, op: ReduceOp) -> Self {
        Call { reduce_op: Some(op), ..self }
    }

    #[inline(always)]
    pub(crate) fn rooted(self, root: usize) -> Self {
        Call { root: Some(root), ..self }
    }

    #[inline(always)]
    pub(crate) fn by(self, algorithm: Algorithm) -> Self {
        Call { algorithm: Some(algorithm), ..self }
    }

    pub(crate) fn shaped(self, numbers: impl IntoIterator<Item = usize>) -> Self {
        Call { shape: digest(numbers), ..self }
    }

    /// On registered memory: of this allocation, from this element.
    pub(crate) fn placed(self, allocation: u64, offset: usize) -> Self {
        let shape = digest([self.shape as usize, allocation as usize, offset]);
        Call { shape, place: Some(Place::new(allocation, offset)), ..self }
    }

    /// The call as four numbers, for the records in shared memory. Codes are shifted by one: 0 is "none".
    // Always: the fields are single bytes that were just written, and most of them are known where the call is made.
    #[inline(always)]
    pub(crate) fn pack(&self) -> Fields {
        let dtype = self.dtype.map_or(0, |dtype| dtype as u64 + 1);
        let op = self.reduce_op.map_or(0, |op| op as u64 + 1);
        let root = self.root.map_or(0, |root| root as u64 + 1);
        let algorithm = self.algorithm.map_or(0, |algorithm| algorithm as u64);
        [
            self.operation as u64 | dtype << 8 | op << 16 | root << 24 | algorithm << 40,
            self.count as u64,
            self.shape,
            self.place.map_or(0, |place| place.0.get()),
        ]
    }

    /// A call read from a peer's record; `None` if it makes no sense.
    pub(crate) fn unpack(fields: Fields) -> Option<Self> {
        let code = |shift: u32| (fields[0] >> shift) as u8;
        let some = |code: u8| code.checked_sub(1);
        Some(Call {
            operation: Operation::from_code(code(0))?,
            dtype: some(code(8)).and_then(DType::from_code),
            reduce_op: some(code(16)).and_then(ReduceOp::from_code),
            root: usize::from((fields[0] >> 24) as u16).checked_sub(1),
            algorithm: Algorithm::ALL.into_iter().find(|algorithm| *algorithm as u8 == code(40)),
            count: usize::try_from(fields[1]).ok()?,
            shape: fields[2],
            place: NonZeroU64::new(fields[3]).map(Place),
        })
    }
}

/// The fingerprint of a history that goes on with the call of these fields.
#[inline]
pub(crate) fn chained(history: u64, fields: Fields) -> u64 {
    // The place is in the shape.
    let [what, count, shape, _] = fields;
    mix(mix(history ^ what, count), shape)
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.operation)?;
        let mut comma = "";
        if let Some(op) = self.reduce_op {
            write!(f, "{op}")?;
            comma = ", ";
        }
        if let Some(dtype) = self.dtype {
            write!(f, "{comma}{} x {dtype}", self.count)?;
            comma = ", ";
        }
        if let Some(root) = self.root {
            let role = match self.operation {
                Operation::Send => "to",
                Operation::Recv => "from",
                _ => "root",
            };
            write!(f, "{comma}{role} {root}")?;
            comma = ", ";
        }
        if let Some(place) = self.place {
            write!(f, "{comma}from {place:?}")?;
            comma = ", ";
        } else if self.shape != 0 {
            write!(f, "{comma}shape #{:08x}", self.shape as u32)?;
            comma = ", ";
        }
        if let Some(algorithm) = self.algorithm {
            write!(f, "{comma}by {}", algorithm.name())?;
        }
        f.write_str(")")
    }
}

/// Fold two numbers into one, so that each input bit reaches about half of the output bits.
#[inline]
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ 0x9e37_79b9_7f4a_7c15) * u128::from(b ^ 0xd6e8_feb8_6659_fd93);
    (product as u64) ^ ((product >> 64) as u64) ^ b.rotate_left(32)
}

/// A digest of a list of numbers; never 0.
pub(crate) fn digest(numbers: impl IntoIterator<Item = usize>) -> u64 {
    numbers.into_iter().fold(0x51_7c_c1_b7_27_22_0a_95, |so_far, number| mix(so_far, number as u64)) | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_survives_the_record() {
        let call = Call::new(Operation::Reduce)
            .of(4096, DType::BF16)
            .reducing(ReduceOp::Max)
            .rooted(63)
            .by(Algorithm::Migrate)
            .shaped([3, 4]);
        assert_eq!(Call::unpack(call.pack()), Some(call));
        let placed = call.placed(65_535, 1 << 40);
        assert_eq!(Call::unpack(placed.pack()), Some(placed));
        assert_eq!(Call::unpack(Call::new(Operation::Barrier).pack()), Some(Call::new(Operation::Barrier)));
        assert_eq!(Call::unpack([u64::MAX; 4]), None);
    }

    #[test]
    fn any_difference_changes_the_history() {
        let call = Call::new(Operation::Broadcast).of(10, DType::F32).rooted(0);
        let others = [
            call.rooted(1),
            call.of(11, DType::F32),
            call.of(10, DType::I32),
            call.shaped([1]),
            call.by(Algorithm::Shared),
            call.placed(1, 0),
            call.placed(1, 1),
            call.placed(2, 0),
            Call { operation: Operation::Scatter, ..call },
        ];
        for history in [0, 1, u64::MAX, 0x9e37_79b9_7f4a_7c15] {
            for other in others {
                assert_ne!(
                    chained(history, call.pack()),
                    chained(history, other.pack()),
                    "{call} and {other}"
                );
            }
            assert_ne!(chained(history, call.pack()), chained(history ^ 1 << 40, call.pack()));
        }
    }

    #[test]
    fn a_call_reads_as_its_user_wrote_it() {
        let call = Call::new(Operation::AllReduce).of(4096, DType::F32).reducing(ReduceOp::Sum);
        assert_eq!(call.to_string(), "all_reduce(sum, 4096 x f32)");
        assert_eq!(
            call.placed(2, 128).by(Algorithm::Push).to_string(),
            "all_reduce(sum, 4096 x f32, from element 128 of allocation 2, by push)"
        );
        assert_eq!(Call::new(Operation::Barrier).to_string(), "barrier()");
        assert_eq!(Call::new(Operation::Recv).of(3, DType::I8).rooted(2).to_string(), "recv(3 x i8, from 2)");
    }
}
