//! All-reduce by packets (LL), for the shortest messages, between the ranks of one node or of two.
//!
//! A word of 8 bytes carries 4 bytes of the message and the number of the call: who finds the number has the data. So there
//! is no meeting, a launch is one pass over the message, and ranks need not even launch alike. Between two nodes the words go
//! through memory of the host, from where a [`Carrier`] takes them to the other node over a [`Wire`].
//!
//! [`PacketContext`] is what a rank has: [`Prepared`] offers its memory to the others, and [`Prepared::connect`] takes theirs. Over
//! a network that is [`init_near`] and [`init_far`], by the [`UniqueId`] that one rank draws.
//!
//! The invariant that matters: **a word is overwritten only two calls later, and says whose call it is of.** Everything that counts calls
//! belongs to one context, so any number of them work side by side; each on one stream.
//!
//! | module | what lives there |
//! |---|---|
//! | `shape` | who is where, how long messages may be, what memory that takes |
//! | `context` | a rank's side: memory, launches, what became of them |
//! | `offer` | what ranks tell one another |
//! | `call` | what a launch is told |
//! | `host_words` | memory of the host's that devices reach |
//! | `carrier` | the threads that take packets to the other node and bring its own |
//! | `crossing` | the words that kernels and carrier share |
//! | `wire` | over what: with the feature `remote`, messages signed with a key, over tcp |
//! | `unique_id`, `gathering` | how ranks find one another by 128 bytes |
//! | `init` | all of that, in the order in which it has to be |
//! | `artefacts` | the kernels by name |

mod artefacts;
mod call;
mod carrier;
mod context;
mod crossing;
mod error;
mod gathering;
mod host_words;
mod init;
mod offer;
mod shape;
mod unique_id;
mod wire;

pub use artefacts::{PacketArtefact, PacketKernel, packet_artefacts};
pub use carrier::Carrier;
pub use context::{PacketConfig, PacketContext, Prepared};
pub use error::PacketError;
pub use gathering::gather;
pub use host_words::{HostWords, MapHost};
#[cfg(feature = "remote")]
pub use init::init_far;
pub use init::{PacketPeers, init_near};
pub use shape::{Shape, Sum};
pub use unique_id::{UNIQUE_ID_BYTES, UniqueId};
#[cfg(feature = "remote")]
pub use wire::{Address, RemoteListener, RemoteWire};
pub use wire::{Arrived, Wire};
