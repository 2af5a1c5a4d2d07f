//! The handle: what a reader needs to find its writer, small enough to travel by any means.
//!
//! A writer makes one; it is pickled, sent through a pipe, broadcast or put into an environment variable, and a reader opens
//! the queue with it. It carries no memory and no descriptor; if there are readers
//! elsewhere it carries their key, and is then to be kept from others. The one invariant that matters: **a handle names one
//! queue for good**: its nonce was drawn for it, so that a handle of a queue that is gone never opens another.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use unisono_os::socket::Address;

use super::error::{Error, Result};
use crate::socket_file;

/// Changes whenever a reader of an older version could not use the handle.
const VERSION: u32 = 2;

/// What the abstract names begin with at which writers listen.
pub(crate) const PREFIX: &str = "unisono-queue/";

/// Where a queue is and who may read it.
///
/// ```
/// use unisono::queue::{Handle, Writer};
///
/// let writer = Writer::builder().readers(2).create()?;
/// let travelling = writer.handle().to_bytes();
/// let arrived = Handle::from_bytes(&travelling)?;
/// assert_eq!(arrived.reader_ranks(), [0, 1]);
/// # Ok::<_, unisono::queue::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handle {
    version: u32,
    nonce: [u8; 16],
    writer_rank: u64,
    reader_ranks: Vec<u64>,
    addresses: Vec<At>,
    elsewhere: Option<Elsewhere>,
}

/// A place at which the writer can be met. Later versions add others; a reader takes the first that it can reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum At {
    /// A name in the network namespace.
    Abstract(Vec<u8>),
    /// A socket file.
    File(PathBuf),
}

/// Who reads elsewhere, where they find the writer, and the key with which both sides sign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Elsewhere {
    address: SocketAddr,
    key: Secret,
    ranks: Vec<u64>,
}

/// A key; it is never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Secret([u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(not shown)")
    }
}

impl Elsewhere {
    #[cfg(feature = "remote")]
    pub(super) fn new(address: SocketAddr, key: [u8; 32], ranks: &[usize]) -> Elsewhere {
        Elsewhere { address, key: Secret(key), ranks: ranks.iter().map(|rank| *rank as u64).collect() }
    }

    pub(super) fn has(&self, rank: usize) -> bool {
        self.ranks.contains(&(rank as u64))
    }

    #[cfg(feature = "remote")]
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    #[cfg(feature = "remote")]
    pub(super) fn key(&self) -> [u8; 32] {
        self.key.0
    }
}

impl Handle {
    pub(super) fn new(
        nonce: [u8; 16],
        writer_rank: usize,
        reader_ranks: &[usize],
        directory: Option<&std::path::Path>,
        elsewhere: Option<Elsewhere>,
    ) -> Handle {
        let name = name_of(nonce);
        let mut addresses = vec![At::Abstract(format!("{PREFIX}{name}").into_bytes())];
        addresses.extend(directory.map(|directory| At::File(socket_file::of_queue(directory, &name))));
        Handle {
            version: VERSION,
            nonce,
            writer_rank: writer_rank as u64,
            reader_ranks: reader_ranks.iter().map(|rank| *rank as u64).collect(),
            addresses,
            elsewhere,
        }
    }

