//! How a reader comes in: it finds the writer, brings its own memory, and gets the ring's.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use unisono_os::poll::Waker;
use unisono_os::socket::{Connection, SocketError};
use unisono_os::{pidfd, process};

use super::error::{Error, Result};
use super::handle::Handle;
use super::line::{Line, MortalWriter};
use super::memory::{ReaderMemory, WriterMemory};
use super::messages::{self, Admitted, Message, Refusal};
use crate::background::Background;
use crate::marker::{Marker, own_pidfd};

/// What a reader has when it is in.
pub(super) struct Claimed {
    pub(super) line: Arc<Line>,
    pub(super) admitted: Admitted,
    pub(super) writer_pid: u32,
    pub(super) listener: Background,
    pub(super) marker: Marker,
}

/// Claim `rank` of the queue that the handle names.
pub(super) fn claim(handle: &Handle, rank: usize, deadline: Option<Instant>) -> Result<Claimed> {
    let failed = |problem: String| Error::Meeting { queue: handle.name(), problem };
    // All that is to be said is ready before anybody waits for it.
    let (own, descriptor, marker) = ReaderMemory::create(handle.nonce_word(), rank)?;
    let hello = Message::Hello { version: messages::VERSION, nonce: handle.nonce(), rank };
    let pidfd = own_pidfd()?;
    let mut descriptors = vec![descriptor.as_fd()];
    descriptors.extend(pidfd.as_ref().map(AsFd::as_fd));
    let connection = connect(handle, deadline)?;
    crate::fault::reach("connected");
    let credentials = connection.peer_credentials().map_err(|error| failed(error.to_string()))?;
    if credentials.uid != process::uid() {
        return Err(failed(format!("it belongs to user {}, not to {}", credentials.uid, process::uid())));
    }
    messages::send(&connection, &hello, &descriptors, deadline).map_err(|error| failed(error.to_string()))?;

    crate::fault::reach("asked");
    let answer = messages::receive(&connection, deadline).map_err(|error| failed(error.to_string()))?;
    let (admitted, packet) = match answer {
        Some((Message::Admitted(admitted), packet)) => (admitted, packet),
        Some((Message::Refused(Refusal::Taken { pid }), _)) => return Err(Error::RankTaken { rank, pid }),
        Some((Message::Refused(Refusal::Other { problem }), _)) => return Err(failed(problem)),
        Some((other, _)) => return Err(failed(format!("it answered {other:?}"))),
        None => return Err(failed("it has gone".to_string())),
    };
    let mut descriptors = packet.descriptors.into_iter();
    let memory = descriptors.next().ok_or_else(|| failed("it handed over no memory".to_string()))?;
    let open =
        || WriterMemory::open(memory.as_fd(), admitted.ring_bytes, handle.nonce_word()).map_err(failed);
    let writer_pidfd = if admitted.has_pidfd { descriptors.next() } else { None };
    if let Some(writer) = &writer_pidfd {
        pidfd::verify(writer.as_fd()).map_err(|error| failed(error.to_string()))?;
    }
    let waker = Waker::new().map_err(Error::os("making a reader's wake-up"))?;
    let line = Arc::new(Line::new(open()?, own, waker));
    marker.listen_for(Arc::new(MortalWriter {
        line: Arc::downgrade(&line),
        memory: open()?,
        seat: admitted.seat,
    }));
    crate::fault::reach("mapped");
    messages::send(&connection, &Message::Ready, &[], deadline).map_err(|error| failed(error.to_string()))?;
    crate::fault::reach("claimed");
    let listening = Arc::clone(&line);
    let listener =
        Background::spawn("unisono-reader", move || listening.listen(&connection, writer_pidfd.as_ref()))?;
    Ok(Claimed { line, admitted, writer_pid: credentials.pid, listener, marker })
}

/// Connect to the first of the handle's addresses at which somebody listens.
fn connect(handle: &Handle, deadline: Option<Instant>) -> Result<Connection> {
    let mut problem = "the handle has no address on this machine".to_string();
    for address in handle.local_addresses() {
        match Connection::connect(&address, deadline) {
            Ok(connection) => return Ok(connection),
            Err(error @ SocketError::NobodyListens { .. }) => {
                problem = format!(
                    "{error}: the writer is gone, or in another network namespace (set UNISONO_DIR there)"
                );
            }
            Err(error) => problem = error.to_string(),
        }
    }
    Err(Error::Meeting { queue: handle.name(), problem })
}
