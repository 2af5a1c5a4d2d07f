//! The conformance suite: what every operation of a communicator must give, whichever backend the ranks met by.
//!
//! The two test programs `in_process` (ranks are threads) and `processes` (ranks are processes) run the same promises,
//! each a function that every rank calls with its communicator. Underneath lies [`Checker::perform`]: it carries out one
//! [`Case`] and compares every output byte with a plain loop over all ranks' inputs ([`oracle`]), and the memory
//! around it with what was there before.
//!
//! The invariant: what a rank passes is a pure function of seed, number of the case and rank ([`inputs`]), so that
//! each rank knows the inputs of all and no second channel is needed to check a result.

#![allow(dead_code, reason = "each test program uses a part of it")]

pub(crate) mod arguments;
pub(crate) mod asynchronous;
mod blocks;
mod buffer;
mod inputs;
pub(crate) mod leaving;
mod oracle;
pub(crate) mod order;
mod reductions;
pub(crate) mod registered;
pub(crate) mod stream;
pub(crate) mod subgroups;
pub(crate) mod sweep;
pub(crate) mod teams;
pub(crate) mod threads;
mod transfers;
pub(crate) mod values;

use unisono::{Algorithm, Communicator, DType, Parameters, ReduceOp, RegisteredMemory, Result};

use buffer::{Buffer, Place};
pub(crate) use inputs::Draws;

/// An expression in which `$T` is the Rust type of a [`DType`].
macro_rules! typed {
    ($dtype:expr, $T:ident => $body:expr) => {
        typed!(@ $dtype, $T, $body,
            F32 f32, F64 f64, F16 half::f16, BF16 half::bf16, I8 i8, I16 i16, I32 i32, I64 i64,
            U8 u8, U16 u16, U32 u32, U64 u64)
    };
    (@ $dtype:expr, $T:ident, $body:expr, $($name:ident $rust:ty),+) => {
        match $dtype {
            $(DType::$name => {
                type $T = $rust;
                $body
            })+
        }
    };
}
pub(crate) use typed;

/// What can be asked of all ranks, or of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    AllReduce,
    Reduce,
    ReduceScatter,
    ReduceScatterV,
    AllGather,
    AllGatherV,
    AllGatherDim,
    Broadcast,
    Gather,
    GatherV,
    Scatter,
    ScatterV,
    AllToAll,
    AllToAllV,
    Transfer,
    Barrier,
    AllReduceRegistered,
    ReduceRegistered,
    ReduceScatterRegistered,
    AllGatherRegistered,
    BroadcastRegistered,
}

impl Kind {
    pub(crate) const ALL: [Kind; 21] = [
        Kind::AllReduce,
        Kind::Reduce,
        Kind::ReduceScatter,
        Kind::ReduceScatterV,
        Kind::AllGather,
        Kind::AllGatherV,
        Kind::AllGatherDim,
        Kind::Broadcast,
        Kind::Gather,
        Kind::GatherV,
        Kind::Scatter,
        Kind::ScatterV,
        Kind::AllToAll,
        Kind::AllToAllV,
        Kind::Transfer,
        Kind::Barrier,
        Kind::AllReduceRegistered,
        Kind::ReduceRegistered,
        Kind::ReduceScatterRegistered,
        Kind::AllGatherRegistered,
        Kind::BroadcastRegistered,
    ];

    /// Whether it reduces, so that each reduce operation is another case.
    pub(crate) fn reduces(self) -> bool {
        let plain =
            matches!(self, Kind::AllReduce | Kind::Reduce | Kind::ReduceScatter | Kind::ReduceScatterV);
        plain || matches!(self.elsewhere(), Some(Kind::AllReduce | Kind::Reduce | Kind::ReduceScatter))
    }

