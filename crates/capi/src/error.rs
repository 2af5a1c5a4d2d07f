//! What went wrong last on the calling thread, with its fields.
//!
//! The library's two kinds of errors, and what is found out before the library is called, become one record per thread. It stays
//! until the next function fails on that thread; success leaves it alone, as with errno.

#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ffi::{CString, c_char};

use unisono::queue::{self, WaitedFor};
use unisono::{Call, Error, PeerStatus};

use crate::boundary::{Result, c_string, fill, guard, guard_or, refused};
use crate::problem::Problem;
use crate::status::unisono_status;
use crate::versioned::{self, versioned};

/// Nobody, where a rank stands.
const NOBODY: i32 = -1;

/// The last error of the calling thread. Its texts are valid until the next function fails on this thread.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct unisono_error {
    /// sizeof(unisono_error), set by the caller.
    pub struct_size: usize,
    /// What was returned; UNISONO_STATUS_OK if nothing has failed yet.
    pub status: unisono_status,
    /// The rank that it is about: the one that died, left, aborted, or called something else; -1 if there is none.
    pub rank: i32,
    /// All of it as one line for people: what was asked, what was found, what to do. Never null.
    pub message: *const c_char,
    /// The operation, such as "all_reduce". Never null.
    pub operation: *const c_char,
    /// The call with its arguments, such as "all_reduce(sum, 4096 x f32)"; empty if none had begun.
    pub call: *const c_char,
    /// The number of that call, counted from 1 per communicator; 0 if none had begun.
    pub number: u64,
    /// The process of that rank; 0 if it is not known.
    pub pid: u32,
    /// The rank that noticed it, if that was another one; -1 if not.
    pub reported_by: i32,
    /// How long was waited.
    pub waited_seconds: f64,
    /// How much memory was needed, if there is too little; else 0.
    pub needed_bytes: u64,
    /// How much there is.
    pub available_bytes: u64,
    /// errno, if the operating system refused something; else 0.
    pub system_error: i32,
    /// 1 if the communicator returns this error from now on, else 0.
    pub is_terminal: i32,
    /// How many ranks were waited for: unisono_last_error_peer() tells of each.
    pub peer_count: usize,
}
versioned!(unisono_error, peer_count: usize);

/// What is known of a rank.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct unisono_peer {
    /// sizeof(unisono_peer), set by the caller.
    pub struct_size: usize,
    /// Its rank.
    pub rank: i32,
    /// Its process; 0 if it never came.
    pub pid: u32,
    /// The number of its last call, counted from 1; 0 if it has made none.
    pub last_number: u64,
    /// Its last call, such as "all_reduce(sum, 4096 x f32)"; empty if it has made none.
    pub last_call: [c_char; 112],
    /// 1 if it came out of that call again, else 0.
    pub last_is_finished: i32,
    /// 1 if its process is alive, as far as is known, else 0.
    pub is_alive: i32,
}
versioned!(unisono_peer, is_alive: i32);

impl unisono_peer {
    /// Somebody of whom nothing is known.
    fn unknown(rank: usize) -> Self {
        unisono_peer {
            struct_size: size_of::<Self>(),
            rank: number_of(rank),
            pid: 0,
            last_number: 0,
            last_call: [0; 112],
            last_is_finished: 0,
            is_alive: 0,
        }
    }

    pub(crate) fn of(status: &PeerStatus) -> Self {
        let mut peer = unisono_peer::unknown(status.rank);
        (peer.pid, peer.is_alive) = (status.pid, i32::from(status.alive));
        if let Some(last) = &status.last {
            (peer.last_number, peer.last_is_finished) = (last.number, i32::from(last.finished));
            fill(&mut peer.last_call, &last.call.to_string());
        }
        peer
    }
}

/// An error as the calling thread can ask for it. The texts belong to the record.
struct Record {
    fields: unisono_error,
    message: CString,
    operation: CString,
    call: CString,
    peers: Vec<unisono_peer>,
}

impl Record {
    fn empty() -> Self {
        let fields = unisono_error {
            struct_size: size_of::<unisono_error>(),
            status: unisono_status::Ok,
            rank: NOBODY,
            message: std::ptr::null(),
            operation: std::ptr::null(),
            call: std::ptr::null(),
            number: 0,
            pid: 0,
            reported_by: NOBODY,
            waited_seconds: 0.0,
            needed_bytes: 0,
            available_bytes: 0,
            system_error: 0,
            is_terminal: 0,
            peer_count: 0,
        };
        let empty = CString::default;
        Record { fields, message: empty(), operation: empty(), call: empty(), peers: Vec::new() }
    }

