//! The operations, one file each, over the steps of [`run`].
//!
//! | file | what |
//! |---|---|
//! | [`run`] | one collective under way: number, steps, waits |
//! | [`swap`], [`migrate`], [`pipeline`] | the ways in which staging lines travel |
//! | [`exchange`], [`blocks`] | blocks between all pairs, and where they lie |
//! | [`all_reduce`] | all-reduce and reduce |
//! | [`reduce_scatter`], [`gather`], [`broadcast`] | the others; gather holds all that copies blocks |
//! | [`push`] | the operations on registered memory, in place on all ranks' memory |
//! | [`point_to_point`] | send and recv |
//!
//! A new collective is a new file here: it checks its arguments, begins a [`run::Run`], and goes through its steps.

pub(crate) mod all_reduce;
pub(crate) mod blocks;
pub(crate) mod broadcast;
pub(crate) mod exchange;
pub(crate) mod gather;
pub(crate) mod migrate;
pub(crate) mod pipeline;
pub(crate) mod point_to_point;
pub(crate) mod push;
pub(crate) mod reduce_scatter;
pub(crate) mod run;
pub(crate) mod swap;
