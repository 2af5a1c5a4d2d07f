//! One connection: messages with descriptors, both ways, until a deadline.
//!
//! The invariant: a message is received whole, with all of its descriptors, or not at all. Descriptors that
//! arrive do not survive exec and are closed if the message is refused.

#![allow(unsafe_code)]

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

use super::{Address, SocketError};
use crate::{OsError, poll};

/// The most descriptors that one message carries; the kernel's own limit.
pub const MOST_DESCRIPTORS: usize = 253;

/// Room for one control message with the most descriptors.
const CONTROL_BYTES: usize = rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS));

/// How long to wait before knocking again at a listener whose queue is full or that is not there yet.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// Who is on the other side, as the kernel noted it when the connection was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Its process number in our eyes; 0 if it lives in a process namespace that we cannot see.
    pub pid: u32,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

/// A message that arrived.
#[derive(Debug)]
pub struct Message {
    /// Its bytes, at least one.
    pub bytes: Vec<u8>,
    /// The descriptors sent with it, in the sender's order.
    pub descriptors: Vec<OwnedFd>,
}

/// What [`Connection::receive`] found.
#[derive(Debug)]
pub enum Received {
    /// A message.
    Message(Message),
    /// The other side has closed the connection, or its process has ended; no message will come.
    Closed,
}

/// A connected socket that carries messages.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
}

impl Connection {
    pub(super) fn adopt(socket: OwnedFd) -> Connection {
        Connection { socket }
    }

    /// Two ends of one connection, for a child or a test.
    ///
    /// # Errors
    /// If descriptors run out.
    pub fn pair() -> Result<(Connection, Connection), SocketError> {
        let (one, other) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags(), None)
            .map_err(|errno| OsError::from_errno("socketpair", errno, "unix"))?;
        Ok((Connection { socket: one }, Connection { socket: other }))
    }

    /// Connect to a listener. Waits only while its queue is full.
    ///
    /// # Errors
    /// [`SocketError::NobodyListens`] at once if there is no listener.
    pub fn connect(address: &Address, deadline: Option<Instant>) -> Result<Connection, SocketError> {
        Connection::connect_while(address, deadline, false)
    }

    /// Connect to a listener, and wait until the deadline for one to appear.
    ///
    /// # Errors
    /// [`SocketError::NobodyListens`] if none has appeared by the deadline.
    pub fn connect_when_listening(
        address: &Address,
        deadline: Option<Instant>,
    ) -> Result<Connection, SocketError> {
        Connection::connect_while(address, deadline, true)
    }

    fn connect_while(
        address: &Address,
        deadline: Option<Instant>,
        wait_for_listener: bool,
    ) -> Result<Connection, SocketError> {
        let system_address = address.to_system()?;
        let socket = new_socket()?;
        let mut pause = SHORTEST_PAUSE;
        loop {
            let failure = match rustix::net::connect(&socket, &system_address) {
                Ok(()) => return Ok(Connection { socket }),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => match wait_in_line(&socket, &system_address, deadline) {
                    Ok(()) => return Ok(Connection { socket }),
                    Err(Errno::INTR) => continue,
                    Err(_) => SocketError::TimedOut { doing: format!("connecting to {address}") },
                },
                Err(Errno::CONNREFUSED | Errno::NOENT) => {
                    let failure = SocketError::NobodyListens { address: address.clone() };
                    if !wait_for_listener {
                        return Err(failure);
                    }
                    failure
                }
                Err(errno) => return Err(OsError::from_errno("connect", errno, address.to_string()).into()),
            };
            let Some(nap) = nap_before(deadline, pause) else { return Err(failure) };
            std::thread::sleep(nap);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Send one message, with descriptors, which stay open here.
    ///
    /// # Errors
    /// [`SocketError::CannotSend`] for an empty message, one beyond the socket's buffer (about 200 KiB), or
    /// more than [`MOST_DESCRIPTORS`]; [`SocketError::Closed`] if nobody will read it;
    /// [`SocketError::TimedOut`] if the other side has let its queue fill up.
    pub fn send(
        &self,
        bytes: &[u8],
        descriptors: &[BorrowedFd<'_>],
        deadline: Option<Instant>,
    ) -> Result<(), SocketError> {
        let cannot =
            |problem| SocketError::CannotSend { bytes: bytes.len(), descriptors: descriptors.len(), problem };
        if bytes.is_empty() {
            return Err(cannot("an empty message cannot be told from a closed connection"));
        }
        if descriptors.len() > MOST_DESCRIPTORS {
            return Err(cannot("more than 253 descriptors"));
        }
        loop {
            match self.try_send(bytes, descriptors) {
                Ok(sent) if sent == bytes.len() => return Ok(()),
                Ok(_) => return Err(cannot("the system took a part of it only")),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if !poll::until_writable(self.socket.as_fd(), deadline)?.any() {
                        return Err(SocketError::TimedOut { doing: "sending a message".to_owned() });
                    }
                }
                // Too many descriptors of this user are under way to readers that have not read yet.
                Err(Errno::TOOMANYREFS) => match nap_before(deadline, SHORTEST_PAUSE) {
                    Some(nap) => std::thread::sleep(nap),
                    None => return Err(SocketError::TimedOut { doing: "sending descriptors".to_owned() }),
                },
                Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => return Err(SocketError::Closed),
                Err(Errno::MSGSIZE) => return Err(cannot("longer than the socket's buffer")),
                Err(errno) => {
                    let context = format!("{} bytes, {} descriptors", bytes.len(), descriptors.len());
                    return Err(OsError::from_errno("sendmsg", errno, context).into());
                }
            }
        }
    }

    fn try_send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<usize, Errno> {
        let mut room = [MaybeUninit::<u8>::uninit(); CONTROL_BYTES];
        let mut control = SendAncillaryBuffer::new(&mut room);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(Errno::MSGSIZE);
        }
        rustix::net::sendmsg(&self.socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)
    }

    /// Receive one message of at most `most_bytes` bytes, with the descriptors sent along.
    ///
    /// # Errors
    /// [`SocketError::MessageTooLong`] and [`SocketError::DescriptorsLost`] for a message that did not fit
    /// (it is lost, its descriptors are closed); [`SocketError::TimedOut`]. That the other side is gone is no
    /// error but [`Received::Closed`].
    pub fn receive(&self, most_bytes: usize, deadline: Option<Instant>) -> Result<Received, SocketError> {
        let mut bytes = vec![0_u8; most_bytes.max(1)];
        loop {
            match self.try_receive(&mut bytes) {
                Ok((0, ..)) => return Ok(Received::Closed),
                // The other side closed without reading all that we sent. The system says so once, before it gives
                // what that side had said last.
                Err(Errno::CONNRESET) => {}
                Ok((_, _, flags)) if flags.contains(ReturnFlags::TRUNC) => {
                    return Err(SocketError::MessageTooLong { allowed: most_bytes });
                }
                Ok((_, _, flags)) if flags.contains(ReturnFlags::CTRUNC) => {
                    return Err(SocketError::DescriptorsLost);
                }
                Ok((length, descriptors, _)) => {
                    bytes.truncate(length);
                    return Ok(Received::Message(Message { bytes, descriptors }));
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if !poll::until_readable(&[self.socket.as_fd()], deadline)?
                        .iter()
                        .any(|found| found.any())
                    {
                        return Err(SocketError::TimedOut { doing: "waiting for a message".to_owned() });
                    }
                }
                Err(errno) => return Err(OsError::from_errno("recvmsg", errno, "").into()),
            }
        }
    }

    fn try_receive(&self, bytes: &mut [u8]) -> Result<(usize, Vec<OwnedFd>, ReturnFlags), Errno> {
        let mut room = [MaybeUninit::<u8>::uninit(); CONTROL_BYTES];
        let mut control = RecvAncillaryBuffer::new(&mut room);
        let mut parts = [IoSliceMut::new(bytes)];
        let answer = rustix::net::recvmsg(&self.socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                descriptors.extend(received);
            }
        }
        Ok((answer.bytes, descriptors, answer.flags))
    }

    /// Who is on the other side: for the end that connected, who listened; for the end that was accepted, who
    /// connected. The kernel vouches for it.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn peer_credentials(&self) -> Result<Credentials, SocketError> {
        credentials_of(self.socket.as_fd())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