    fn of(problem: &Problem) -> Self {
        let mut record = Record::empty();
        record.fields.status = problem.status();
        match problem {
            Problem::Argument { operation, problem } => {
                record.at(operation, &format!("{operation}: {problem}"))
            }
            Problem::TooSmall { operation, needed, found } => {
                record.fields.needed_bytes = *needed as u64;
                record.fields.available_bytes = *found as u64;
                record.at(
                    operation,
                    &format!("{operation}: {needed} bytes are needed, there is room for {found}"),
                );
            }
            Problem::Unfinished { operation, waited } => {
                record.fields.waited_seconds = waited.as_secs_f64();
                record.at(operation, &format!("{operation}: it is not over after {waited:.1?}, and goes on"));
            }
            Problem::InUse { operation } => {
                record.at(
                    operation,
                    &format!("{operation}: another thread is in a call on this side of the queue"),
                );
            }
            Problem::Panic { operation, message } => {
                record.at(operation, &format!("{operation}: a mistake in the library: {message}"));
            }
            Problem::Library(error) => {
                record.at("", &error.to_string());
                record.fill_from(error);
            }
            Problem::Queue(error) => {
                record.at("", &error.to_string());
                record.fill_from_queue(error);
            }
        }
        record
    }

    fn at(&mut self, operation: &str, message: &str) {
        self.operation = c_string(operation);
        self.message = c_string(message);
    }

    fn during(&mut self, call: &Call, number: u64) {
        self.operation = c_string(call.operation.name());
        self.call = c_string(&call.to_string());
        self.fields.number = number;
    }

    fn about(&mut self, rank: usize, pid: u32) {
        (self.fields.rank, self.fields.pid) = (number_of(rank), pid);
    }

    fn reported(&mut self, by: Option<usize>) {
        self.fields.reported_by = by.map_or(NOBODY, number_of);
    }

    fn fill_from(&mut self, error: &Error) {
        self.fields.is_terminal = i32::from(error.is_terminal());
        match error {
            Error::Timeout { call, number, waited, peers, reported_by, .. } => {
                self.during(call, *number);
                self.reported(*reported_by);
                self.fields.waited_seconds = waited.as_secs_f64();
                self.peers = peers.iter().map(unisono_peer::of).collect();
                if let Some(first) = peers.first() {
                    self.about(first.rank, first.pid);
                }
            }
            Error::PeerDied { rank, pid, call, number, reported_by, .. } => {
                self.during(call, *number);
                self.about(*rank, *pid);
                self.reported(*reported_by);
            }
            Error::PeerLeft { rank, pid, call, number, .. } => {
                self.during(call, *number);
                self.about(*rank, *pid);
            }
            Error::Mismatch { number, mine, peer, .. } => {
                self.during(mine, *number);
                self.about(*peer, 0);
            }
            Error::Aborted { by, call, number } => {
                self.during(call, *number);
                self.fields.rank = by.map_or(NOBODY, number_of);
            }
            Error::InvalidArgument { operation, .. }
            | Error::Interrupted { operation, .. }
            | Error::Closed { operation } => self.operation = c_string(operation),
            Error::Busy { operation, waited } => {
                self.operation = c_string(operation);
                self.fields.waited_seconds = waited.as_secs_f64();
            }
            Error::Forked { operation, parent } => {
                self.operation = c_string(operation);
                self.fields.pid = *parent;
            }
            Error::Rendezvous { missing, .. } => {
                self.operation = c_string("init");
                self.peers = missing.iter().map(|rank| unisono_peer::unknown(*rank)).collect();
                self.fields.rank = missing.first().map_or(NOBODY, |rank| number_of(*rank));
            }
            Error::OutOfMemory { needed, available, .. } => {
                (self.fields.needed_bytes, self.fields.available_bytes) = (*needed, *available);
            }
            Error::Os { source, .. } => self.fields.system_error = source.errno,
            _ => {}
        }
    }

    fn fill_from_queue(&mut self, error: &queue::Error) {
        match error {
            queue::Error::InvalidArgument { operation, .. }
            | queue::Error::Undelivered { operation, .. }
            | queue::Error::Cancelled { operation }
            | queue::Error::ShutDown { operation }
            | queue::Error::Forked { operation } => self.operation = c_string(operation),
            queue::Error::Timeout { operation, waited, waited_for } => {
                self.operation = c_string(operation);
                self.fields.waited_seconds = waited.as_secs_f64();
                self.waited_for(waited_for);
            }
            queue::Error::PeerDied { rank, pid, .. }
            | queue::Error::PeerLeft { rank, pid, .. }
            | queue::Error::PeerBroken { rank, pid, .. }
            | queue::Error::LinkLost { rank, pid, .. }
            | queue::Error::RankTaken { rank, pid } => self.about(*rank, *pid),
            queue::Error::UnknownRank { rank, .. } => self.about(*rank, 0),
            _ => {}
        }
    }

