//! Where a socket is found: an abstract name or a file.
//!
//! An abstract name leaves nothing behind and needs no directory, but reaches only within a network namespace; a
//! file reaches wherever its directory is seen. The invariant: what is displayed is enough to find the socket.

use std::fmt;
use std::path::PathBuf;

use rustix::net::SocketAddrUnix;

use super::SocketError;

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
        let made = match self {
            // An empty abstract name would ask the system to choose one.
            Address::Abstract(name) if name.is_empty() => Err(rustix::io::Errno::INVAL),
            Address::Abstract(name) => SocketAddrUnix::new_abstract_name(name),
            Address::File(path) if path.as_os_str().is_empty() => Err(rustix::io::Errno::INVAL),
            Address::File(path) => SocketAddrUnix::new(path),
        };
        made.map_err(|errno| SocketError::InvalidAddress {
            address: self.clone(),
            problem: match errno {
                rustix::io::Errno::NAMETOOLONG => "longer than 107 bytes".to_owned(),
                _ => "empty, or with a zero byte".to_owned(),
            },
        })
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
