//! Everything of unisono that talks to the operating system, safe on the outside.
//!
//! The library above asks for things in its own words (memory that cannot shrink, a word to sleep on, news of
//! a death, a socket that carries descriptors) and this crate turns them into system calls of Linux on
//! x86_64 and aarch64. It knows nothing of ranks, collectives or queues.
//!
//! The one invariant that matters: **no function here can be called in a way that breaks memory safety**,
//! whatever another process does to memory, sockets or files that it shares with this one. Memory that
//! others may write is handed out as raw pointers and atomics only, and everything received is checked
//! before it is believed.
//!
//! | module | what it gives |
//! |---|---|
//! | [`memfd`] | anonymous memory, sealed, so that it can be handed to another process |
//! | [`mapping`] | a range of memory of this process: shared or private |
//! | [`named`] | memory with a name in `/dev/shm` |
//! | [`futex`] | sleeping on a word, and waking who sleeps |
//! | [`robust`] | words that the kernel marks when a process dies |
//! | [`pidfd`] | a descriptor that stands for a process |
//! | [`socket`] | sockets on one machine that carry descriptors and credentials |
//! | [`poll`] | waiting for several descriptors, and a descriptor to be woken by |
//! | [`cpu`] | which processors may be used, how much of them, and how they hang together |
//! | [`memory_limit`] | how much memory may still be had |
//! | [`fork_guard`] | telling a forked child from its parent |
//! | [`features`] | which newer kernel features are there |
//! | [`thread`], [`process`], [`clock`] | signals, names, priorities, time |
//! | [`fault`] | points at which a test kills its process |
//! | [`seldom`] | what happens often is told now and then |
//!
//! Every newer kernel feature is probed once and has its fall-back behind the same function;
//! [`features::probe`] lists them.
//!
//! ```
//! use std::os::fd::AsFd;
//! use std::sync::atomic::Ordering;
//! use unisono_os::mapping::{Access, Mapping};
//! use unisono_os::socket::{Connection, Received};
//! use unisono_os::memfd;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // One side creates memory that cannot shrink, and hands it over.
//! let (here, there) = Connection::pair()?;
//! let memory = memfd::create_sealed("example", 4096)?;
//! here.send(b"my memory", &[memory.as_fd()], None)?;
//!
//! // The other side believes nothing before it has looked.
//! let Received::Message(message) = there.receive(64, None)? else { return Err("closed".into()) };
//! let received = message.descriptors[0].as_fd();
//! memfd::verify_sealed(received, 4096)?;
//! let mapping = Mapping::shared(received, 0, 4096, Access::ReadWrite)?;
//! mapping.atomic_u32(64).ok_or("out of bounds")?.store(1, Ordering::Release);
//! # Ok(())
//! # }
//! ```

mod cgroup;
mod error;

pub mod clock;
pub mod cpu;
pub mod fault;
pub mod features;
pub mod fork_guard;
pub mod futex;
pub mod mapping;
pub mod memfd;
pub mod memory_limit;
pub mod monitor;
pub mod named;
pub mod pidfd;
pub mod poll;
pub mod process;
pub mod random;
pub mod robust;
pub mod seldom;
pub mod socket;
pub mod thread;

pub use error::OsError;
