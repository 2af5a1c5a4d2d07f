//! The words that a rank's kernels share with its carrier, and how what arrives becomes words.
//!
//! The invariant: nothing is believed. A word of the kernel's counts if it has the call's number; a part from the other node, if it is
//! the next and fits.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::call::next_number;
use super::host_words::HostWords;
use crate::error::Error;

/// Where things lie in the words that kernel and host share.
pub(super) const DOORBELL: usize = 0;
const STOP: usize = 16;
const OUTGOING: usize = 32;
/// Words of a part.
pub(super) const PART_WORDS: usize = 4096;
/// A bell so far ahead is none: nobody launches so many calls that put nothing while a thread does not run.
const MOST_AHEAD: u32 = 1 << 20;
/// Bytes before a part's data: the call's number, the first word, how many words the call has.
pub(super) const HEADER_BYTES: usize = 12;
/// Why nothing will come any more, as the kernels know it.
pub(super) const PEER_LEFT: u64 = 1;
pub(super) const LINK_LOST: u64 = 2;

/// The words that a rank's kernels and its carrier share.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    words: Arc<HostWords>,
    /// Words that can be put at a time.
    pub(super) put: usize,
    /// How far apart the words are that are written anew with every call.
    slot: usize,
}

impl Shared {
    pub(super) fn new(put: usize, slot: usize) -> Result<Self, Error> {
        Ok(Self { words: Arc::new(HostWords::new(OUTGOING + 4 * put)?), put, slot })
    }

    pub(super) fn words(&self) -> &Arc<HostWords> {
        &self.words
    }

    /// As the device sees them, if it sees the first at `address`: what is put, what has come, the bell, the stop.
    pub(super) fn addresses(&self, address: u64) -> [u64; 4] {
        [OUTGOING, OUTGOING + 2 * self.put, DOORBELL, STOP].map(|word| address + 8 * word as u64)
    }

    /// What the word of this index has, if it is of the call.
    pub(super) fn load(&self, index: usize, number: u32) -> Option<u32> {
        // Acquire, as the device's stores are at system scope; all that matters is in the word.
        let word = self.words.get(index)?.load(Ordering::Acquire);
        ((word >> 32) as u32 == number).then_some(word as u32)
    }

    /// How many words the kernel of a call puts, once it has rung.
    ///
    /// For a call that puts none nobody waits, so the kernels may have rung for later ones before this thread has looked: the bell
    /// of the next but one says that this one has put nothing. Of a call that puts words the opposite rank's results are made,
    /// and the call after it ends with those.
    pub(super) fn rung(&self, number: u32) -> Option<u32> {
        // Acquire: as `load`.
        let word = self.words.get(DOORBELL + number as usize % 2)?.load(Ordering::Acquire);
        let found = (word >> 32) as u32;
        if found == number {
            return Some(word as u32);
        }
        // Numbers go around; 0 is none.
        let is_later = found != 0 && (1..=MOST_AHEAD).contains(&found.wrapping_sub(number));
        is_later.then_some(0)
    }

    pub(super) fn store(&self, index: usize, number: u32, data: u32) {
        if let Some(word) = self.words.get(index) {
            word.store(u64::from(number) << 32 | u64::from(data), Ordering::Release);
        }
    }

    pub(super) fn stop(&self, why: u64) {
        if let Some(word) = self.words.get(STOP) {
            // Release: a kernel that finds it finds what came before.
            word.fetch_max(why, Ordering::Release);
        }
    }

    /// What kernels find.
    #[cfg(test)]
    pub(super) fn stopped(&self) -> Option<u64> {
        Some(self.words.get(STOP)?.load(Ordering::Acquire))
    }

    pub(super) fn outgoing(&self, number: u32) -> usize {
        OUTGOING + number as usize % 2 * self.put
    }

    pub(super) fn incoming(&self, number: u32) -> usize {
        OUTGOING + (2 + number as usize % 2) * self.put
    }
}

/// What comes in, and how far it has come.
#[derive(Debug)]
pub(super) struct Inflow {
    /// The call of which the next part is.
    number: u32,
    /// The part's first word.
    first: usize,
    /// The word that is written anew though no message reaches it: see `refresh` in `kernels/packet.h`.
    refreshed: usize,
}

impl Inflow {
    /// From call `number` on.
    pub(super) fn new(number: u32) -> Self {
        Self { number, first: 0, refreshed: 0 }
    }

