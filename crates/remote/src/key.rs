//! The key of a queue and the tags made with it.
//!
//! Whoever has the key may read the queue and is believed; whoever has not is neither. The one invariant that matters:
//! **a tag is compared in a time that does not depend on it**, and the key is never printed.

use std::fmt;

use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::error::{Error, Result};

/// Bytes of a tag: an HMAC-SHA256.
pub const TAG_BYTES: usize = 32;

pub(crate) type Tag = [u8; TAG_BYTES];

/// A queue's key, drawn for it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key([u8; 32]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(not shown)")
    }
}

impl Key {
    /// A new key from the system's source of randomness.
    ///
    /// # Errors
    /// [`Error::System`] if there is none.
    pub fn random() -> Result<Key> {
        Ok(Key(random()?))
    }

    /// The key of these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Key {
        Key(bytes)
    }

    /// Its bytes, for readers that are not of this library. Whoever has them may read the queue.
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0
    }

    /// The tag of these parts, one after the other.
    pub(crate) fn tag(&self, parts: &[&[u8]]) -> Tag {
        self.over(parts).finalize().into_bytes().into()
    }

    pub(crate) fn is_tag_of(&self, tag: &[u8], parts: &[&[u8]]) -> bool {
        self.over(parts).verify_slice(tag).is_ok()
    }

    fn over(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        // HMAC fills shorter keys up to the block with zeros; done here, there is no length that could be refused.
        let mut block = [0; 64];
        block[..32].copy_from_slice(&self.0);
        let mut mac = <Hmac<Sha256> as hmac::digest::KeyInit>::new(&block.into());
        parts.iter().for_each(|part| mac.update(part));
        mac
    }
}

/// Sixteen or more bytes that nobody can guess.
pub(crate) fn random<const N: usize>() -> Result<[u8; N]> {
    unisono_os::random::bytes::<N>()
        .map_err(|error| Error::System { doing: "drawing random bytes", problem: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_those_of_the_standard() {
        // RFC 4231, test case 2, has a shorter key; this one was computed with Python's hmac.
        let key = Key::from_bytes([7; 32]);
        let tag = key.tag(&[b"uni", b"sono"]);
        let hex: String = tag.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "f8f66e87318c179cd8a927922acee5d4ab8df899ff8475aeb408fd46ea8b0647");
        assert!(key.is_tag_of(&tag, &[b"unisono"]) && !key.is_tag_of(&tag[..31], &[b"unisono"]));
        assert!(!Key::from_bytes([8; 32]).is_tag_of(&tag, &[b"unisono"]));
        assert_eq!(format!("{key:?}"), "Key(not shown)");
    }
}
