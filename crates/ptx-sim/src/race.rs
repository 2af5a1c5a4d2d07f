//! The race detector: which accesses to a word are not ordered by anything.
//!
//! Two accesses race when they overlap, one of them writes, neither happens before the other, and they are not both strong at
//! a scope that holds for both. What counts as order: a stream's, a block's barrier, a release and the acquire that reads it,
//! at a scope that holds for both. How the accesses came out in this run does not matter: a race is found though the
//! values were right.

use std::rc::Rc;

use crate::clock::{Clock, Moment, ThreadClock};
use crate::code::Scope;
use crate::report::{Access, Race, Report, Who};

/// Accesses are remembered for so many bytes together; which of them, a mask says.
const GRANULE: u64 = 4;
const PAGE: usize = 1024;
/// More races than this are counted and not listed.
const LISTED: usize = 16;

#[derive(Debug, Default)]
pub(crate) struct Detector {
    /// By granule / PAGE, made when first touched.
    pages: Vec<Option<Box<[Cell]>>>,
}

#[derive(Debug, Clone, Default)]
struct Cell {
    /// Accesses that may still race with one to come.
    writes: Vec<Remembered>,
    /// Many threads may read a word that nobody writes: a read looks at the writes only.
    reads: Vec<Remembered>,
    /// At this many reads those that no longer matter are dropped.
    full: usize,
    /// The word's last store, if it was a release.
    released: Option<Released>,
}

#[derive(Debug, Clone)]
struct Released {
    told: Rc<Clock>,
    by: Moment,
    scope: Scope,
}

#[derive(Debug, Clone, Copy)]
struct Remembered {
    moment: Moment,
    line: u32,
    mask: u8,
    writes: bool,
    strong: Option<Scope>,
}

impl Remembered {
    fn access(&self) -> Access {
        let block = self.moment.block;
        let device = block.stream as usize;
        let who = Who { device, work: block.work, block: block.block, thread: self.moment.thread };
        Access { who, line: self.line, writes: self.writes }
    }

    fn conflicts_with(&self, other: &Remembered) -> bool {
        let is_ordered_by_hardware = match (self.strong, other.strong) {
            (Some(a), Some(b)) => {
                holds_for_both(a, &self.moment, &other.moment)
                    && holds_for_both(b, &self.moment, &other.moment)
            }
            _ => false,
        };
        self.mask & other.mask != 0 && (self.writes || other.writes) && !is_ordered_by_hardware
    }
}

fn holds_for_both(scope: Scope, a: &Moment, b: &Moment) -> bool {
    match scope {
        Scope::System => true,
        Scope::Device => a.block.stream == b.block.stream,
        Scope::Block => a.block == b.block,
    }
}

/// What is accessed, by whom, how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Touch {
    pub(crate) place: u64,
    pub(crate) bytes: u64,
    pub(crate) line: u32,
    pub(crate) writes: bool,
    pub(crate) strong: Option<Scope>,
    /// Reads and writes at once: what the word's last release told is still told.
    pub(crate) is_atomic: bool,
}

impl Detector {
    /// Remembers an access, and reports what it races with.
    pub(crate) fn touch(&mut self, touch: Touch, clock: &ThreadClock, report: &mut Report) {
        let end = touch.place + touch.bytes;
        let mut place = touch.place;
        while place < end {
            let granule = place / GRANULE;
            let next = ((granule + 1) * GRANULE).min(end);
            let first = place - granule * GRANULE;
            let mask = (((1_u16 << (next - place)) - 1) << first) as u8;
            let new = Remembered {
                moment: clock.now(),
                line: touch.line,
                mask,
                writes: touch.writes,
                strong: touch.strong,
            };
            let cell = self.cell(granule);
            cell.touch(new, place, clock, report);
            if touch.writes && !touch.is_atomic {
                cell.released = None;
            }
            place = next;
        }
    }

    /// Reports an access to a word of the host's that is not strong at system scope: the host may access it at the same time.
    pub(crate) fn touch_outside(touch: Touch, clock: &ThreadClock, report: &mut Report) {
        let (moment, Touch { line, writes, strong, .. }) = (clock.now(), touch);
        let access = Remembered { moment, line, mask: 0, writes, strong }.access();
        report.race_count += 1;
        if report.races.len() < LISTED {
            report.races.push(Race { place: touch.place, first: access, second: access });
        }
    }

    /// The store of the word just touched was a release: who acquires it will know this.
    pub(crate) fn release(&mut self, place: u64, told: Rc<Clock>, by: Moment, scope: Scope) {
        self.cell(place / GRANULE).released = Some(Released { told, by, scope });
    }

