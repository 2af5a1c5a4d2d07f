//! Where a socket is found: an abstract name or a file.
//!
//! An abstract name leaves nothing behind and needs no directory, but reaches only within a network
//! namespace; a file reaches wherever its directory is seen. The invariant: what is displayed is enough to
//! find the socket.

use std::fmt;
use std::path::PathBuf;

use rustix::net::SocketAddrUnix;

use super::SocketError;

/// The longest name or path, in bytes: what the system has room for, with an end mark or a start mark.
const LONGEST: usize = 107;

/// An address of this machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A name in the network namespace, of 1 to 107 bytes.
    Abstract(Vec<u8>),
    /// A socket file, its path 1 to 107 bytes long.
    File(PathBuf),
}

impl Address {
    pub(super) fn to_system(&self) -> Result<SocketAddrUnix, SocketError> {
        let refuse = |problem: &str| {
            Err(SocketError::InvalidAddress { address: self.clone(), problem: problem.to_owned() })
        };
        let length = match self {
            Address::Abstract(name) => name.len(),
            Address::File(path) => path.as_os_str().len(),
        };
        match length {
            // An empty abstract name would ask the system to choose one.
            0 => return refuse("it is empty"),
            1..=LONGEST => {}
            _ => return refuse("it is longer than 107 bytes"),
        }
        let made = match self {
            Address::Abstract(name) => SocketAddrUnix::new_abstract_name(name),
            Address::File(path) => SocketAddrUnix::new(path),
        };
        made.or_else(|_| refuse("it holds a zero byte"))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Abstract(name) => write!(formatter, "abstract socket @{}", name.escape_ascii()),
            Address::File(path) => write!(formatter, "socket file {}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_too_long_or_empty_are_refused() {
        for address in [
            Address::Abstract(vec![b'x'; 108]),
            Address::Abstract(Vec::new()),
            Address::File(PathBuf::from("x".repeat(108))),
            Address::File(PathBuf::new()),
        ] {
            assert!(matches!(address.to_system(), Err(SocketError::InvalidAddress { .. })), "{address}");
        }
        assert!(Address::Abstract(vec![0xff; 107]).to_system().is_ok());
        assert!(Address::File(PathBuf::from("x".repeat(107))).to_system().is_ok());
    }

    #[test]
    fn an_address_can_be_read() {
        assert_eq!(Address::Abstract(b"unisono-\x01".to_vec()).to_string(), "abstract socket @unisono-\\x01");
        assert_eq!(Address::File("/dev/shm/x".into()).to_string(), "socket file /dev/shm/x");
    }
}
