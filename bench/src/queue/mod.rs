//! The comparison of queues from one writer to many readers: unisono, iceoryx2, pyzmq.
//!
//! It goes by the rules of the collectives: all groups stay alive and sleep, one works at a time, each cell is measured on all of them
//! one right after the other, between two looks at the distance of the cores.
//!
//! | module | what it does |
//! |---|---|
//! | [`loops`] | what writer and readers do when asked: the same file is compiled into every caller in Rust |
//! | [`caller`] | unisono's own side |
//! | [`cell`] | what is measured |
//! | [`measure`] | by whom, and when |
//! | [`judge`] | ratios, tables, verdicts, JSON |

pub(crate) mod caller;
pub(crate) mod cell;
pub(crate) mod judge;
pub(crate) mod loops;
pub(crate) mod measure;
