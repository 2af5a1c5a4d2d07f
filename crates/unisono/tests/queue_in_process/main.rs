//! The queue with its writer and its readers as threads of one process: every wait ends, and the library's own threads,
//! which let readers in, hear of ends and take large messages, share nothing unordered. ThreadSanitizer runs this program;
//! with `UNISONO_TEST_QUICK` it does less.
//!
//! Each side maps the ring at a place of its own, so what the sanitizer sees here is everything around it; the ring's
//! steps it sees in `unisono-protocol`.

#[path = "../faults/log.rs"]
mod log;
mod model;
mod traffic;
mod waits;

/// Whether the environment asks for less.
fn quick() -> bool {
    std::env::var_os("UNISONO_TEST_QUICK").is_some_and(|value| value != "0")
}