    /// For an operation on registered memory: the same on other memory.
    fn elsewhere(self) -> Option<Kind> {
        match self {
            Kind::AllReduceRegistered => Some(Kind::AllReduce),
            Kind::ReduceRegistered => Some(Kind::Reduce),
            Kind::ReduceScatterRegistered => Some(Kind::ReduceScatter),
            Kind::AllGatherRegistered => Some(Kind::AllGather),
            Kind::BroadcastRegistered => Some(Kind::Broadcast),
            _ => None,
        }
    }
}

/// Through which methods, and whether input and output are the same memory. An operation that has no such form takes
/// the nearest that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Slices,
    SlicesInPlace,
    /// Pointers that are aligned to nothing.
    Raw,
    RawInPlace,
}

impl Form {
    pub(crate) const ALL: [Form; 4] = [Form::Slices, Form::SlicesInPlace, Form::Raw, Form::RawInPlace];
}

/// One operation to carry out and check.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) kind: Kind,
    pub(crate) dtype: DType,
    pub(crate) op: ReduceOp,
    /// Elements per rank or block; the scale of the counts of uneven forms.
    pub(crate) count: usize,
    pub(crate) root: usize,
    pub(crate) form: Form,
}

/// Carries out cases on one communicator.
pub(crate) struct Checker<'c> {
    pub(crate) comm: &'c Communicator,
    /// Tells the inputs of this checker from those of others.
    pub(crate) seed: u64,
    /// Registered memory for the operations that want it. Without it they take other memory.
    pool: Option<RegisteredMemory>,
}

impl<'c> Checker<'c> {
    pub(crate) fn new(comm: &'c Communicator, seed: u64) -> Self {
        Checker { comm, seed, pool: None }
    }

    /// With registered memory for cases of up to `bytes` bytes per rank or block. All ranks call this at once.
    pub(crate) fn registering(comm: &'c Communicator, seed: u64, bytes: usize) -> Self {
        let bytes = registered::pool_bytes(comm.world_size(), bytes);
        let pool = comm.raw().alloc(bytes, DType::U8).expect("all ranks allocate");
        Checker { comm, seed, pool: Some(pool) }
    }

    /// Carry out a case and compare the outcome. All ranks pass the same number and case.
    ///
    /// # Panics
    /// If the operation fails or gives other bytes than a plain loop.
    pub(crate) fn perform(&self, number: u64, case: Case) {
        let (rank, world) = (self.comm.rank(), self.comm.world_size());
        let mut task = Task { comm: self.comm, seed: self.seed, number, case, rank, world };
        if let Some(elsewhere) = case.kind.elsewhere() {
            if let Some(pool) = &self.pool {
                return task.on_registered(pool);
            }
            task.case.kind = elsewhere;
        }
        match task.case.kind {
            Kind::AllReduce => task.all_reduce(),
            Kind::Reduce => task.reduce(),
            Kind::ReduceScatter => task.reduce_scatter(),
            Kind::ReduceScatterV => task.reduce_scatter_v(),
            Kind::AllGather => task.all_gather(),
            Kind::AllGatherV => task.all_gather_v(),
            Kind::AllGatherDim => task.all_gather_dim(),
            Kind::Broadcast => task.broadcast(),
            Kind::Gather => task.gather(),
            Kind::GatherV => task.gather_v(),
            Kind::Scatter => task.scatter(),
            Kind::ScatterV => task.scatter_v(),
            Kind::AllToAll => task.all_to_all(),
            Kind::AllToAllV => task.all_to_all_v(),
            Kind::Transfer => task.transfer(),
            Kind::Barrier => task.ok(self.comm.barrier()),
            Kind::AllReduceRegistered
            | Kind::ReduceRegistered
            | Kind::ReduceScatterRegistered
            | Kind::AllGatherRegistered
            | Kind::BroadcastRegistered => unreachable!("they have been taken elsewhere"),
        }
    }
}

/// One case under way on one rank.
struct Task<'c> {
    comm: &'c Communicator,
    seed: u64,
    number: u64,
    case: Case,
    rank: usize,
    world: usize,
}

