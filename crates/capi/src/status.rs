//! What a function says: all went well, or what went wrong.

use std::ffi::{CStr, c_char};

/// What a function returns. Numbers keep their meaning; later versions may add some.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum unisono_status {
    /// All went well.
    Ok = 0,
    /// An argument makes no sense; nothing was changed, and nothing was sent.
    InvalidArgument = 1,
    /// The deadline passed. unisono_last_error_peer() tells who was waited for, is_terminal whether the communicator still works.
    Timeout = 2,
    /// A process that is needed died: rank and pid say which. Terminal for a communicator.
    PeerDied = 3,
    /// A rank that is still needed has left. Terminal for a communicator, unless it was a send or recv of which nothing had moved.
    PeerLeft = 4,
    /// Ranks made different calls: rank is the other one. Terminal.
    Mismatch = 5,
    /// Somebody called unisono_abort: rank says who, if it is known. Terminal.
    Aborted = 6,
    /// Another thread, or a started operation that comes first, took as long as this call may wait. Nothing was sent.
    Busy = 7,
    /// The question of unisono_ask_on_this_thread() was answered with yes.
    Interrupted = 8,
    /// The communicator was closed on this rank.
    Closed = 9,
    /// This process is a forked child of the one that made the object.
    Forked = 10,
    /// The ranks could not find one another.
    Rendezvous = 11,
    /// A setting or environment variable makes no sense.
    Setting = 12,
    /// More memory is needed than may still be had: needed_bytes and available_bytes.
    OutOfMemory = 13,
    /// The operating system refused something.
    System = 14,
    /// The buffer is too small; how much is needed was written where the length goes. Nothing is lost.
    TooSmall = 15,
    /// A started operation is not over yet.
    Unfinished = 16,
    /// Queue: the other side wrote what it never may, and is listened to no more.
    PeerBroken = 17,
    /// Queue: the connection to the other machine was lost.
    LinkLost = 18,
    /// Queue: a message from another machine is missing.
    Lost = 19,
    /// Queue: readers on other machines cannot be served or reached.
    Elsewhere = 20,
    /// Queue: the memory of a large message did not reach this process; the message stays the next.
    Undelivered = 21,
    /// Queue: another process reads under this rank.
    RankTaken = 22,
    /// Queue: the handle has no such rank.
    UnknownRank = 23,
    /// Queue: the handle is of another version, or damaged.
    Handle = 24,
    /// Queue: the writer that the handle speaks of could not be met.
    Meeting = 25,
    /// Queue: the wait was cancelled from another thread. The next call goes on.
    Cancelled = 26,
    /// Queue: this side was shut down.
    ShutDown = 27,
    /// A mistake in the library itself, caught at its edge. The object should not be used any more.
    Panic = 28,
    /// Something else; the message says what.
    Other = 29,
}

impl unisono_status {
    const ALL: [(unisono_status, &'static CStr); 30] = [
        (unisono_status::Ok, c"OK"),
        (unisono_status::InvalidArgument, c"INVALID_ARGUMENT"),
        (unisono_status::Timeout, c"TIMEOUT"),
        (unisono_status::PeerDied, c"PEER_DIED"),
        (unisono_status::PeerLeft, c"PEER_LEFT"),
        (unisono_status::Mismatch, c"MISMATCH"),
        (unisono_status::Aborted, c"ABORTED"),
        (unisono_status::Busy, c"BUSY"),
        (unisono_status::Interrupted, c"INTERRUPTED"),
        (unisono_status::Closed, c"CLOSED"),
        (unisono_status::Forked, c"FORKED"),
        (unisono_status::Rendezvous, c"RENDEZVOUS"),
        (unisono_status::Setting, c"SETTING"),
        (unisono_status::OutOfMemory, c"OUT_OF_MEMORY"),
        (unisono_status::System, c"SYSTEM"),
        (unisono_status::TooSmall, c"TOO_SMALL"),
        (unisono_status::Unfinished, c"UNFINISHED"),
        (unisono_status::PeerBroken, c"PEER_BROKEN"),
        (unisono_status::LinkLost, c"LINK_LOST"),
        (unisono_status::Lost, c"LOST"),
        (unisono_status::Elsewhere, c"ELSEWHERE"),
        (unisono_status::Undelivered, c"UNDELIVERED"),
        (unisono_status::RankTaken, c"RANK_TAKEN"),
        (unisono_status::UnknownRank, c"UNKNOWN_RANK"),
        (unisono_status::Handle, c"HANDLE"),
        (unisono_status::Meeting, c"MEETING"),
        (unisono_status::Cancelled, c"CANCELLED"),
        (unisono_status::ShutDown, c"SHUT_DOWN"),
        (unisono_status::Panic, c"PANIC"),
        (unisono_status::Other, c"OTHER"),
    ];
}

/// The name of a status, such as "PEER_DIED"; "UNKNOWN" for a number that is none.
#[allow(unsafe_code, reason = "the symbol's name")]
#[unsafe(no_mangle)]
pub extern "C" fn unisono_status_name(status: i32) -> *const c_char {
    let found = unisono_status::ALL.iter().find(|(known, _)| *known as i32 == status);
    found.map_or(c"UNKNOWN", |(_, name)| name).as_ptr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_its_name() {
        for (number, (status, name)) in unisono_status::ALL.iter().enumerate() {
            assert_eq!(*status as usize, number);
            assert_eq!(format!("{status:?}").to_uppercase(), name.to_str().unwrap().replace('_', ""));
        }
    }
}
