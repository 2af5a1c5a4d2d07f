//! 128 bytes by which ranks find one another: where rank 0 listens, and a secret.
//!
//! The invariant: an id gathers ranks once. Whoever has it may take part, so it travels as secrets do.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::{Mutex, PoisonError};

use super::error::PacketError;

/// Bytes of an id, as MSCCL++ has them.
pub const UNIQUE_ID_BYTES: usize = 128;
/// Bytes of the secret.
pub(super) const SECRET_BYTES: usize = 32;

const TAG: &[u8; 16] = b"unisono-packets\x01";
const IP_AT: usize = 16 + SECRET_BYTES;
const PORT_AT: usize = IP_AT + 16;
const END: usize = PORT_AT + 2;

/// Where ids of this process listen until rank 0 is made with them.
static LISTENING: Mutex<Option<HashMap<[u8; UNIQUE_ID_BYTES], TcpListener>>> = Mutex::new(None);

/// By which ranks find one another. Drawn by the process that is to be rank 0, and given to all others by other means.
#[derive(Clone, PartialEq, Eq)]
pub struct UniqueId([u8; UNIQUE_ID_BYTES]);

impl fmt::Debug for UniqueId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "UniqueId({}, secret not shown)", self.address())
    }
}

impl UniqueId {
    /// Listens at an address of this machine at which all ranks reach it; 127.0.0.1 where all are on this machine.
    ///
    /// # Errors
    ///
    /// [`PacketError::UniqueId`] where it cannot be listened there.
    pub fn generate(ip: IpAddr) -> Result<Self, PacketError> {
        let failed = |problem: String| PacketError::UniqueId { problem };
        let listener =
            TcpListener::bind((ip, 0)).map_err(|error| failed(format!("listening at {ip}: {error}")))?;
        let port = listener.local_addr().map_err(|error| failed(error.to_string()))?.port();
        let secret =
            unisono_os::random::bytes::<SECRET_BYTES>().map_err(|error| failed(error.to_string()))?;
        let mut bytes = [0; UNIQUE_ID_BYTES];
        let ip = match ip {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        bytes[..16].copy_from_slice(TAG);
        bytes[16..IP_AT].copy_from_slice(&secret);
        bytes[IP_AT..PORT_AT].copy_from_slice(&ip.octets());
        bytes[PORT_AT..END].copy_from_slice(&port.to_le_bytes());
        let mut listening = LISTENING.lock().unwrap_or_else(PoisonError::into_inner);
        listening.get_or_insert_default().insert(bytes, listener);
        Ok(Self(bytes))
    }

    /// The id of these bytes.
    ///
    /// # Errors
    ///
    /// [`PacketError::UniqueId`] for bytes that no [`UniqueId::to_bytes`] returned.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PacketError> {
        let is_ours =
            |bytes: &[u8; UNIQUE_ID_BYTES]| bytes.starts_with(TAG) && bytes[END..].iter().all(|b| *b == 0);
        let bytes: Option<[u8; UNIQUE_ID_BYTES]> = bytes.try_into().ok().filter(is_ours);
        let problem = || "it is no id of this library's, or of another version of it".to_owned();
        bytes.map(Self).ok_or_else(|| PacketError::UniqueId { problem: problem() })
    }

    /// For the other ranks. Keep them secret.
    pub fn to_bytes(&self) -> [u8; UNIQUE_ID_BYTES] {
        self.0
    }

    /// Where rank 0 listens.
    pub fn address(&self) -> SocketAddr {
        let mut ip = [0; 16];
        ip.copy_from_slice(&self.0[IP_AT..PORT_AT]);
        let port = u16::from_le_bytes([self.0[PORT_AT], self.0[PORT_AT + 1]]);
        SocketAddr::new(Ipv6Addr::from(ip).to_canonical(), port)
    }

    pub(super) fn secret(&self) -> [u8; SECRET_BYTES] {
        let mut secret = [0; SECRET_BYTES];
        secret.copy_from_slice(&self.0[16..IP_AT]);
        secret
    }

    /// What this process listens with for the id: once.
    pub(super) fn take_listener(&self) -> Result<TcpListener, PacketError> {
        let mut listening = LISTENING.lock().unwrap_or_else(PoisonError::into_inner);
        let listener = listening.get_or_insert_default().remove(&self.0);
        listener.ok_or_else(|| PacketError::UniqueId {
            problem: "rank 0 must be in the process that drew it, and an id is used once".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_its_bytes_and_shows_no_secret() {
        let id = UniqueId::generate([127, 0, 0, 1].into()).unwrap();
        assert_eq!(UniqueId::from_bytes(&id.to_bytes()), Ok(id.clone()));
        assert!(id.address().ip().is_loopback() && id.address().port() != 0);
        let shown = format!("{id:?}");
        assert_eq!(shown, format!("UniqueId({}, secret not shown)", id.address()));
        assert!(UniqueId::from_bytes(&id.to_bytes()[1..]).is_err());
        assert!(UniqueId::from_bytes(&[7; UNIQUE_ID_BYTES]).is_err());
        assert!(id.take_listener().is_ok());
        assert!(id.take_listener().is_err(), "an id is used once");
    }
}
