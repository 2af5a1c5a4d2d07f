//! What ranks tell one another of their memory, as bytes.

use super::error::PacketError;
use crate::driver::Handle;
use crate::error::Error;

/// Bytes of an offer: a handle, and seven numbers, little-endian.
const OFFER_BYTES: usize = 64 + 7 * 8;

/// What a rank tells the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Offer {
    /// Of the allocation in which the scratch lies; zeros if it needs none.
    pub(super) handle: Handle,
    /// Where in it.
    pub(super) offset: u64,
    /// What all have to say alike: ranks, ranks per node, how sums are formed, the number of the first call.
    pub(super) alike: [u64; 4],
    /// Words of a slot.
    pub(super) slot: u64,
    /// Words of a put.
    pub(super) put: u64,
}

impl Offer {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.handle.to_vec();
        for number in [self.offset].iter().chain(&self.alike).chain([&self.slot, &self.put]) {
            bytes.extend(number.to_le_bytes());
        }
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let wrong = || Error::Count { what: "bytes of an offer", expected: OFFER_BYTES, found: bytes.len() };
        let bytes: &[u8; OFFER_BYTES] = bytes.try_into().map_err(|_| wrong())?;
        let mut handle = [0; 64];
        handle.copy_from_slice(&bytes[..64]);
        let mut words = [0; 7];
        for (word, chunk) in words.iter_mut().zip(bytes[64..].chunks_exact(8)) {
            *word = chunk.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        }
        let [offset, world, ranks, sum, first, slot, put] = words;
        Ok(Self { handle, offset, alike: [world, ranks, sum, first], slot, put })
    }

    /// Whether the rank says the same as this one.
    pub(super) fn check_alike(&self, rank: usize, ours: [u64; 4]) -> Result<(), PacketError> {
        const WHAT: [&str; 4] =
            ["number of ranks", "number of ranks per node", "way of forming sums", "first call"];
        let mut pairs = WHAT.iter().zip(ours.into_iter().zip(self.alike));
        match pairs.find(|(_, (ours, theirs))| ours != theirs) {
            Some((what, (ours, theirs))) => Err(PacketError::Differs { what, rank, ours, theirs }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_is_its_bytes() {
        let offer = Offer { handle: [3; 64], offset: 1 << 40, alike: [8, 4, 1, 7], slot: 5, put: 6 };
        assert_eq!(Offer::from_bytes(&offer.to_bytes()), Ok(offer.clone()));
        assert!(Offer::from_bytes(&offer.to_bytes()[1..]).is_err());
        let differs = PacketError::Differs { what: "way of forming sums", rank: 3, ours: 2, theirs: 1 };
        assert_eq!(offer.check_alike(3, [8, 4, 2, 7]), Err(differs));
    }
}
