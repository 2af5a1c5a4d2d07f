//! The side of a queue that writes.

#![allow(unsafe_code)]

use std::ffi::{c_char, c_void};
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use unisono::queue::{Presence, ReaderStatus, Slot, WhenGone, Writer, WriterControl};

use super::lender::Lender;
use crate::boundary::{Result, array, free, guard, index, object, place, put, refused, seconds, text};
use crate::problem::Problem;
use crate::status::unisono_status;
use crate::types::{Coded, meaning_of};
use crate::versioned::{self, versioned};

const LENT: &str = "room for a message is reserved: commit or discard it first";

/// What a writer does when a reader leaves or dies.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum unisono_when_gone {
    /// Sending fails, naming the reader, until another process has taken its rank.
    Fail = 0,
    /// Go on without it.
    GoOn = 1,
    /// Keep what it has not read until another process has taken its rank.
    AwaitReturn = 2,
}

// SAFETY: `repr(i32)`.
unsafe impl Coded for unisono_when_gone {
    type Meaning = WhenGone;
    const NAME: &'static str = "unisono_when_gone";

    fn meaning(code: i32) -> Option<WhenGone> {
        [WhenGone::Fail, WhenGone::GoOn, WhenGone::AwaitReturn].get(usize::try_from(code).ok()?).copied()
    }
}

/// What a queue is to be. Zero is the default of everything, and gives one reader, of rank 0.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct unisono_queue_options {
    /// sizeof(unisono_queue_options), set by the caller.
    pub struct_size: usize,
    /// The ranks of the readers on this machine; null: 0 to reader_count - 1.
    pub reader_ranks: *const i32,
    /// How many readers there are on this machine; default 1, or none if there are some on others.
    pub reader_count: usize,
    /// The ring's length in bytes, made a power of two. Default: 4 MiB.
    pub ring_bytes: usize,
    /// How many messages may be unread by the slowest reader before sending waits. Default: only their bytes count.
    pub max_chunks: usize,
    /// The longest message that is written into the ring; longer ones get memory of their own. Default, and at most: a quarter of it.
    pub max_chunk_bytes: usize,
    /// How long somebody is waited for before the log says so, in seconds. Default: 60.
    pub warn_interval: f64,
    /// Listen at a socket file in this directory, too, for readers in other network namespaces. Default: UNISONO_DIR, else none.
    pub directory: *const c_char,
    /// The ranks of readers on other machines. Needs a library with the feature `remote`.
    pub remote_ranks: *const i32,
    /// How many they are.
    pub remote_count: usize,
    /// The address of this machine at which they reach it, such as "10.0.0.1". Default: the one from which this machine sends.
    pub connect_ip: *const c_char,
    /// The rank that the writer goes by in errors of its readers.
    pub rank: i32,
    /// What to do when a reader is gone.
    pub when_gone: MaybeUninit<unisono_when_gone>,
}
versioned!(unisono_queue_options, when_gone: MaybeUninit<unisono_when_gone>);

/// The side of a queue that writes.
pub struct unisono_writer {
    control: WriterControl,
    handle: Vec<u8>,
    state: Mutex<State>,
}

type State = Lender<Writer, Slot<'static>>;

/// The writer behind a handle, if no other thread is in a call on it.
///
/// # Safety
/// The handle is null, or one that was given out and that nobody frees meanwhile.
unsafe fn enter<'a>(operation: &'static str, writer: *const unisono_writer) -> Result<MutexGuard<'a, State>> {
    // SAFETY: the caller's word.
    let writer = unsafe { object(operation, "the writer", writer) }?;
    writer.state.try_lock().ok_or(Problem::InUse { operation })
}

fn ranks(operation: &'static str, given: &[i32]) -> Result<Vec<usize>> {
    given.iter().map(|rank| index(operation, "a reader's rank", *rank)).collect()
}

