//! Every order of events that the memory model allows, tried by loom: `cargo xtask models`.
//!
//! A model is a scenario with very few ranks and steps. Loom runs it once for each order in which its threads
//! may be interleaved and for each value that a load may legally return, switching away from a thread
//! that could have gone on at most as often as the model's bound says: two were enough for every seeded bug,
//! as the tests in [`teeth`] and [`flawed_word`] show. Where a thread waits, switching is free.

#![cfg(loom)]
#![allow(unsafe_code)]

mod collectives;
mod ends;
mod explore;
mod flawed_word;
mod rings;
#[path = "../scenarios/mod.rs"]
mod scenarios;
mod stacks;
mod team;
mod teeth;
mod words;
