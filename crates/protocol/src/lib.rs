//! The words that live in shared memory, and the step machines over them.
//!
//! Ranks meet in memory that all of them map. This crate knows what the words in that memory mean and in
//! which order they may be written and read; it makes no system call, reads no clock and owns no memory.
//! The library above it says where the words lie, how a waiter passes its time ([`Wait`]) and how a sleeper
//! is put to sleep and woken ([`Futex`]).
//!
//! The one invariant that matters: **a word has one writer that moves it forward, and whoever has seen it
//! move has seen everything that its writer did before.** Every publish is a release, every look an acquire.
//!
//! | module | what lives there |
//! |---|---|
//! | [`sequence`] | 30-bit numbers that wrap, and how to compare them |
//! | [`word`] | one 32-bit word: sequence, SLEEPING, ABORT; publish, sleep and abort on it |
//! | [`arrival`] | a rank's arrival line: its word and the fingerprints of its last calls |
//! | [`waiting`] | waiting for words of several peers at once |
//! | [`steps`] | the steps of a rank: barrier, and when staging is free again |
//! | [`tag`] | a message that says by itself that it has come |
//! | [`record`] | what a rank is doing and why it stopped, for the others to read |
//! | [`ring`] | positions, bells and records of a ring from one writer to many readers |
//! | [`team`] | the threads of one rank that share a task |
//! | [`window`] | the cursors of a byte window from one sender to one receiver |
//!
//! The same code runs on the standard atomics and, under `--cfg loom`, on loom's, which tries every order
//! of events that the memory model allows (`cargo xtask models`).

pub mod arrival;
pub mod atomics;
pub mod record;
pub mod ring;
pub mod sequence;
pub mod steps;
pub mod tag;
pub mod team;
pub mod waiting;
pub mod window;
pub mod word;

pub use arrival::{ArrivalLine, FINGERPRINTS};
pub use record::{CallRecord, CauseRecord, Latest};
pub use ring::{Bell, Position};
pub use sequence::Sequence;
pub use steps::{Halt, MAX_RANKS, Steps};
pub use tag::Tag;
pub use waiting::{Ended, Turn, Wait, wait_until};
pub use window::Cursor;
pub use word::{Futex, Look, Word};
