//! NVIDIA's driver, its management library and AMD's runtime, as far as this crate calls them, in front of a simulated device.
//!
//! Loaded by name like the real ones, so that what is written for them runs: signatures, errors, handles, capture,
//! registration. They are strict where the real ones are: a call without a current context, or one that allocates while a stream is
//! captured by a thread that has not said "relaxed", is refused, and the latter spoils the graph. Nothing here shows that the real
//! ones behave so.

#![allow(unsafe_code, unreachable_pub, non_snake_case, clippy::missing_safety_doc)]
#![allow(missing_docs, reason = "the functions are the vendors'")]

mod cuda;
mod hip;
mod multicast;
mod nvml;
mod state;
