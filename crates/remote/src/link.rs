//! The sockets: how they are set up, found and looked after.
//!
//! The one invariant that matters: **no connection is kept on that does not answer, and none is made again in silence**: a
//! heartbeat ends it, and the session with it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use unisono_os::poll::Waker;

use crate::error::{Error, Result};
use crate::frame::PART_BYTES;
use crate::word::LONGEST_WORD;

/// How often each side asks whether the other is there, and how long it may take to answer.
const HEARTBEAT_EVERY: i32 = 500;
const HEARTBEAT_ANSWERED_WITHIN: i32 = 1500;
/// So long at most a side that cannot be reached is believed to be there.
pub(crate) const LOSS_IS_NOTICED_WITHIN: Duration =
    Duration::from_millis((HEARTBEAT_EVERY + HEARTBEAT_ANSWERED_WITHIN) as u64);
/// Far beyond what may be under way to one reader: if this is reached, nothing is lost, but a reader does not keep to the rules.
const MOST_QUEUED: i32 = 4096;
/// Connections are not made again: whoever lost one opens the queue again. (A negative number would have ZeroMQ throw away
/// what has arrived.)
const RECONNECT_NEVER: i32 = 1 << 30;

/// The publisher's socket, bound; and where it is.
pub(crate) fn bound(context: &zmq::Context, ip: IpAddr) -> Result<(zmq::Socket, SocketAddr)> {
    let mut socket = made(context, zmq::XPUB, ip)?;
    let set_up = |socket: &mut zmq::Socket| {
        crate::manual::let_in_by_hand(socket)?;
        socket.set_sndhwm(MOST_QUEUED)?;
        socket.set_maxmsgsize(LONGEST_WORD as i64)?;
        // The last frame sets are acknowledged before the socket is closed.
        socket.set_linger(0)
    };
    set_up(&mut socket).map_err(Error::zmq("setting up a publisher's socket"))?;
    let refused = |error: zmq::Error| Error::Bind { ip, problem: error.to_string() };
    socket.bind(&format!("tcp://{}", SocketAddr::new(ip, 0))).map_err(refused)?;
    let endpoint = socket.get_last_endpoint().map_err(Error::zmq("asking for the publisher's port"))?;
    let address = endpoint.ok().and_then(|endpoint| endpoint.strip_prefix("tcp://")?.parse().ok());
    let unclear = || Error::Bind { ip, problem: "ZeroMQ does not say at which port".to_string() };
    Ok((socket, address.ok_or_else(unclear)?))
}

/// A subscriber's socket, connecting, and the one at which its fate is told.
pub(crate) fn connecting(context: &zmq::Context, address: SocketAddr) -> Result<(zmq::Socket, zmq::Socket)> {
    let socket = made(context, zmq::SUB, address.ip())?;
    let fate = context.socket(zmq::PAIR).map_err(Error::zmq("making a subscriber's socket"))?;
    let set_up = || {
        // How much is under way is bounded by the publisher; words are never dropped. Nothing that it says is longer than a
        // part: whoever stands in its place cannot make this side keep more.
        socket.set_rcvhwm(0)?;
        socket.set_maxmsgsize(PART_BYTES as i64)?;
        socket.set_sndhwm(0)?;
        socket.set_linger(500)?;
        fate.set_linger(0)?;
        let events = [
            zmq::SocketEvent::DISCONNECTED,
            zmq::SocketEvent::CLOSED,
            zmq::SocketEvent::HANDSHAKE_FAILED_NO_DETAIL,
            zmq::SocketEvent::HANDSHAKE_FAILED_PROTOCOL,
            zmq::SocketEvent::HANDSHAKE_FAILED_AUTH,
        ];
        let events = events.iter().fold(0, |all, event| all | i32::from(event.to_raw()));
        socket.monitor("inproc://fate", events)?;
        fate.connect("inproc://fate")?;
        socket.connect(&format!("tcp://{address}"))
    };
    set_up().map_err(Error::zmq("setting up a subscriber's socket"))?;
    Ok((socket, fate))
}

fn made(context: &zmq::Context, kind: zmq::SocketType, ip: IpAddr) -> Result<zmq::Socket> {
    let make = || {
        let socket = context.socket(kind)?;
        socket.set_ipv6(ip.is_ipv6())?;
        socket.set_reconnect_ivl(RECONNECT_NEVER)?;
        socket.set_heartbeat_ivl(HEARTBEAT_EVERY)?;
        socket.set_heartbeat_timeout(HEARTBEAT_ANSWERED_WITHIN)?;
        Ok(socket)
    };
    make().map_err(Error::zmq("making a socket"))
}

/// Whether the connection has ended, as far as has been told.
pub(crate) fn has_ended(fate: &zmq::Socket) -> bool {
    // Only ends are listened for. Each is told in two frames.
    let told = fate.recv_msg(zmq::DONTWAIT).is_ok();
    if told {
        while fate.get_rcvmore().unwrap_or(false) && fate.recv_msg(0).is_ok() {}
    }
    told
}

/// Sleep until one of the sockets has something to read, the waker is woken, or the time has passed.
pub(crate) fn wait(
    sockets: &[&zmq::Socket],
    waker: Option<&Waker>,
    until: Option<Instant>,
) -> zmq::Result<()> {
    let mut items: Vec<_> = sockets.iter().map(|socket| socket.as_poll_item(zmq::POLLIN)).collect();
    if let Some(waker) = waker {
        items.push(zmq::PollItem::from_fd(waker.descriptor().as_raw_fd(), zmq::POLLIN));
    }
    // Rounded up: whoever wakes finds that the time has passed.
    let milliseconds = until.map_or(-1, |until| {
        let left = until.saturating_duration_since(Instant::now());
        i64::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i64::MAX)
    });
    match zmq::poll(&mut items, milliseconds) {
        Ok(_) | Err(zmq::Error::EINTR) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The system's reason why nobody can be reached there, if it has one.
pub(crate) fn why_unreachable(address: SocketAddr) -> String {
    match TcpStream::connect_timeout(&address, Duration::from_secs(1)) {
        Ok(_) => "the connection was closed: it is no queue's writer, or of another version".to_string(),
        Err(error) => error.to_string(),
    }
}

/// The address of this machine at which others reach it: the one from which it would send to them. Nothing is sent. Without
/// a network it is the loopback's.
pub fn own_ip() -> IpAddr {
    // Addresses set aside for documentation: they are reached, or not, as any other.
    let others: [(IpAddr, IpAddr); 2] = [
        (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into()),
        (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()),
    ];
    let towards = |(any, other): (IpAddr, IpAddr)| {
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect((other, 9)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    others.into_iter().find_map(towards).unwrap_or(Ipv4Addr::LOCALHOST.into())
}