impl Task<'_> {
    /// Numbers that are the same on all ranks, for whatever else a case must choose.
    fn draws(&self, what: u64) -> Draws {
        Draws::new(&[self.seed, self.number, what])
    }

    /// The first `count` elements of what `rank` passes.
    fn data(&self, rank: usize, count: usize) -> Vec<u8> {
        inputs::elements(self.case.dtype, count, &[self.seed, self.number, 1 << 32 | rank as u64])
    }

    fn bytes(&self, count: usize) -> usize {
        count * self.case.dtype.size_bytes()
    }

    fn is_raw(&self) -> bool {
        matches!(self.case.form, Form::Raw | Form::RawInPlace)
    }

    fn in_place(&self) -> bool {
        matches!(self.case.form, Form::SlicesInPlace | Form::RawInPlace)
    }

    fn at_root(&self) -> bool {
        self.rank == self.case.root
    }

    fn place(&self) -> Place {
        if self.is_raw() { Place::AlignedToNothing } else { Place::AlignedToElements }
    }

    fn holding(&self, content: &[u8]) -> Buffer {
        Buffer::holding(content, self.place())
    }

    /// Memory for `count` elements that an operation is to fill.
    fn blank(&self, count: usize) -> Buffer {
        Buffer::blank(self.bytes(count), self.place())
    }

    /// A count for `from` and `to` of the uneven forms: up to twice the case's, and often 0.
    fn uneven(&self, from: usize, to: usize) -> usize {
        let mut draws = self.draws(2 << 32 | (from as u64) << 8 | to as u64);
        if draws.below(4) == 0 { 0 } else { draws.below(2 * self.case.count + 1) }
    }

    fn describe(&self) -> String {
        let Task { number, case, rank, world, .. } = self;
        format!("#{number} {case:?} on rank {rank} of {world}")
    }

    fn ok(&self, result: Result<()>) {
        if let Err(error) = result {
            panic!("{}: {error}", self.describe());
        }
    }

    fn expect(&self, buffer: &Buffer, expected: &[u8]) {
        if let Err(difference) = buffer.compare(expected, self.case.dtype.size_bytes()) {
            panic!("{}: {difference}", self.describe());
        }
    }
}

/// The algorithms of `UNISONO_ALGORITHM`.
pub(crate) const ALGORITHMS: [Algorithm; 4] =
    [Algorithm::Packet, Algorithm::Swap, Algorithm::Migrate, Algorithm::Pipeline];

/// Parameters so small that a few kilobytes go through every switch, several chunks and around every ring.
pub(crate) fn small_parameters(world: usize) -> Parameters {
    let mut parameters = Parameters::for_world(world);
    for (_, field, bytes) in small_sizes(&mut parameters) {
        *field = bytes;
    }
    parameters
}

/// The same for ranks that get them from the environment.
pub(crate) fn small_environment() -> Vec<(&'static str, String)> {
    let mut parameters = Parameters::for_world(2);
    small_sizes(&mut parameters).map(|(name, _, bytes)| (name, bytes.to_string())).into()
}

fn small_sizes(parameters: &mut Parameters) -> [(&'static str, &mut usize, usize); 8] {
    [
        ("UNISONO_PACKET_BYTES", &mut parameters.packet_bytes, 128),
        ("UNISONO_SMALL_BYTES", &mut parameters.small_bytes, 256),
        ("UNISONO_CHUNK_BYTES", &mut parameters.chunk_bytes, 2048),
        ("UNISONO_PIPELINE_BYTES", &mut parameters.pipeline_bytes, 1024),
        ("UNISONO_SWAP_BYTES", &mut parameters.swap_bytes, 512),
        ("UNISONO_BROADCAST_BYTES", &mut parameters.broadcast_bytes, 320),
        ("UNISONO_WINDOW_BYTES", &mut parameters.window_bytes, 512),
        ("UNISONO_PUSH_BYTES", &mut parameters.push_bytes, 128),
    ]
}