    /// The handle as bytes, of which the first four are its version.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.version.to_le_bytes().to_vec();
        // Nothing in a handle can refuse to be written, and a vector takes everything.
        bytes.extend(postcard::to_stdvec(self).unwrap_or_default());
        bytes
    }

    /// The handle that was written as these bytes.
    ///
    /// # Errors
    /// [`Error::Handle`] if it is of another version, or none at all.
    pub fn from_bytes(bytes: &[u8]) -> Result<Handle> {
        let refuse = |problem: String| Err(Error::Handle { problem });
        let Some((version, rest)) = bytes.split_first_chunk::<4>() else {
            return refuse(format!("{} bytes are too few", bytes.len()));
        };
        let version = u32::from_le_bytes(*version);
        if version != VERSION {
            return refuse(format!("expected version {VERSION}, found {version}"));
        }
        match postcard::from_bytes::<Handle>(rest) {
            Ok(handle) if handle.version == version => Ok(handle),
            Ok(handle) => refuse(format!("expected version {version} twice, found {}", handle.version)),
            Err(error) => refuse(error.to_string()),
        }
    }

    /// The rank that the writer goes by.
    pub fn writer_rank(&self) -> usize {
        usize::try_from(self.writer_rank).unwrap_or(usize::MAX)
    }

    /// The ranks that may read, in their order; those elsewhere come last.
    pub fn reader_ranks(&self) -> Vec<usize> {
        self.local_ranks().into_iter().chain(self.remote_ranks()).collect()
    }

    /// The ranks that read from the writer's memory.
    pub fn local_ranks(&self) -> Vec<usize> {
        numbers(&self.reader_ranks)
    }

    /// The ranks that read elsewhere, over the network.
    pub fn remote_ranks(&self) -> Vec<usize> {
        self.elsewhere.as_ref().map(|elsewhere| numbers(&elsewhere.ranks)).unwrap_or_default()
    }

    /// Where readers elsewhere find the writer, if there are to be any.
    pub fn remote_address(&self) -> Option<SocketAddr> {
        self.elsewhere.as_ref().map(|elsewhere| elsewhere.address)
    }

    /// The key with which both sides sign what goes over the network, if anything does. Whoever has it may read the queue: it is
    /// for readers that are not of this library.
    pub fn remote_key(&self) -> Option<[u8; 32]> {
        self.elsewhere.as_ref().map(|elsewhere| elsewhere.key.0)
    }

    /// What tells this queue from every other.
    pub fn nonce(&self) -> [u8; 16] {
        self.nonce
    }

    pub(super) fn elsewhere(&self) -> Option<&Elsewhere> {
        self.elsewhere.as_ref()
    }

    /// A short name of the queue, for messages.
    pub fn name(&self) -> String {
        name_of(self.nonce)[..8].to_string()
    }

    /// What tells this queue's memory from that of any other.
    pub(super) fn nonce_word(&self) -> u64 {
        Handle::nonce_word_of(self.nonce)
    }

    pub(super) fn nonce_word_of(nonce: [u8; 16]) -> u64 {
        u64::from_le_bytes(*nonce.first_chunk::<8>().unwrap_or(&[0; 8]))
    }

    /// Where the writer listens, in the order in which to try.
    pub(super) fn local_addresses(&self) -> Vec<Address> {
        let address = |at: &At| match at {
            At::Abstract(name) => Address::Abstract(name.clone()),
            At::File(path) => Address::File(path.clone()),
        };
        self.addresses.iter().map(address).collect()
    }
}

fn numbers(ranks: &[u64]) -> Vec<usize> {
    ranks.iter().map(|rank| usize::try_from(*rank).unwrap_or(usize::MAX)).collect()
}

fn name_of(nonce: [u8; 16]) -> String {
    nonce.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_arrives_as_it_was_sent_and_damage_is_told() {
        let address = "[::1]:5555".parse().unwrap();
        let elsewhere = Elsewhere { address, key: Secret([0xa5; 32]), ranks: vec![11, 12] };
        let handle = Handle::new([7; 16], 3, &[0, 5, 9], Some(std::path::Path::new("/run")), Some(elsewhere));
        let bytes = handle.to_bytes();
        assert_eq!(Handle::from_bytes(&bytes).unwrap(), handle);
        assert_eq!((handle.writer_rank(), handle.reader_ranks()), (3, vec![0, 5, 9, 11, 12]));
        assert_eq!((handle.remote_address(), handle.remote_ranks()), (Some(address), vec![11, 12]));
        assert!(format!("{handle:?}").contains("key: (not shown)"), "{handle:?}");
        assert_eq!(handle.local_addresses().len(), 2);
        for cut in 0..bytes.len() {
            assert!(Handle::from_bytes(&bytes[..cut]).is_err(), "{cut} bytes");
        }
        let mut other = bytes.clone();
        other[0] = 9;
        let error = Handle::from_bytes(&other).unwrap_err().to_string();
        assert!(error.contains("expected version 2, found 9"), "{error}");
    }
}
