//! Collectives and message queues between the processes of a machine, over shared memory.
//!
//! A tensor-parallel engine runs one process (or thread) per rank and adds up their partial results many times per token.
//! This crate does that in about the time that the memory needs to carry the data: [`Communicator`] offers all-reduce,
//! all-gather, reduce-scatter, broadcast, all-to-all, gather, scatter, barrier, send and recv on slices of any
//! number type, for 1 to 64 ranks, with the same bits on every rank and never a silent hang.
//!
//! ```no_run
//! use unisono::{Communicator, ReduceOp};
//!
//! // Started by `unisono run -n 2 -- ./program` or by torchrun.
//! let comm = Communicator::from_env()?;
//! let mut hidden = vec![1.0f32; 4096];
//! comm.all_reduce(&mut hidden, ReduceOp::Sum)?;
//! assert_eq!(hidden[0], comm.world_size() as f32);
//! # Ok::<_, unisono::Error>(())
//! ```
//!
//! [`queue`] has the other instrument: one writer broadcasts messages of any size to many readers.
//!
//! The map of the house is in ARCHITECTURE.md. Inside this crate arrows go one way: `communicator` → `collectives` →
//! `group` → [`segment`].

mod arguments;
mod background;
mod cadence;
mod call;
mod collectives;
mod communicator;
#[cfg(not(feature = "counts"))]
mod counts;
#[cfg(feature = "counts")]
pub mod counts;
mod error;
mod group;
pub mod interrupt;
mod marker;
mod memory;
pub mod observe;
mod parameters;
pub mod queue;
mod registered;
pub mod segment;
mod socket_file;
mod team;
mod words;

use unisono_os::fault;

pub use call::{Algorithm, Call, Operation, Place};
pub use communicator::{Builder, Communicator, DEFAULT_TIMEOUT, Exchange, Pending, Raw, Scope};
pub use error::{Error, LastOperation, PeerStatus, Result};
pub use parameters::{MAX_WORLD_SIZE, Parameters};
pub use registered::{Registered, RegisteredMemory, RegisteredSlice};
pub use team::Team;
pub use unisono_kernels::{DType, Element, Isa, ReduceOp};

/// The README's program is compiled and run with the tests.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
