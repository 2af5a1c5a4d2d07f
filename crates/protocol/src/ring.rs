//! A ring of bytes from one writer to many readers: positions, bells and records.
//!
//! ```text
//!            slowest reader            writer
//!   ring  ──────┴──── records ────────────┴─────── free ───────►  positions count bytes and never wrap
//! ```
//!
//! The writer's [`Position`] says up to where records are written, each reader's up to where it needs them no more. Both
//! only move forward; whoever has seen a position move has seen everything that its owner did before. The writer
//! writes only what lies within one ring's length of the slowest reader.
//!
//! Who has nothing to do goes to sleep at a [`Bell`]: it announces it, looks once more, and sleeps. Who moves a position
//! looks at the bells after it has done so. Between *moving and looking at the bell* here and *announcing and looking
//! again* there lies a full fence on both sides, so at least one of the two sees the other, and no wake-up is lost; and
//! where nobody sleeps nothing is written but the position.

use crate::atomics::{AtomicU32, AtomicU64, Ordering, fence};
use crate::waiting::{Turn, Wait};
use crate::word::Futex;

/// How far one side has come, in bytes since the beginning. It has one writer. Zero-filled memory is a valid position.
#[derive(Debug)]
#[repr(transparent)]
pub struct Position(AtomicU64);

impl Position {
    /// A position at `bytes`.
    pub fn new(bytes: u64) -> Self {
        Position(AtomicU64::new(bytes))
    }

    /// See how far its owner has come, and with it everything it did before (acquire; pairs with [`Position::publish`]).
    #[inline]
    pub fn look(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Move on. The bells of all who may wait for this are to be [rung](Bell::ring) next.
    ///
    /// Release: whoever sees it sees everything done before. The fence pairs with the one in [`Bell::sleep_unless`]:
    /// either the sleeper's second look sees this position, or the look at its bell that follows here sees it asleep.
    #[inline]
    pub fn publish(&self, bytes: u64) {
        self.0.store(bytes, Ordering::Release);
        fence(Ordering::SeqCst);
    }
}

const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;

/// The word at which one thread sleeps and others wake it. Zero-filled memory is a valid bell.
#[derive(Debug)]
#[repr(transparent)]
pub struct Bell(AtomicU32);

impl Default for Bell {
    fn default() -> Self {
        Bell(AtomicU32::new(AWAKE))
    }
}

impl Bell {
    /// Wake whoever sleeps here because of what was changed before the last [`Position::publish`] or [`Bell::settle`].
    #[inline]
    pub fn ring(&self, futex: &impl Futex) {
        if self.0.load(Ordering::Relaxed) != AWAKE {
            self.wake(futex);
        }
    }

    /// Order a change of anything that a sleeper looks at before the bells that are rung next.
    #[inline]
    pub fn settle() {
        fence(Ordering::SeqCst);
    }

    #[cold]
    fn wake(&self, futex: &impl Futex) {
        // AcqRel: one of several who ring takes the announcement out, and wakes.
        if self.0.swap(AWAKE, Ordering::AcqRel) != AWAKE {
            futex.wake_all(&self.0);
        }
    }

    /// As [`Bell::ring`], and wake in any case: for news of a death or of an end. Whoever rang last may have died after it took
    /// the announcement out and before it woke; the sleeper it left behind looks awake to [`Bell::ring`].
    #[cold]
    pub fn wake_always(&self, futex: &impl Futex) {
        // AcqRel, as in `wake`.
        self.0.swap(AWAKE, Ordering::AcqRel);
        futex.wake_all(&self.0);
    }

    /// Announce it, look once more, and sleep unless `is_over` says that there is nothing more to wait for. Only the one
    /// thread whose bell it is calls this. It may return early for any reason.
    pub fn sleep_unless(&self, is_over: impl FnOnce() -> bool, futex: &mut impl Futex) {
        // A swap, so that it comes after every wake-up so far: a later one cannot be taken for one of those.
        self.0.swap(ASLEEP, Ordering::AcqRel);
        // Pairs with the fence in `publish` and `settle`.
        fence(Ordering::SeqCst);
        if !is_over() {
            futex.sleep_while(&self.0, ASLEEP);
        }
        // If nobody rang: the next who would needs no system call. The caller looks again anyway.
        self.0.swap(AWAKE, Ordering::AcqRel);
    }
}

/// Wait at `bell` until `look` finds something; `None` if `wait` gives up before. `look` is asked once more after every
/// sleep, and after giving up: it may have come meanwhile.
#[inline]
pub fn wait_at<T>(bell: &Bell, mut look: impl FnMut() -> Option<T>, wait: &mut impl Wait) -> Option<T> {
    wait.begin();
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        match wait.turn(1) {
            Turn::LookAgain => {}
            Turn::Sleep => bell.sleep_unless(|| look().is_some(), wait),
            Turn::GiveUp => return look(),
        }
    }
}

/// Bytes of a record's head.
pub const RECORD_HEAD: u64 = 8;
/// Records begin at multiples of this.
pub const RECORD_ALIGNMENT: u64 = 8;
/// The contents of larger records begin at a cache line.
const LINE: u64 = 64;
const LARGE: u64 = 256;
/// Where in a head the last six bits of the message's number are.
const NUMBER_AT: u32 = 58;

/// Where the contents of a message are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// In the record.
    Inline,
    /// Elsewhere; the record says where.
    Elsewhere,
}

/// One record of the ring: a head of eight bytes, padding, contents, and what is missing to a multiple of eight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where the message is.
    pub kind: Kind,
    /// Bytes between head and contents.
    pub padding: u64,
    /// Bytes of the contents.
    pub bytes: u64,
}

impl Record {
    const BYTES: u64 = (1 << 48) - 1;