#[cfg(feature = "remote")]
fn serve_remote(
    builder: unisono::queue::Builder,
    ranks: Vec<usize>,
    ip: Option<IpAddr>,
) -> Result<unisono::queue::Builder> {
    let builder = builder.remote_readers(ranks);
    Ok(ip.into_iter().fold(builder, unisono::queue::Builder::connect_ip))
}

#[cfg(not(feature = "remote"))]
fn serve_remote(
    builder: unisono::queue::Builder,
    ranks: Vec<usize>,
    ip: Option<IpAddr>,
) -> Result<unisono::queue::Builder> {
    if ranks.is_empty() && ip.is_none() {
        return Ok(builder);
    }
    Err(refused(
        "writer_create",
        "this library was built without the feature `remote`: no readers on other machines",
    ))
}

/// # Safety
/// Lists and texts are what the header says.
unsafe fn create(options: &unisono_queue_options) -> Result<Writer> {
    const OPERATION: &str = "writer_create";
    // SAFETY: the caller's word, for all of them.
    let (readers, remote, directory, ip) = unsafe {
        let readers = match (options.reader_ranks.is_null(), options.reader_count) {
            (true, 0) if options.remote_count > 0 => Vec::new(),
            (true, 0) => vec![0],
            // What is too many for a queue is said by the library.
            (true, count) => (0..count.min(1 << 16)).collect(),
            (false, count) => {
                ranks(OPERATION, array(OPERATION, "the list of readers", options.reader_ranks, count)?)?
            }
        };
        let remote =
            array(OPERATION, "the list of readers elsewhere", options.remote_ranks, options.remote_count)?;
        (
            readers,
            ranks(OPERATION, remote)?,
            text(OPERATION, "directory", options.directory)?,
            text(OPERATION, "connect_ip", options.connect_ip)?,
        )
    };
    let parsed =
        ip.map(|ip| ip.parse().map_err(|_| refused(OPERATION, format!("connect_ip {ip:?} is no address"))));
    let mut builder = Writer::builder()
        .rank(index(OPERATION, "rank", options.rank)?)
        .reader_ranks(readers)
        .when_gone(meaning_of(OPERATION, options.when_gone)?);
    builder = serve_remote(builder, remote, parsed.transpose()?)?;
    if options.ring_bytes != 0 {
        builder = builder.ring_bytes(options.ring_bytes);
    }
    if options.max_chunks != 0 {
        builder = builder.max_chunks(options.max_chunks);
    }
    if options.max_chunk_bytes != 0 {
        builder = builder.max_chunk_bytes(options.max_chunk_bytes);
    }
    if options.warn_interval != 0.0 {
        builder = builder.warn_interval(seconds(OPERATION, options.warn_interval)?.unwrap_or(Duration::MAX));
    }
    Ok(directory.into_iter().fold(builder, unisono::queue::Builder::directory).create()?)
}

/// Make a queue. Readers may come from now on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_writer_create(
    options: *const unisono_queue_options,
    writer: *mut *mut unisono_writer,
) -> unisono_status {
    const OPERATION: &str = "writer_create";
    guard(OPERATION, || {
        // SAFETY: the header's: a structure of the size that it says, with lists and texts; and a place for a handle.
        let (place, made) = unsafe {
            let options = versioned::read(OPERATION, options)?;
            (place(OPERATION, writer)?, create(&options)?)
        };
        let (control, handle) = (made.control(), made.handle().to_bytes());
        place.put(unisono_writer { control, handle, state: Mutex::new(Lender::new(made)) });
        Ok(())
    })
}

