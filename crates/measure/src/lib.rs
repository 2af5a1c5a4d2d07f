//! How unisono measures: timing rounds, the placement of cores, percentiles, and how results are shown.
//!
//! The program's `bench` and `doctor`, the comparison with other libraries and the examples all measure
//! through this crate, so that a number means the same wherever it is printed. The one invariant that
//! matters: **a value is the slowest rank's median**, taken from single operations that were timed one by one,
//! warm-up apart, and it carries the core round trip under which it was taken.
//!
//! | module | what it gives |
//! |---|---|
//! | [`samples`] | the times of single operations, and the percentiles of them |
//! | [`rounds`] | a loop with one clock read per operation; which rounds count |
//! | [`placement`] | how far two cores are apart, and whether that has changed meanwhile |
//! | [`operation`] | the collectives: sizes, counts and bandwidth as nccl-tests defines them |
//! | [`report`] | a measured line, as columns for people and as JSON for programs |
//! | [`size`] | sizes in bytes as people write them |
//! | [`table`] | tables for people |
//! | [`chart`] | charts of time over size |
//!
//! It is a ground floor: it knows neither the library nor the operating system. Pinning a thread is the
//! caller's, handed in as a closure.

pub mod chart;
pub mod operation;
pub mod placement;
pub mod report;
pub mod rounds;
pub mod samples;
pub mod size;
pub mod table;

pub use operation::{Operation, Shape};
pub use placement::{Distance, round_trip};
pub use report::Line;
pub use rounds::{Round, time_each};
pub use samples::{Samples, Summary};
