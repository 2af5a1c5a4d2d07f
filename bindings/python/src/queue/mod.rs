//! The library's message queue in Python: what `unisono.queue` and `unisono.vllm` stand on.
//!
//! | file | what |
//! |---|---|
//! | `turns` | a side of a queue that calls and guards use in turn |
//! | `writer`, `slot` | the side that writes; room for a message, filled in place |
//! | `reader`, `message` | the side that reads; a message where it lies |
//! | `wire`, `pickled` | messages of several parts, as pickling with out-of-band buffers makes them |
//! | `copying` | how long parts are copied, by the clock |
//! | `handle` | what a reader finds its writer with |
//! | `waits` | time-outs and Ctrl-C |
//! | `errors` | the queue's errors as Python exceptions |
//!
//! The one invariant that matters: **whoever waits has let go of the interpreter**; who finds what it needs at its first look
//! has not, since taking the interpreter back can take longer than the call.

mod copying;
mod errors;
mod handle;
mod message;
mod pickled;
mod reader;
mod slot;
mod turns;
mod waits;
mod wire;
mod writer;

pub(crate) use handle::QueueHandle;
pub(crate) use message::QueueMessage;
pub(crate) use pickled::Pickled;
pub(crate) use reader::QueueReader;
pub(crate) use slot::QueueSlot;
pub(crate) use writer::QueueWriter;