    /// The record of `bytes` bytes that begins at `position`.
    #[inline]
    pub const fn at(position: u64, kind: Kind, bytes: u64) -> Self {
        let contents = position.wrapping_add(RECORD_HEAD);
        let padding = if bytes >= LARGE { contents.wrapping_neg() % LINE } else { 0 };
        Record { kind, padding, bytes }
    }

    /// From the beginning of the record to its contents.
    #[inline]
    pub const fn contents(self) -> u64 {
        RECORD_HEAD + self.padding
    }

    /// From the beginning of the record to that of the next.
    #[inline]
    pub const fn len(self) -> u64 {
        (self.contents() + self.bytes).next_multiple_of(RECORD_ALIGNMENT)
    }

    /// A record is never empty: it has its head.
    pub const fn is_empty(self) -> bool {
        false
    }

    /// The head, as it stands in the ring; with the last bits of the message's number, for whoever nearly knows it.
    #[inline]
    pub const fn pack(self, number: u64) -> u64 {
        let kind = match self.kind {
            Kind::Inline => 1,
            Kind::Elsewhere => 2,
        };
        (number << NUMBER_AT) | (kind << 56) | (self.padding << 48) | self.bytes
    }

    /// The number of the message in the record with this head: the one next to `guess` that ends as the head says.
    pub const fn number(head: u64, guess: u64) -> u64 {
        // How much further round it is, in bits that count from the top; as a signed number it is the shorter way.
        let further = (head >> NUMBER_AT << NUMBER_AT).wrapping_sub(guess << NUMBER_AT);
        guess.wrapping_add_signed(further.cast_signed() >> NUMBER_AT)
    }

    /// The record whose head this is, if it is one and ends within `available` bytes of its beginning.
    #[inline]
    pub const fn unpack(head: u64, available: u64) -> Option<Self> {
        let kind = match (head >> 56) & 3 {
            1 => Kind::Inline,
            2 => Kind::Elsewhere,
            _ => return None,
        };
        let record = Record { kind, padding: (head >> 48) & 0xff, bytes: head & Self::BYTES };
        // No overflow: 48 bits of length and 8 of padding.
        if record.len() <= available { Some(record) } else { None }
    }
}

/// How much of the ring is unread, given where the other side was last seen and what it shows now: `None` if it went
/// backwards or further than the ring allows, which no sound peer does.
///
/// For a reader `behind` is its own position and `ahead` the writer's; for the writer the other way round.
#[inline]
pub const fn unread(behind: u64, ahead: u64, ring: u64) -> Option<u64> {
    match ahead.checked_sub(behind) {
        Some(unread) if unread <= ring => Some(unread),
        _ => None,
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use core::cell::Cell;

    #[test]
    fn every_record_can_be_read_again_and_is_bounded() {
        for bytes in [0, 1, 7, 8, 9, 64, 255, 256, 257, 4096, 1 << 30, Record::BYTES] {
            for position in (0..256).step_by(8) {
                let record = Record::at(position, Kind::Inline, bytes);
                let number = position * 7 + bytes;
                let head = record.pack(number);
                assert_eq!(Record::unpack(head, record.len()), Some(record));
                assert_eq!(Record::unpack(head, record.len() - 1), None);
                for guess in number.saturating_sub(31)..number + 32 {
                    assert_eq!(Record::number(head, guess), number, "guessed {guess}");
                }
                assert!(record.len() >= bytes + RECORD_HEAD && record.len() < bytes + RECORD_HEAD + 72);
                assert!(record.len().is_multiple_of(RECORD_ALIGNMENT));
                if bytes >= LARGE {
                    assert!((position + record.contents()).is_multiple_of(LINE));
                }
            }
        }
    }

    #[test]
    fn garbage_is_no_record_or_a_bounded_one() {
        let mut state = 1u64;
        for _ in 0..100_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            for head in [state, state >> 20, (state & !(7 << 56)) | (1 << 56)] {
                if let Some(record) = Record::unpack(head, 4096) {
                    assert!(record.contents() + record.bytes <= 4096);
                }
            }
        }
        assert_eq!(Record::unpack(0, u64::MAX), None);
    }

    #[test]
    fn positions_that_cannot_be_are_told() {
        assert_eq!(unread(5, 5, 8), Some(0));
        assert_eq!(unread(5, 13, 8), Some(8));
        assert_eq!(unread(5, 14, 8), None);
        assert_eq!(unread(5, 4, 8), None);
        assert_eq!(unread(0, u64::MAX, 8), None);
    }

    struct Counting(Cell<usize>, Cell<usize>);

    impl Futex for Counting {
        fn sleep_while(&mut self, _word: &AtomicU32, _expected: u32) {
            self.1.set(self.1.get() + 1);
        }
        fn wake_all(&self, _word: &AtomicU32) {
            self.0.set(self.0.get() + 1);
        }
    }

    #[test]
    fn a_bell_wakes_only_who_sleeps_and_nobody_sleeps_on_what_is_over() {
        let (bell, mut futex) = (Bell::default(), Counting(Cell::new(0), Cell::new(0)));
        bell.ring(&futex);
        bell.sleep_unless(|| true, &mut futex);
        assert_eq!((futex.0.get(), futex.1.get()), (0, 0));
        bell.sleep_unless(|| false, &mut futex);
        assert_eq!(futex.1.get(), 1);
        bell.0.store(ASLEEP, Ordering::Relaxed);
        bell.ring(&futex);
        bell.ring(&futex);
        assert_eq!(futex.0.get(), 1);
        bell.wake_always(&futex);
        assert_eq!(futex.0.get(), 2, "somebody may sleep though the word says nobody does");
    }
}