/// What readers open the queue with: copied to `handle`, which has room for `capacity` bytes, and its length to `bytes`. If
/// there is too little room, UNISONO_STATUS_TOO_SMALL and the length. Any way to carry bytes will do; with readers on other
/// machines the handle holds their key and is to be kept from others.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_writer_handle(
    writer: *const unisono_writer,
    handle: *mut c_void,
    capacity: usize,
    bytes: *mut usize,
) -> unisono_status {
    const OPERATION: &str = "writer_handle";
    guard(OPERATION, || {
        // SAFETY: the header's: a handle that was given out, and a place for a number.
        let writer = unsafe { object(OPERATION, "the writer", writer) }?;
        let needed = writer.handle.len();
        // SAFETY: as above.
        unsafe { put(OPERATION, "the place for the length", bytes, needed) }?;
        if capacity < needed {
            return Err(Problem::TooSmall { operation: OPERATION, needed, found: capacity });
        }
        if handle.is_null() {
            return Err(refused(OPERATION, "the place for the handle is null"));
        }
        // SAFETY: the header's: `capacity` bytes may be written there, and these are no more.
        unsafe { std::ptr::copy_nonoverlapping(writer.handle.as_ptr(), handle.cast(), needed) };
        Ok(())
    })
}

/// Wait until every reader has come and is ready, for at most `timeout` seconds.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_writer_wait_until_ready(
    writer: *const unisono_writer,
    timeout: f64,
) -> unisono_status {
    const OPERATION: &str = "writer_wait_until_ready";
    guard(OPERATION, || {
        // SAFETY: the header's: a handle that was given out.
        let mut state = unsafe { enter(OPERATION, writer) }?;
        Ok(state.side(OPERATION, LENT)?.wait_until_ready(seconds(OPERATION, timeout)?)?)
    })
}

/// Send a copy of `bytes` bytes to every reader; waits, for at most `timeout` seconds, while one is too far behind. If it fails,
/// nothing was sent.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_writer_send(
    writer: *const unisono_writer,
    message: *const c_void,
    bytes: usize,
    timeout: f64,
) -> unisono_status {
    const OPERATION: &str = "writer_send";
    guard(OPERATION, || {
        // SAFETY: the header's: a handle that was given out, and a message of that many bytes.
        let (mut state, message) = unsafe {
            (enter(OPERATION, writer)?, array(OPERATION, "the message", message.cast::<u8>(), bytes)?)
        };
        Ok(state.side(OPERATION, LENT)?.send_within(message, seconds(OPERATION, timeout)?)?)
    })
}

/// Reserve room for a message of `bytes` bytes, to be filled in place and then committed or discarded; waits as
/// unisono_writer_send(). Its address goes to `data` and is valid until then. What is not written is whatever stood there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_writer_reserve(
    writer: *const unisono_writer,
    bytes: usize,
    timeout: f64,
    data: *mut *mut c_void,
) -> unisono_status {
    const OPERATION: &str = "writer_reserve";
    guard(OPERATION, || {
        // SAFETY: the header's: a handle that was given out, and a place for an address.
        let mut state = unsafe {
            put(OPERATION, "the place for the address", data, std::ptr::null_mut())?;
            enter(OPERATION, writer)?
        };
        let timeout = seconds(OPERATION, timeout)?;
        // SAFETY: the slot is all that is given.
        let slot =
            unsafe { state.lend(OPERATION, LENT, |writer| Ok(writer.reserve_within(bytes, timeout)?)) }?;
        // SAFETY: as above.
        unsafe { put(OPERATION, "the place for the address", data, slot.as_mut_ptr().cast()) }
    })
}

/// Send the message that was reserved and filled.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_writer_commit(writer: *const unisono_writer) -> unisono_status {
    const OPERATION: &str = "writer_commit";
    guard(OPERATION, || {
        // SAFETY: the header's: a handle that was given out.
        let mut state = unsafe { enter(OPERATION, writer) }?;
        state.take_back(OPERATION, "no message is reserved", Slot::commit)
    })
}

/// Give the reserved room back: the message never was.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_writer_discard(writer: *const unisono_writer) -> unisono_status {
    const OPERATION: &str = "writer_discard";
    guard(OPERATION, || {
        // SAFETY: the header's: a handle that was given out.
        let mut state = unsafe { enter(OPERATION, writer) }?;
        state.take_back(OPERATION, "no message is reserved", drop)
    })
}

