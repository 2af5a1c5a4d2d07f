//! A queue's readers on other machines: a [`Publisher`] sends numbered messages over ZeroMQ, a [`Subscriber`] gets every one.
//!
//! The publisher is an XPUB socket on tcp, the subscriber a SUB socket. This crate knows nothing of the library's queues,
//! which use it for those readers that cannot reach the writer's memory. What it promises:
//!
//! - **Nothing is lost in silence.** Every part of a message has a number; a missing one ends the subscription with
//!   [`End::Lost`]. A message stays with the publisher until every reader has finished it, so a sender that looks at how far
//!   the readers are behind ([`Publisher::wait`]) never has anything dropped.
//! - **Nobody without the key is heard, or hears anything.** A reader signs a challenge before it is let in, and
//!   every frame set is signed with HMAC-SHA256. Nothing is encrypted: who can read the network's traffic can read the
//!   messages. (The libzmq that the crate `zmq` builds has no CURVE.)
//! - **A lost connection is news**: at once when it is reset, otherwise when a heartbeat was not answered, within about two
//!   seconds. It is never made again in silence.
//!
//! # The wire
//!
//! Any SUB socket can be a reader. It subscribes to words and gets sets of four frames; `tests/plain_subscriber.py` is one in
//! Python with pyzmq.
//!
//! | the reader subscribes to | bytes (numbers are little-endian) |
//! |---|---|
//! | hello | `unisono1h` session\[16\] |
//! | join | `unisono1j` session\[16\] rank\[8\] pid\[4\] tag\[32\] |
//! | ack, again whenever it is further (and ready, with the first) | `unisono1a` session\[16\] parts\[8\] messages\[8\] tag\[32\] |
//! | goodbye | `unisono1b` session\[16\] tag\[32\] |
//!
//! `session` is random, the reader's choice. `tag` is HMAC-SHA256 with the queue's key over all before it in the word, then
//! the queue's nonce (16 bytes), then the challenge (16 bytes). An ack counts the parts that have arrived and the messages that are
//! finished; earlier ones may be unsubscribed from. Hello is to be repeated after some
//! 30 ms, with another session, if it is not answered: a busy publisher cannot tell for certain whose it is, and is quiet for a moment then.
//!
//! | frame | bytes |
//! |---|---|
//! | topic | the reader's hello |
//! | header | `unisono` 1, kind\[1\], seven zeros, the queue's nonce\[16\], part\[8\], message\[8\], offset\[8\], length\[8\] |
//! | payload | at most 256 KiB |
//! | tag | HMAC-SHA256 with the queue's key over header and payload |
//!
//! | kind | payload |
//! |---|---|
//! | 1 challenge | session\[16\] challenge\[16\] |
//! | 2 welcome | session\[16\] challenge\[16\] writer's rank\[8\] writer's pid\[4\] first part\[8\] its message\[8\] |
//! | 3 refused | session\[16\] challenge\[16\] code\[4\] (1: the rank is taken by pid, at the text's address) pid\[4\] text |
//! | 4 complete | session\[16\]: all readers of the queue have come |
//! | 5 data | `length` bytes of message number `message`, from `offset` on; numbered `part` |
//! | 6 end | none; numbered `part` |
//!
//! The publisher sends at most 1024 parts and 16 MiB more than were acknowledged.

mod backlog;
mod error;
mod frame;
mod handshake;
mod inbox;
mod key;
mod link;
mod manual;
mod publisher;
mod receiver;
mod roster;
mod service;
mod state;
mod subscriber;
mod word;

pub use error::{Error, Result};
pub use frame::{HEADER_BYTES, PART_BYTES};
pub use inbox::{End, Found, Progress};
pub use key::{Key, TAG_BYTES};
pub use link::own_ip;
pub use publisher::{Config as PublisherConfig, Publisher, Unfinished};
pub use state::{Leftovers, Presence, ReaderState, Why};
pub use subscriber::{Config as SubscriberConfig, Rouser, Subscriber};

/// Start a thread that runs no signal handler of the program that it lives in.
fn spawn(name: &str, life: impl FnOnce() + Send + 'static) -> std::io::Result<std::thread::JoinHandle<()>> {
    let masked = move || {
        unisono_os::thread::mask_all_signals();
        life();
    };
    std::thread::Builder::new().name(name.to_string()).spawn(masked)
}
