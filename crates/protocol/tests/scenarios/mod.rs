//! The protocol's step sequences, small enough to be tried in every order, and real enough to be run a million times.
//!
//! A scenario is a function that starts a few ranks as threads, lets each go through the steps that the library's
//! collectives go through, and asserts what the protocol promises. The same functions run twice: on loom's
//! atomics (`loom_models`), which tries every order of events that the memory model allows, and on the
//! machine's (`threads`), many times, also under ThreadSanitizer.
//!
//! Data is held in [`platform::Region`]s: plain memory without any synchronisation of its own, so that an
//! access that the protocol does not order is a data race, which both judges report.

pub(crate) mod barrier;
pub(crate) mod broadcast;
pub(crate) mod calls;
pub(crate) mod machine;
pub(crate) mod migrate;
pub(crate) mod pipeline;
pub(crate) mod platform;
pub(crate) mod push;
pub(crate) mod records;
pub(crate) mod ring;
pub(crate) mod stop;
pub(crate) mod swap;
pub(crate) mod team;
pub(crate) mod waits;
pub(crate) mod window;
pub(crate) mod words;
