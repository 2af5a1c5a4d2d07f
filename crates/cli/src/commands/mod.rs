//! The subcommands, one file each: arguments, what is done in which order, what is printed.

mod advice;
pub(crate) mod bench;
pub(crate) mod death;
pub(crate) mod doctor;
mod machine;
pub(crate) mod ps;
mod queue;
pub(crate) mod run;
