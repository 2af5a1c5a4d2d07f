//! What a rank is doing, and why it stopped: written by the rank itself, read by the others for errors only.
//!
//! Readers may look at any moment, so each record carries its number twice over: the number is cleared,
//! the fields are written, the number is set. Whoever reads the same number before and after has read
//! one record whole. Every field is a plain number that the reader bounds before use.

use crate::atomics::{AtomicU32, AtomicU64, Ordering};

/// How many calls a rank's ring of records remembers.
pub const RECORDS: u64 = 8;

/// The payload of a call record: opaque here, packed and unpacked by the library.
pub type Fields = [u64; 4];

/// One call of a rank.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct CallRecord {
    /// The number of the call plus one; 0 while it is being written.
    number: AtomicU64,
    fields: [AtomicU64; 4],
}

impl CallRecord {
    /// Write the record of call `number`. Only the rank itself calls this.
    #[inline]
    pub fn write(&self, number: u64, fields: Fields) {
        // Release on the clearing store alone would let the fields move before it; the fields are releases, so
        // they stay behind the clearing, and the last store stays behind the fields. On x86 all are plain moves.
        self.number.store(0, Ordering::Relaxed);
        for (slot, field) in self.fields.iter().zip(fields) {
            slot.store(field, Ordering::Release);
        }
        self.number.store(number.wrapping_add(1), Ordering::Release);
    }

    /// The call that stands here, if it is whole: its number and fields.
    pub fn read(&self) -> Option<(u64, Fields)> {
        let before = self.number.load(Ordering::Acquire);
        // Acquire: the second look at the number stays behind these, and a field of a newer record brings
        // the clearing store before it with it (pairs with the releases in `write`).
        let fields = [0, 1, 2, 3].map(|i: usize| self.fields[i].load(Ordering::Acquire));
        let after = self.number.load(Ordering::Relaxed);
        (before != 0 && before == after).then(|| (before - 1, fields))
    }
}

/// The calls a rank made last.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Latest {
    ring: [CallRecord; RECORDS as usize],
    /// The newest call's number plus one, and, in the low bit, whether it has finished.
    newest: AtomicU64,
}

impl Latest {
    /// Note that call `number` begins.
    #[inline]
    pub fn begin(&self, number: u64, fields: Fields) {
        self.ring[(number % RECORDS) as usize].write(number, fields);
        self.newest.store(number.wrapping_add(1) << 1, Ordering::Release);
    }

    /// Note that call `number` has finished.
    #[inline]
    pub fn finish(&self, number: u64) {
        self.newest.store((number.wrapping_add(1) << 1) | 1, Ordering::Release);
    }

    /// How many calls have begun, as far as the numbers say.
    pub fn begun(&self) -> u64 {
        self.newest.load(Ordering::Acquire) >> 1
    }

    /// The newest call: its number, its fields and whether it finished.
    pub fn newest(&self) -> Option<(u64, Fields, bool)> {
        let newest = self.newest.load(Ordering::Acquire);
        let number = (newest >> 1).checked_sub(1)?;
        let fields = self.call(number)?;
        Some((number, fields, newest & 1 == 1))
    }

    /// Call `number`, if it is still remembered.
    pub fn call(&self, number: u64) -> Option<Fields> {
        let (found, fields) = self.ring[(number % RECORDS) as usize].read()?;
        (found == number).then_some(fields)
    }
}

/// Why a rank stopped the group: written once, before ABORT is set anywhere.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub struct CauseRecord {
    /// 0: none; 1: being written; else the kind of cause plus [`CauseRecord::FIRST_KIND`].
    kind: AtomicU32,
    fields: [AtomicU64; 12],
}

impl CauseRecord {
    const WRITING: u32 = 1;
    const FIRST_KIND: u32 = 2;

    /// Write the cause down, unless one stands already. Returns whether this one stands.
    ///
    /// `false` may come while the first is still being written by another thread. Threads that go on to set
    /// ABORT must therefore take turns, from here until ABORT is set, or a peer may see the ABORT of the second
    /// before the cause of the first.
    pub fn write(&self, kind: u32, fields: &[u64]) -> bool {
        if self.kind.compare_exchange(0, Self::WRITING, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return false;
        }
        // Relaxed: nobody reads them before the kind, and nobody else writes them.
        for (slot, field) in self.fields.iter().zip(fields) {
            slot.store(*field, Ordering::Relaxed);
        }
        // Release: pairs with the acquire in `read`.
        self.kind.store(kind.wrapping_add(Self::FIRST_KIND), Ordering::Release);
        true
    }

    /// The cause, if one was written: its kind and fields.
    pub fn read(&self) -> Option<(u32, [u64; 12])> {
        let kind = self.kind.load(Ordering::Acquire).checked_sub(Self::FIRST_KIND)?;
        Some((kind, core::array::from_fn(|i| self.fields[i].load(Ordering::Relaxed))))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_newest_call_and_whether_it_finished() {
        let latest = Latest::default();
        assert_eq!(latest.newest(), None);
        latest.begin(0, [1, 2, 3, 4]);
        assert_eq!(latest.newest(), Some((0, [1, 2, 3, 4], false)));
        latest.finish(0);
        latest.begin(1, [5, 6, 7, 8]);
        latest.finish(1);
        assert_eq!(latest.newest(), Some((1, [5, 6, 7, 8], true)));
        assert_eq!(latest.call(0), Some([1, 2, 3, 4]));
        assert_eq!(latest.begun(), 2);
        assert_eq!(latest.call(RECORDS), None);
    }

    #[test]
    fn the_first_cause_stands() {
        let cause = CauseRecord::default();
        assert_eq!(cause.read(), None);
        assert!(cause.write(3, &[7, 8]));
        assert!(!cause.write(4, &[9]));
        let (kind, fields) = cause.read().unwrap();
        assert_eq!((kind, fields[0], fields[1], fields[2]), (3, 7, 8, 0));
    }
}
