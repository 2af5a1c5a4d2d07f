//! The arithmetic of unisono: reduce and copy kernels over raw memory.
//!
//! A collective spends its time in two loops, one that folds the values of several ranks into one and one
//! that moves bytes. Both live here, once for each instruction set. The library's collectives call them with
//! pointers into memory that several processes share; this crate makes no system call, allocates nothing on
//! the hot path and knows nothing of ranks.
//!
//! The one invariant that matters: **the same inputs give the same bits**, whatever the instruction set, the
//! number of destinations, the alignment, and the floating-point modes of the calling thread. Each element
//! is `finish(fold(fold(source 0, source 1), source 2), …)`, in that order, without contraction:
//!
//! * f16 and bf16 are accumulated in f32 and rounded once, at the end, to nearest even; f32 and f64 are
//!   accumulated in themselves; integers wrap.
//! * [`ReduceOp::Average`] is the sum, then one true division by the number of sources in the accumulator;
//!   integers divide toward zero.
//! * Minimum and maximum: NaN wins, and -0 is less than +0.
//! * Every NaN result is the type's canonical quiet NaN, with a single source too. Subnormals are kept.
//!
//! Memory may be written by another process while a kernel reads it. Such a writer can change the values
//! that come out and nothing else: no address, length or branch that bounds an access depends on data, and
//! no reference to such memory is ever made, only pointers.
//!
//! ```
//! use unisono_kernels::{DType, ReduceOp, Reducer};
//!
//! let reducer = Reducer::new(DType::F32, ReduceOp::Sum)?;
//! let mut mine = [1.0_f32, 2.0, 3.0];
//! let theirs = [10.0_f32, 20.0, 30.0];
//! let destination: *mut u8 = mine.as_mut_ptr().cast();
//! // SAFETY: all pointers are to three f32; the destination is the same pointer as the first source.
//! unsafe { reducer.reduce(&[destination], &[destination.cast_const(), theirs.as_ptr().cast()], 3) };
//! assert_eq!(mine, [11.0, 22.0, 33.0]);
//! # Ok::<(), unisono_kernels::UnsupportedReduction>(())
//! ```
//!
//! | module | what lives there |
//! |---|---|
//! | `dtype`, `op` | the types and the operations, with their names and codes |
//! | `isa` | which instruction sets this machine has and which one is used |
//! | `reducer`, `copy` | the two doors: each resolves its kernel once, then calls it |
//! | `float_environment` | default rounding and subnormal modes for the length of a call |
//! | `generic` | the algorithms, written once over a small vector trait |
//! | `arch` | what differs between instruction sets |

mod arch;
mod copy;
mod dtype;
mod float_environment;
mod generic;
mod isa;
mod op;
mod reducer;

pub use copy::{asking_ahead_pays, copy, copy_rows, copy_streaming, prefetch_for_write};
pub use dtype::{DType, Element, UnknownDType};
pub use isa::{Isa, UnknownIsa, UnsupportedIsa, is_amd};
pub use op::{ReduceOp, UnknownReduceOp};
pub use reducer::{Reducer, Strided, UnsupportedReduction};
