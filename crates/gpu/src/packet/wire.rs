//! Over what a carrier's messages go to the other node.
//!
//! With the feature `remote`: `unisono-remote`, over tcp. Each side is a publisher with one reader, the other; every message is
//! signed, none is lost in silence, and a link that does not answer is news within about two seconds.

#[cfg(feature = "remote")]
use std::net::IpAddr;
#[cfg(feature = "remote")]
use std::sync::atomic::{AtomicBool, Ordering};
#[cfg(feature = "remote")]
use std::time::Instant;
use std::{fmt, time::Duration};

#[cfg(feature = "remote")]
use unisono_remote::{
    Found, Key, Leftovers, Publisher, PublisherConfig, Rouser, Subscriber, SubscriberConfig,
};

#[cfg(feature = "remote")]
use super::error::PacketError;

/// What came over a wire.
#[derive(Debug)]
pub enum Arrived {
    /// The next message.
    Message(Vec<u8>),
    /// The other side has left. All that it sent has come before.
    Left,
    /// Nothing more will come, and something may be missing: why.
    Lost(String),
    /// The wait was interrupted.
    Interrupted,
}

/// A way to the rank of the same place on the other node: messages arrive whole, once, and in order, or not at all and with
/// [`Arrived::Lost`].
pub trait Wire: fmt::Debug + Send + Sync + 'static {
    /// Sends a message; does not wait for it to arrive.
    fn send(&self, message: Vec<u8>);

    /// Waits for what comes next.
    fn receive(&self) -> Arrived;

    /// Whoever waits in [`Wire::receive`], now or later, is told [`Arrived::Interrupted`].
    fn interrupt(&self);

    /// Says goodbye once all that was sent has arrived, within `patience`.
    fn close(&self, patience: Duration);
}

/// Where a rank's publisher is, and what tells it from others: what the other side must know.
#[cfg(feature = "remote")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The machine's address and the port.
    pub at: std::net::SocketAddr,
    /// Drawn for this wire.
    pub nonce: [u8; 16],
}

#[cfg(feature = "remote")]
impl Address {
    /// Bytes of an address as it is told.
    pub(super) const BYTES: usize = 34;

    pub(super) fn to_bytes(self) -> [u8; Self::BYTES] {
        let ip = match self.at.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let mut bytes = [0; Self::BYTES];
        bytes[..16].copy_from_slice(&ip.octets());
        bytes[16..18].copy_from_slice(&self.at.port().to_le_bytes());
        bytes[18..].copy_from_slice(&self.nonce);
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::BYTES] = bytes.try_into().ok()?;
        let (mut ip, mut nonce) = ([0; 16], [0; 16]);
        ip.copy_from_slice(&bytes[..16]);
        nonce.copy_from_slice(&bytes[18..]);
        let ip = std::net::Ipv6Addr::from(ip).to_canonical();
        Some(Self { at: (ip, u16::from_le_bytes([bytes[16], bytes[17]])).into(), nonce })
    }
}

/// One side's half: it listens. Joined with the other's address it is a [`RemoteWire`].
#[cfg(feature = "remote")]
#[derive(Debug)]
pub struct RemoteListener {
    publisher: Publisher,
    key: Key,
    rank: u64,
    address: Address,
}

/// Messages over `unisono-remote`.
#[cfg(feature = "remote")]
#[derive(Debug)]
pub struct RemoteWire {
    publisher: Publisher,
    subscriber: Subscriber,
    rouser: Rouser,
    is_interrupted: AtomicBool,
}

#[cfg(feature = "remote")]
impl RemoteListener {
    /// Listens at an address of this machine, for rank `opposite`; both sides have the key.
    ///
    /// # Errors
    ///
    /// [`PacketError::Link`] where it cannot be listened there.
    pub fn new(ip: IpAddr, key: [u8; 32], rank: usize, opposite: usize) -> Result<Self, PacketError> {
        let failed = |problem: String| PacketError::Link { rank: opposite, problem };
        let nonce = unisono_os::random::bytes::<16>().map_err(|error| failed(error.to_string()))?;
        let (key, rank) = (Key::from_bytes(key), rank as u64);
        let config = PublisherConfig {
            key: key.clone(),
            nonce,
            rank,
            readers: vec![opposite as u64],
            ip,
            leftovers: Leftovers::Forgotten,
        };
        let publisher = Publisher::bind(config).map_err(|error| failed(error.to_string()))?;
        let address = Address { at: publisher.address(), nonce };
        Ok(Self { publisher, key, rank, address })
    }

    /// Where the other side finds it.
    pub fn address(&self) -> Address {
        self.address
    }

    /// Comes to the other side's, until the deadline.
    ///
    /// # Errors
    ///
    /// [`PacketError::Link`] where nobody with the key is found there.
    pub fn join(
        self,
        opposite: usize,
        address: Address,
        deadline: Instant,
    ) -> Result<RemoteWire, PacketError> {
        let Self { publisher, key, rank, .. } = self;
        let config = SubscriberConfig { address: address.at, key, nonce: address.nonce, rank };
        let subscriber = Subscriber::open(&config, Some(deadline))
            .map_err(|error| PacketError::Link { rank: opposite, problem: error.to_string() })?;
        let rouser = subscriber.rouser();
        Ok(RemoteWire { publisher, subscriber, rouser, is_interrupted: AtomicBool::new(false) })
    }
}

#[cfg(feature = "remote")]
impl Wire for RemoteWire {
    fn send(&self, message: Vec<u8>) {
        self.publisher.send(message);
    }

    fn receive(&self) -> Arrived {
        // Acquire: see `interrupt`.
        match self.subscriber.wait(None, || self.is_interrupted.load(Ordering::Acquire)) {
            Found::Message(message) => {
                self.subscriber.finish_one();
                Arrived::Message(message)
            }
            Found::End(unisono_remote::End::Left) => Arrived::Left,
            Found::End(end) => Arrived::Lost(format!("{end:?}")),
            Found::Over | Found::Nothing => Arrived::Interrupted,
        }
    }

    fn interrupt(&self) {
        // Release: what was decided before is known to whoever finds it.
        self.is_interrupted.store(true, Ordering::Release);
        self.rouser.rouse();
    }

    fn close(&self, patience: Duration) {
        self.publisher.close(patience);
    }
}