    fn waited_for(&mut self, waited_for: &WaitedFor) {
        match waited_for {
            WaitedFor::Readers(readers) => {
                self.peers = readers
                    .iter()
                    .map(|reader| {
                        let mut peer = unisono_peer::unknown(reader.rank);
                        peer.pid = reader.pid.unwrap_or(0);
                        peer.is_alive = i32::from(reader.presence == queue::Presence::Alive);
                        peer
                    })
                    .collect();
                if let Some(first) = readers.first() {
                    self.about(first.rank, first.pid.unwrap_or(0));
                }
            }
            WaitedFor::Writer { rank, pid, .. } => self.about(*rank, *pid),
            _ => {}
        }
    }

    /// The fields, with the texts where they lie.
    fn shown(&self) -> unisono_error {
        unisono_error {
            message: self.message.as_ptr(),
            operation: self.operation.as_ptr(),
            call: self.call.as_ptr(),
            peer_count: self.peers.len(),
            ..self.fields
        }
    }
}

fn number_of(rank: usize) -> i32 {
    i32::try_from(rank).unwrap_or(i32::MAX)
}

thread_local! {
    static LAST: RefCell<Record> = RefCell::new(Record::empty());
}

/// From now on this is the calling thread's last error. A thread that is ending has none.
pub(crate) fn remember(problem: Problem) -> unisono_status {
    let record = Record::of(&problem);
    let status = record.fields.status;
    let _ = LAST.try_with(|last| last.replace(record));
    status
}

fn with_last<T>(look: impl FnOnce(&Record) -> Result<T>) -> Result<T> {
    let looked = LAST.try_with(|last| look(&last.borrow()));
    looked.unwrap_or_else(|_| Err(refused("last_error", "this thread is ending")))
}

/// Fill `error` with the last error of the calling thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_last_error(error: *mut unisono_error) -> unisono_status {
    guard("last_error", || {
        let last = with_last(|last| Ok(last.shown()))?;
        // SAFETY: the header's: a structure of the size that it says.
        unsafe { versioned::write("last_error", error, last) }
    })
}

/// The message of the calling thread's last error; valid until the next function fails on this thread. Never null.
#[unsafe(no_mangle)]
pub extern "C" fn unisono_last_error_message() -> *const c_char {
    guard_or(c"".as_ptr(), || with_last(|last| Ok(last.message.as_ptr())).unwrap_or(c"".as_ptr()))
}

/// Fill `peer` with what is known of one of the ranks that were waited for: `index` is 0 to peer_count - 1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_last_error_peer(index: usize, peer: *mut unisono_peer) -> unisono_status {
    const OPERATION: &str = "last_error_peer";
    // A wrong index must not replace the error that the caller is looking at: found out before anything is remembered.
    let found = with_last(|last| {
        let count = last.peers.len();
        let outside = || refused(OPERATION, format!("index {index} of {count}"));
        last.peers.get(index).copied().ok_or_else(outside)
    });
    match found {
        Err(problem) => problem.status(),
        Ok(found) => guard(OPERATION, || {
            // SAFETY: the header's: a structure of the size that it says.
            unsafe { versioned::write(OPERATION, peer, found) }
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    #[test]
    fn a_thread_finds_its_own_last_error() {
        let error = Error::OutOfMemory {
            what: "staging".to_string(),
            needed: 100,
            available: 7,
            limited_by: "the test".to_string(),
            advice: "ask for less",
        };
        assert_eq!(guard("test", || Err(error.into())), unisono_status::OutOfMemory);
        assert_eq!(guard("test", || Ok(())), unisono_status::Ok);
        std::thread::spawn(|| assert_eq!(LAST.with_borrow(|last| last.fields.status), unisono_status::Ok))
            .join()
            .unwrap();
        let mut found = Record::empty().fields;
        // SAFETY: a whole structure that says its size; its texts are valid until the next error.
        let message = unsafe {
            assert_eq!(unisono_last_error(&raw mut found), unisono_status::Ok);
            CStr::from_ptr(found.message)
        };
        assert_eq!((found.needed_bytes, found.available_bytes, found.rank), (100, 7, NOBODY));
        assert!(message.to_str().unwrap().contains("100 bytes"), "{message:?}");
    }

    #[test]
    fn looking_beyond_the_last_peer_leaves_the_error_alone() {
        let problem = Problem::TooSmall { operation: "test", needed: 2, found: 1 };
        guard("test", || Err(problem));
        let mut peer = unisono_peer::unknown(0);
        // SAFETY: a whole structure that says its size.
        let status = unsafe { unisono_last_error_peer(0, &raw mut peer) };
        assert_eq!(status, unisono_status::InvalidArgument);
        assert_eq!(LAST.with_borrow(|last| last.fields.status), unisono_status::TooSmall);
    }
}