    /// Writes a part's words where the kernel waits for them; or says what is wrong with it.
    pub(super) fn take(&mut self, part: &[u8], shared: &Shared) -> Result<(), String> {
        let (header, data) = part.split_at_checked(HEADER_BYTES).ok_or("a part without a header came")?;
        let field =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (number, first, words) = (field(0), field(4) as usize, field(8) as usize);
        let count = data.len() / 4;
        let fits = data.len() % 4 == 0 && words <= shared.put && first + count <= words;
        if (number, first) != (self.number, self.first) || !fits || (count == 0 && words > 0) {
            return Err(format!(
                "{} bytes came for word {first} of {words} of call {number}; word {} of call {} was to come, and {} fit: do \
                 both nodes make the same calls?",
                data.len(),
                self.first,
                self.number,
                shared.put
            ));
        }
        let base = shared.incoming(number);
        for (index, data) in data.chunks_exact(4).enumerate() {
            shared.store(
                base + first + index,
                number,
                u32::from_le_bytes([data[0], data[1], data[2], data[3]]),
            );
        }
        self.first += count;
        if self.first == words {
            self.refresh(words, shared);
            (self.number, self.first) = (next_number(number), 0);
        }
        Ok(())
    }

    fn refresh(&mut self, words: usize, shared: &Shared) {
        let step = shared.slot.clamp(1, shared.put.max(1));
        for index in (self.refreshed..shared.put).step_by(step).filter(|index| *index >= words) {
            shared.store(shared.incoming(self.number) + index, self.number, 0);
        }
        if self.number % 2 == 1 {
            self.refreshed = (self.refreshed + 1) % step;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(number: u32, first: u32, words: u32, data: &[u32]) -> Vec<u8> {
        let header = [number, first, words];
        header.iter().chain(data).flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn parts_become_words_of_their_call_in_the_area_of_its_parity() {
        let shared = Shared::new(4, 4).unwrap();
        let mut inflow = Inflow::new(1);
        inflow.take(&part(1, 0, 3, &[7, 8]), &shared).unwrap();
        inflow.take(&part(1, 2, 3, &[9]), &shared).unwrap();
        inflow.take(&part(2, 0, 1, &[6]), &shared).unwrap();
        let odd = shared.incoming(1);
        assert_eq!(
            (0..4).map(|i| shared.load(odd + i, 1)).collect::<Vec<_>>(),
            [Some(7), Some(8), Some(9), None]
        );
        assert_eq!(shared.load(shared.incoming(2), 2), Some(6));
        // The second call's next word was written anew.
        assert_eq!(shared.load(shared.incoming(2) + 1, 2), Some(0));
    }

    #[test]
    fn a_part_that_is_not_the_next_or_does_not_fit_is_refused() {
        for wrong in [
            part(2, 0, 1, &[1]),
            part(1, 1, 2, &[1]),
            part(1, 0, 5, &[1]),
            part(1, 0, 1, &[1, 2]),
            part(1, 0, 2, &[]),
            part(1, 0, 1, &[1])[..15].to_vec(),
            vec![1],
        ] {
            let mut inflow = Inflow::new(1);
            assert!(inflow.take(&wrong, &Shared::new(4, 4).unwrap()).is_err(), "{wrong:?}");
        }
        let mut inflow = Inflow::new(1);
        inflow.take(&part(1, 0, 0, &[]), &Shared::new(4, 4).unwrap()).unwrap();
        assert_eq!(inflow.number, 2);
    }

    #[test]
    fn a_bell_that_was_rung_over_is_that_of_a_call_that_puts_nothing() {
        let shared = Shared::new(4, 4).unwrap();
        let ring = |number: u32, words| shared.store(DOORBELL + number as usize % 2, number, words);
        // Never rung, also where 0 is nearly next.
        assert_eq!((shared.rung(2), shared.rung(u32::MAX - 1)), (None, None));
        ring(4, 3);
        assert_eq!([2, 4, 6].map(|number| shared.rung(number)), [Some(0), Some(3), None]);
        ring(3, 1);
        // Around the end: 3 comes two calls after the last number.
        assert_eq!((shared.rung(u32::MAX), shared.rung(3), shared.rung(5)), (Some(0), Some(1), None));
        ring(1 << 30, 1);
        assert_eq!(shared.rung(2), None, "no call of this context");
    }

    #[test]
    fn no_word_keeps_an_old_number_for_ever() {
        let shared = Shared::new(6, 3).unwrap();
        let mut inflow = Inflow::new(1);
        inflow.take(&part(1, 0, 6, &[1; 6]), &shared).unwrap();
        for number in 2..10 {
            inflow.take(&part(number, 0, 1, &[1]), &shared).unwrap();
        }
        assert!((0..6).all(|i| shared.load(shared.incoming(1) + i, 1).is_none()));
    }
}
