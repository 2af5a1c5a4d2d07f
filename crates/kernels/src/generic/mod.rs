//! The algorithms, written once.
//!
//! [`reduce`] and [`copy`] are loops over a small vector trait; a file of `arch` supplies the vectors of one
//! instruction set and an [`InstructionSet`](instruction_set::InstructionSet) that gathers them. Everything here is inlined into a function of
//! that file which switches the instruction set on, so the same text becomes the code of each.
//!
//! | module | what lives there |
//! |---|---|
//! | [`vector`] | the traits: lanes that compute, vectors that load and store |
//! | [`scalar`] | the arithmetic of a single element, for plain loops |
//! | [`block`] | four vectors as one, so that loops are unrolled and keep the processor busy |
//! | [`halves`] | 16-bit floats: stored narrow, computed in two vectors of f32 |
//! | [`operation`] | the reduce operations in terms of lanes |
//! | [`reduce`], [`copy`] | the loops |
//! | [`instruction_set`] | the table from type and operation to kernel |

pub(crate) mod block;
pub(crate) mod copy;
pub(crate) mod halves;
pub(crate) mod instruction_set;
pub(crate) mod operation;
pub(crate) mod reduce;
pub(crate) mod scalar;
pub(crate) mod vector;
