//! The handle: what a reader needs to find its writer, small enough to travel by any means.
//!
//! A writer makes one; it is pickled, sent through a pipe, broadcast or put into an environment variable, and a reader opens
//! the queue with it. It carries no memory and no descriptor. The one invariant that matters: **a handle names one
//! queue for good**: its nonce was drawn for it, so that a handle of a queue that is gone never opens another.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use unisono_os::socket::Address;

use super::error::{Error, Result};
use crate::socket_file;

/// Changes whenever a reader of an older version could not use the handle.
const VERSION: u32 = 1;

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
}

/// A place at which the writer can be met. Later versions add others; a reader takes the first that it can reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum At {
    /// A name in the network namespace.
    Abstract(Vec<u8>),
    /// A socket file.
    File(PathBuf),
}

impl Handle {
    pub(super) fn new(
        nonce: [u8; 16],
        writer_rank: usize,
        reader_ranks: &[usize],
        directory: Option<&std::path::Path>,
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

    /// The ranks that may read, in their order.
    pub fn reader_ranks(&self) -> Vec<usize> {
        self.reader_ranks.iter().map(|rank| usize::try_from(*rank).unwrap_or(usize::MAX)).collect()
    }

    /// A short name of the queue, for messages.
    pub fn name(&self) -> String {
        name_of(self.nonce)[..8].to_string()
    }

    pub(super) fn nonce(&self) -> [u8; 16] {
        self.nonce
    }

    /// What tells this queue's memory from that of any other.
    pub(super) fn nonce_word(&self) -> u64 {
        u64::from_le_bytes(*self.nonce.first_chunk::<8>().unwrap_or(&[0; 8]))
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

fn name_of(nonce: [u8; 16]) -> String {
    nonce.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_arrives_as_it_was_sent_and_damage_is_told() {
        let handle = Handle::new([7; 16], 3, &[0, 5, 9], Some(std::path::Path::new("/run")));
        let bytes = handle.to_bytes();
        assert_eq!(Handle::from_bytes(&bytes).unwrap(), handle);
        assert_eq!((handle.writer_rank(), handle.reader_ranks()), (3, vec![0, 5, 9]));
        assert_eq!(handle.local_addresses().len(), 2);
        for cut in 0..bytes.len() {
            assert!(Handle::from_bytes(&bytes[..cut]).is_err(), "{cut} bytes");
        }
        let mut other = bytes.clone();
        other[0] = 9;
        let error = Handle::from_bytes(&other).unwrap_err().to_string();
        assert!(error.contains("expected version 1, found 9"), "{error}");
    }
}