/// Whether a reader is there.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum unisono_presence {
    /// Nobody has claimed the rank yet.
    Awaited = 0,
    /// It is alive.
    Alive = 1,
    /// It said goodbye.
    Left = 2,
    /// Its process died.
    Dead = 3,
    /// It wrote what it never may, and is listened to no more.
    Broken = 4,
    /// Its connection was lost.
    Unreachable = 5,
}

/// One reader, as its writer sees it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct unisono_reader_status {
    /// sizeof(unisono_reader_status), set by the caller.
    pub struct_size: usize,
    /// Its rank.
    pub rank: i32,
    /// Its process; 0 until one has claimed the rank.
    pub pid: u32,
    /// Whether it is there.
    pub presence: unisono_presence,
    /// 0.
    pub reserved: i32,
    /// Messages that it has not finished with.
    pub lag_messages: u64,
    /// Bytes of the ring that it keeps occupied.
    pub lag_bytes: u64,
    /// How many seconds ago it finished a message or came in; negative if it never did.
    pub last_step: f64,
}
versioned!(unisono_reader_status, last_step: f64);

fn shown(reader: &ReaderStatus) -> unisono_reader_status {
    unisono_reader_status {
        struct_size: size_of::<unisono_reader_status>(),
        rank: i32::try_from(reader.rank).unwrap_or(i32::MAX),
        pid: reader.pid.unwrap_or(0),
        presence: match reader.presence {
            Presence::Awaited => unisono_presence::Awaited,
            Presence::Alive => unisono_presence::Alive,
            Presence::Left => unisono_presence::Left,
            Presence::Dead => unisono_presence::Dead,
            Presence::Unreachable => unisono_presence::Unreachable,
            _ => unisono_presence::Broken,
        },
        reserved: 0,
        lag_messages: reader.lag_messages,
        lag_bytes: reader.lag_bytes,
        last_step: reader.last_step.map_or(-1.0, |ago| ago.as_secs_f64()),
    }
}

/// Fill `status` with what is known of one reader: `index` is 0, 1, … in the order of the queue's ranks, and there is an error
/// where they end.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_writer_reader(
    writer: *const unisono_writer,
    index: usize,
    status: *mut unisono_reader_status,
) -> unisono_status {
    const OPERATION: &str = "writer_reader";
    guard(OPERATION, || {
        // SAFETY: the header's: a handle that was given out.
        let readers = unsafe { enter(OPERATION, writer) }?.side(OPERATION, LENT)?.readers();
        let found = readers.get(index);
        let found =
            found.ok_or_else(|| refused(OPERATION, format!("index {index} of {} readers", readers.len())))?;
        // SAFETY: the header's: a structure of the size that it says.
        unsafe { versioned::write(OPERATION, status, shown(found)) }
    })
}

/// From any thread: end the wait that is under way, if there is one, with UNISONO_STATUS_CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_writer_cancel(writer: *const unisono_writer) -> unisono_status {
    guard("writer_cancel", || {
        // SAFETY: the header's: a handle that was given out.
        unsafe { object("writer_cancel", "the writer", writer) }?.control.cancel();
        Ok(())
    })
}

/// From any thread: every call of this side ends with UNISONO_STATUS_SHUT_DOWN, now and from now on. Readers hear of the end when
/// the writer is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_writer_shut_down(writer: *const unisono_writer) -> unisono_status {
    guard("writer_shut_down", || {
        // SAFETY: the header's: a handle that was given out.
        unsafe { object("writer_shut_down", "the writer", writer) }?.control.shut_down();
        Ok(())
    })
}

/// Say goodbye and free the writer; what is reserved is discarded. Readers still get everything that was sent. Null is left alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_writer_free(writer: *mut unisono_writer) {
    // SAFETY: the header's: null, or a handle that was given out and that nobody uses any more.
    unsafe { free(writer) }
}
