//! Starting processes, and seeing to it that none is left behind.
//!
//! `unisono run` uses all of it, the measurements the environment and the life line. The one invariant that
//! matters: whatever happens to this program, its children end. Three things see to it: the orderly end in
//! [`supervise`], the kernel's parent-death signal on every child, and the [`guard`] process, which also reaches the
//! children's children when this program is killed.

pub(crate) mod environment;
pub(crate) mod guard;
pub(crate) mod lines;
pub(crate) mod supervise;
pub(crate) mod verdict;
