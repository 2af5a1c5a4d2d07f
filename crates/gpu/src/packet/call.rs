//! What a launch is told: the mirror of `PacketCall` in `kernels/packet_words.h`.

use crate::layout::MAX_RANKS;

/// Bytes of what a rank's calls have in common (`PacketProgress`): the number of the next call first.
pub(super) const PROGRESS_BYTES: usize = 16;

/// What a launch is told. Addresses are the device's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) input: u64,
    pub(super) output: u64,
    pub(super) elements: u64,
    /// Words of the longest slice.
    pub(super) longest: u64,
    pub(super) patience: u64,
    pub(super) overdue: u64,
    pub(super) progress: u64,
    pub(super) scratch: [u64; MAX_RANKS],
    /// Words of a slot.
    pub(super) slot: u64,
    pub(super) outgoing: u64,
    pub(super) incoming: u64,
    pub(super) doorbell: u64,
    pub(super) stop: u64,
    /// Words of a put.
    pub(super) put: u64,
    pub(super) ranks: u32,
    pub(super) local: u32,
    pub(super) node: u32,
    pub(super) sum: u32,
}

impl Call {
    /// As the kernels' one parameter.
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let head = [
            self.input,
            self.output,
            self.elements,
            self.longest,
            self.patience,
            self.overdue,
            self.progress,
        ];
        let far = [self.slot, self.outgoing, self.incoming, self.doorbell, self.stop, self.put];
        let longs = head.iter().chain(&self.scratch).chain(&far);
        let mut bytes: Vec<u8> = longs.flat_map(|word| word.to_le_bytes()).collect();
        bytes
            .extend([self.ranks, self.local, self.node, self.sum].iter().flat_map(|word| word.to_le_bytes()));
        bytes
    }
}

/// The number after this one: never 0, which is what a word holds that was never written, and always of the other parity.
pub(super) fn next_number(number: u32) -> u32 {
    number.checked_add(1).unwrap_or(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_never_zero_and_alternate_also_where_they_wrap() {
        let mut number = u32::MAX - 2;
        for expected in [u32::MAX - 1, u32::MAX, 2, 3] {
            let next = next_number(number);
            assert_eq!((next, next % 2), (expected, 1 - number % 2));
            number = next;
        }
    }
}