pub(super) fn flags() -> SocketFlags {
    SocketFlags::CLOEXEC | SocketFlags::NONBLOCK
}

pub(super) fn new_socket() -> Result<OwnedFd, SocketError> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags(), None)
        .map_err(|errno| OsError::from_errno("socket", errno, "unix").into())
}

/// Connect to a listener whose queue is full: in the kernel's line of those who want to, so that whoever tries again and again at once
/// is not always first.
fn wait_in_line(
    socket: &OwnedFd,
    address: &SocketAddrUnix,
    deadline: Option<Instant>,
) -> rustix::io::Result<()> {
    let remaining = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    if remaining.is_some_and(|remaining| remaining.is_zero()) {
        return Err(Errno::AGAIN);
    }
    set_socket_timeout(socket, Timeout::Send, remaining)?;
    ioctl_fionbio(socket, false)?;
    let connected = rustix::net::connect(socket, address);
    ioctl_fionbio(socket, true)?;
    set_socket_timeout(socket, Timeout::Send, None)?;
    connected
}

/// How long to sleep before the next try; `None` if the deadline has passed.
pub(super) fn nap_before(deadline: Option<Instant>, pause: Duration) -> Option<Duration> {
    let Some(deadline) = deadline else { return Some(pause) };
    let remaining = deadline.saturating_duration_since(Instant::now());
    if remaining.is_zero() { None } else { Some(pause.min(remaining)) }
}

/// Read by hand: the process number may be 0 here, which the typed call of the library below does not
/// foresee.
fn credentials_of(socket: BorrowedFd<'_>) -> Result<Credentials, SocketError> {
    let mut found = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the place and its length describe `found`, plain data that any answer fits.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut found).cast(),
            &raw mut length,
        )
    };
    if answer != 0 {
        return Err(OsError::last("getsockopt(SO_PEERCRED)", "").into());
    }
    Ok(Credentials { pid: u32::try_from(found.pid).unwrap_or(0), uid: found.uid, gid: found.gid })
}
