//! All-reduce between the GPUs of a machine, and its halves, reduce-scatter and all-gather: kernels, when to use which, and
//! the host's side.
//!
//! [`AllReduce`] is what a rank has: it knows where its peers' memories are, registers buffers, and puts all-reduces on
//! streams, also into graphs that are being captured. Everything about the machine goes through a [`Driver`]. The kernels are
//! shipped as PTX; nobody needs a compiler.
//!
//! The invariant that matters: **every rank gets the same bits**, those of a plain loop that starts with rank 0's value and adds
//! ranks 1, 2, …; f16 and bf16 are accumulated in f32 and rounded once. And a rank that waits for a peer in vain says for
//! whom ([`Error::Overdue`]) instead of hanging its device.
//!
//! | module | what lives there |
//! |---|---|
//! | `all_reduce` | a rank's side: registration, graphs, launches; fused with RMSNorm; by a switch that adds |
//! | `plan` | one-shot or two-shot, how many blocks, and when not at all |
//! | `quick` | the all-reduce whose values travel quantised |
//! | `layout` | the words that host and kernels share |
//! | [`packet`] | all-reduce by packets, for the shortest messages, also between two nodes |
//! | `artefacts` | the kernels by name |
//! | [`driver`] | what is needed of a vendor's driver; CUDA's and HIP's; with the feature `sim`, those that run on the CPU |
//! | [`surface`] | the functions of `sgl_kernel.allreduce`, by their names and with their arguments |

mod all_reduce;
mod artefacts;
pub mod driver;
mod dtype;
mod error;
mod layout;
pub mod packet;
mod plan;
mod quick;
pub mod surface;

pub use all_reduce::{AllReduce, FusedArtefact, MULTICAST_PTX, Peers, RmsNorm, Staging, multicast_kernel};
pub use artefacts::{Artefact, Code, artefacts};
pub use driver::{Driver, Multicast};
pub use dtype::DType;
pub use error::Error;
pub use layout::{BLOCK_THREADS, MAX_BLOCKS, MAX_RANKS, META_BYTES, Overdue};
pub use plan::{Algorithm, Plan};
pub use quick::{
    Arithmetic, QUICK_BLOCKS, QUICK_THREADS, QuantLevel, QuickAllReduce, QuickArtefact, QuickHow,
    QuickOptions,
};
