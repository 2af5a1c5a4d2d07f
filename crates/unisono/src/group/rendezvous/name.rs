//! Where ranks meet: a socket whose name all of them can compute, or one that rank 0 drew.
//!
//! The socket is abstract: it leaves nothing behind and vanishes with its listener. Ranks in different network namespaces
//! cannot reach it; for them there is a socket file, in the directory that was given, else in /dev/shm, which exists only
//! until all have met; a file whose rank 0 was killed meanwhile is swept away by whoever survives it or starts next. A name carries everything that tells groups apart, so two engines meet only if they were
//! given the same of all of it.

use std::path::{Path, PathBuf};

use unisono_os::socket::Address;

use crate::error::{Error, Result};
use crate::socket_file;

/// Where socket files go unless a directory is given: shared between containers more often than /tmp.
const DEFAULT_DIRECTORY: &str = "/dev/shm";

/// Bytes of a drawn name.
pub(crate) const DRAWN_BYTES: usize = 16;

/// A name that nobody else will draw.
pub(crate) type Drawn = [u8; DRAWN_BYTES];

/// Where one group meets.
#[derive(Clone, Debug)]
pub(crate) struct Meeting {
    /// For messages: everything that the name is made of.
    pub(crate) label: String,
    hash: String,
    directory: Option<PathBuf>,
}

impl Meeting {
    /// The meeting of a group that is known by these.
    pub(crate) fn agreed(
        address: &str,
        port: u16,
        group: &str,
        run_id: &str,
        world: usize,
        directory: Option<PathBuf>,
    ) -> Self {
        let uid = unisono_os::process::uid();
        let run = if run_id.is_empty() { String::new() } else { format!(", run {run_id:?}") };
        let label = format!("group {group:?} of {world} ranks at {address}:{port}{run}, user {uid}");
        let parts = [&uid.to_string(), address, &port.to_string(), group, &world.to_string(), run_id];
        Meeting { label, hash: hash(&parts), directory }
    }

    /// Something nobody else will draw.
    pub(crate) fn draw() -> Result<Drawn> {
        unisono_os::random::bytes().map_err(Error::os("drawing a random name"))
    }

    /// The meeting of a group whose first rank drew this.
    pub(crate) fn drawn(drawn: &[u8], directory: Option<PathBuf>) -> Self {
        let text: String = drawn.iter().map(|byte| format!("{byte:02x}")).collect();
        Meeting { label: format!("group {}", &text[..text.len().min(8)]), hash: hash(&[&text]), directory }
    }

    /// The same kind of place for a sub-group, under another name.
    pub(crate) fn with_label(mut self, label: String) -> Self {
        self.label = label;
        self
    }

    pub(crate) fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    /// The socket within a network namespace.
    pub(crate) fn abstract_address(&self) -> Address {
        Address::Abstract(format!("unisono/{}", self.hash).into_bytes())
    }

    /// The socket across network namespaces.
    pub(crate) fn file_address(&self) -> Address {
        Address::File(socket_file::of_group(self.file_directory(), &self.hash))
    }

    fn file_directory(&self) -> &Path {
        self.directory.as_deref().unwrap_or(Path::new(DEFAULT_DIRECTORY))
    }

    /// Take away the socket files that killed ranks 0 of this user left where this group's would be, whichever groups
    /// they belonged to.
    pub(crate) fn sweep(&self) {
        socket_file::sweep(self.file_directory());
    }
}

/// In hexadecimal, [`number_of`] the parts.
fn hash(parts: &[&str]) -> String {
    format!("{:032x}", number_of(parts))
}

/// 128 bits of FNV-1a over the parts and their lengths: the same in every build and language.
pub(super) fn number_of(parts: &[&str]) -> u128 {
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let mut state: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    let mut feed = |byte: u8| state = (state ^ u128::from(byte)).wrapping_mul(PRIME);
    for part in parts {
        part.len().to_le_bytes().into_iter().for_each(&mut feed);
        part.bytes().for_each(&mut feed);
    }
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anything_that_differs_makes_another_place() {
        let here = Meeting::agreed("127.0.0.1", 29500, "tp", "a", 2, None);
        assert_eq!(here.hash, Meeting::agreed("127.0.0.1", 29500, "tp", "a", 2, None).hash);
        for other in [
            Meeting::agreed("localhost", 29500, "tp", "a", 2, None),
            Meeting::agreed("127.0.0.1", 29501, "tp", "a", 2, None),
            Meeting::agreed("127.0.0.1", 29500, "pp", "a", 2, None),
            Meeting::agreed("127.0.0.1", 29500, "tp", "b", 2, None),
            Meeting::agreed("127.0.0.1", 29500, "tp", "a", 3, None),
            Meeting::agreed("127.0.0.1", 29500, "t", "pa", 2, None),
        ] {
            assert_ne!(here.hash, other.hash, "{}", other.label);
        }
    }
}
