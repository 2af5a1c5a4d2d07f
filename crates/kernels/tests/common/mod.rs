//! What the tests share: an oracle that is a plain loop, interesting numbers, and memory with guards.

pub(crate) mod memory;
pub(crate) mod numbers;
pub(crate) mod oracle;