    /// What an acquire load of the word learns.
    pub(crate) fn acquired(&mut self, place: u64, by: Moment, scope: Scope) -> Option<Rc<Clock>> {
        let released = self.cell(place / GRANULE).released.as_ref()?;
        let holds =
            holds_for_both(scope, &by, &released.by) && holds_for_both(released.scope, &by, &released.by);
        holds.then(|| Rc::clone(&released.told))
    }

    fn cell(&mut self, granule: u64) -> &mut Cell {
        let granule = granule as usize;
        let (page, index) = (granule / PAGE, granule % PAGE);
        if page >= self.pages.len() {
            self.pages.resize_with(page + 1, || None);
        }
        let cells = self.pages[page].get_or_insert_with(|| vec![Cell::default(); PAGE].into_boxed_slice());
        &mut cells[index]
    }
}

impl Cell {
    fn touch(&mut self, new: Remembered, place: u64, clock: &ThreadClock, report: &mut Report) {
        keep_what_matters(&mut self.writes, &new, place, clock, report);
        if new.writes {
            keep_what_matters(&mut self.reads, &new, place, clock, report);
            self.writes.push(new);
            return;
        }
        if self.reads.len() >= self.full {
            keep_what_matters(&mut self.reads, &new, place, clock, report);
            self.full = 2 * self.reads.len() + 8;
        }
        self.reads.push(new);
    }
}

/// Reports those that race with the new access, and drops those with which nothing can race that does not race with it.
fn keep_what_matters(
    olds: &mut Vec<Remembered>,
    new: &Remembered,
    place: u64,
    clock: &ThreadClock,
    report: &mut Report,
) {
    olds.retain(|old| {
        let is_before = clock.is_after(&old.moment);
        if !is_before && old.conflicts_with(new) {
            report.race_count += 1;
            if report.races.len() < LISTED {
                report.races.push(Race { place, first: old.access(), second: new.access() });
            }
        }
        let is_covered = old.mask & !new.mask == 0 && (new.writes || !old.writes);
        let is_as_weak = new.strong <= old.strong;
        !(is_before && is_covered && is_as_weak)
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::BlockId;

    fn thread(stream: u32, thread: u32) -> ThreadClock {
        ThreadClock::new(Rc::new(Clock::new(2)), BlockId { stream, work: 0, block: 0 }, thread)
    }

    fn touch(place: u64, bytes: u64, writes: bool) -> Touch {
        Touch { place, bytes, line: 1, writes, strong: None, is_atomic: false }
    }

    fn races(touches: &[(&ThreadClock, Touch)]) -> u64 {
        let (mut detector, mut report) = (Detector::default(), Report::default());
        for (clock, touch) in touches {
            detector.touch(*touch, clock, &mut report);
        }
        report.race_count
    }

    #[test]
    fn two_reads_do_not_race_and_neighbours_do_not() {
        let (a, b) = (thread(0, 0), thread(1, 0));
        assert_eq!(races(&[(&a, touch(0, 4, false)), (&b, touch(0, 4, false))]), 0);
        assert_eq!(races(&[(&a, touch(0, 2, true)), (&b, touch(2, 2, true))]), 0);
        assert_eq!(races(&[(&a, touch(0, 4, true)), (&b, touch(0, 4, false))]), 1);
        assert_eq!(races(&[(&a, touch(0, 4, false)), (&b, touch(2, 1, true))]), 1);
        assert_eq!(races(&[(&a, touch(0, 16, true)), (&b, touch(8, 16, true))]), 2);
    }

    #[test]
    fn strong_accesses_race_only_beyond_their_scope() {
        let strong = |scope| Touch { strong: Some(scope), ..touch(0, 4, true) };
        let (a, b, c) = (thread(0, 0), thread(1, 0), thread(0, 1));
        assert_eq!(races(&[(&a, strong(Scope::System)), (&b, strong(Scope::System))]), 0);
        assert_eq!(races(&[(&a, strong(Scope::Device)), (&b, strong(Scope::System))]), 1);
        assert_eq!(races(&[(&a, strong(Scope::Device)), (&c, strong(Scope::Device))]), 0);
        assert_eq!(races(&[(&a, strong(Scope::System)), (&b, touch(0, 4, false))]), 1);
    }

    #[test]
    fn a_release_orders_only_whom_its_scope_holds_for() {
        for (scope, expected) in [(Scope::System, 0), (Scope::Device, 1)] {
            let (mut a, mut b) = (thread(0, 0), thread(1, 0));
            let (mut detector, mut report) = (Detector::default(), Report::default());
            detector.touch(touch(0, 4, true), &a, &mut report);
            let by = a.now();
            detector.release(64, a.release(), by, scope);
            if let Some(told) = detector.acquired(64, b.now(), Scope::System) {
                b.acquire(&told);
            }
            detector.touch(touch(0, 4, false), &b, &mut report);
            assert_eq!(report.race_count, expected);
        }
    }
}
