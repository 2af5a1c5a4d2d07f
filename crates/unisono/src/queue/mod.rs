//! A queue from one writer to many readers: every reader gets every message, in order, in place.
//!
//! A tensor-parallel engine has one process that decides what is computed next, and tells the workers several times per
//! token. A [`Writer`] puts messages of any size into a ring that all processes share; each [`Reader`] takes them from there.
//! Nothing is lost: a writer waits for readers that are too far behind, and says who they are.
//!
//! ```text
//!   Writer ──► ring (one memory, mapped for reading by all readers)
//!                │ position, bells
//!              Reader 0   Reader 1   …   each with a small memory of its own, in which it says how far it is
//! ```
//!
//! A reader that waits looks for a while and then sleeps; a writer makes a system call only for those who sleep. A
//! process that dies is heard of within milliseconds by whoever waits for it.
//!
//! Readers on other machines get the same messages over the network, with the feature `remote`: `Builder::remote_readers` names
//! their ranks, and everything else stays the same.
//!
//! Inside, arrows go one way: `writer`, `reader` → `host` (→ `porch`), `near`, `claim`, `line` → `hall` → `guest` → `memory`, `elsewhere`; the steps in
//! shared memory are those of [`unisono_protocol::ring`], where they are modelled.

mod ahead;
mod builder;
mod claim;
mod elsewhere;
mod error;
mod gather;
mod guest;
mod hall;
mod handle;
mod host;
mod line;
mod memory;
mod message;
pub(crate) mod messages;
mod near;
mod pool;
mod porch;
mod reader;
mod room;
mod slot;
mod trouble;
mod wait;
mod writer;

pub use builder::Builder;
pub use error::{Error, Presence, ReaderStatus, Result, Role, WaitedFor};
pub use gather::{Gather, GatherControl, Missing, Round};
pub use hall::WhenGone;
pub use handle::Handle;
pub(crate) use handle::PREFIX;
pub use message::Message;
pub use reader::{Reader, ReaderControl};
pub use slot::Slot;
pub use writer::{Writer, WriterControl};
