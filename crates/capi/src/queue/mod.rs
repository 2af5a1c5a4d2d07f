//! The queue: one writer broadcasts messages of any size to many readers.
//!
//! A message is written and read in place, so both sides lend memory to the caller between two calls. Each side is a lock over a
//! [`lender`]: a second thread is refused instead of waiting, since the first may wait for hours. What ends waits from other threads
//! stands beside the lock.

mod lender;

pub mod writer;

pub mod reader;
