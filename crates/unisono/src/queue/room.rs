//! How a writer waits for room: until every reader, in this memory and elsewhere, has passed what it keeps occupied.
//!
//! The one invariant that matters: **a wait ends with room, with the time, or with news**: of a reader that is gone, or that it
//! was ended; and whoever was waited for is named.

use std::sync::Arc;
use std::time::Duration;

use unisono_protocol::ring::wait_at;

use super::elsewhere::{Outlet, Waited};
use super::error::{Error, ReaderStatus, Result, WaitedFor};
use super::guest::{Guest, Occupant, Why};
use super::hall::Seat;
use super::wait::{Begun, Due, Patience, Waiting};
use super::writer::Writer;

const OPERATION: &str = "send";

impl Writer {
    /// Up to where all must have read before `room` more bytes may be written.
    #[inline]
    fn target(&mut self, room: u64) -> u64 {
        let space = (self.head + room).saturating_sub(self.hall.memory.ring_bytes());
        let Some(most) = self.limits.max_chunks else { return space };
        while self.unread.front().is_some_and(|end| *end <= self.slowest) {
            self.unread.pop_front();
        }
        match self.unread.len().checked_sub(most) {
            Some(too_many) => space.max(self.unread.get(too_many).copied().unwrap_or(0)),
            None => space,
        }
    }

    /// Wait until a record of `room` bytes may be written.
    #[inline]
    pub(super) fn wait_for_room(&mut self, room: u64, timeout: Option<Duration>) -> Result<()> {
        let target = self.target(room);
        if self.slowest >= target {
            return Ok(());
        }
        self.wait_for_readers(target, timeout)
    }

    #[cold]
    pub(super) fn wait_for_readers(&mut self, target: u64, timeout: Option<Duration>) -> Result<()> {
        let attempt = |writer: &mut Writer, limit, begun| {
            let Some(behind) = writer.find_behind(target) else { return Waited::ThereIsRoom };
            match writer.wait_for(behind.as_deref(), target, limit, begun) {
                true => Waited::Roused,
                false => Waited::TimeIsUp,
            }
        };
        self.wait_patiently(timeout, attempt, |writer| writer.those_behind(target)).map(drop)
    }

    /// Wait until readers elsewhere, if there are any, have room for a message of `bytes` bytes; gives the time that is left.
    #[inline]
    pub(super) fn wait_for_those_elsewhere(
        &mut self,
        bytes: u64,
        timeout: Option<Duration>,
    ) -> Result<Option<Duration>> {
        if self.hall.outlet.is_none() { Ok(timeout) } else { self.wait_for_outlet(bytes, timeout) }
    }

    #[cold]
    fn wait_for_outlet(&mut self, bytes: u64, timeout: Option<Duration>) -> Result<Option<Duration>> {
        let attempt = |writer: &mut Writer, limit, begun| {
            let (hall, seen) = (&*writer.hall, writer.view.generation);
            let is_over = || hall.generation() != seen || hall.ends.check(begun, OPERATION).is_err();
            let outlet = hall.outlet.as_ref();
            outlet.map_or(Waited::ThereIsRoom, |outlet| outlet.wait_for_room(bytes, limit, is_over))
        };
        let behind = |writer: &Writer| writer.hall.outlet.iter().flat_map(Outlet::behind).collect();
        let waited = self.wait_patiently(timeout, attempt, behind)?;
        Ok(timeout.map(|timeout| timeout.saturating_sub(waited)))
    }

    /// Attempt again and again until there is room, the time is up, the wait is ended or there is trouble. It is said in the log
    /// when that takes long, and for whom. Gives how long it took.
    fn wait_patiently(
        &mut self,
        timeout: Option<Duration>,
        attempt: impl Fn(&mut Writer, Duration, Begun) -> Waited,
        behind: impl Fn(&Writer) -> Vec<ReaderStatus>,
    ) -> Result<Duration> {
        let begun = self.hall.ends.begin();
        let mut patience = Patience::new(timeout, self.limits.warn_interval);
        loop {
            self.look_at_seats()?;
            match attempt(self, patience.limit(), begun) {
                Waited::ThereIsRoom => return Ok(patience.waited()),
                Waited::Roused => {
                    self.hall.ends.check(begun, OPERATION)?;
                    continue;
                }
                // Unless somebody came in its place meanwhile.
                Waited::SomebodyIsGone => match self.hall.take_trouble(&mut self.hall.seats()) {
                    Some(trouble) => return Err(trouble),
                    None => continue,
                },
                Waited::TimeIsUp => {}
            }
            match patience.due() {
                Due::Nothing => {}
                Due::Warning(waited) => self.warn(OPERATION, waited),
                Due::Error(waited) => {
                    let waited_for = WaitedFor::Readers(behind(self));
                    return Err(Error::Timeout { operation: OPERATION, waited, waited_for });
                }
            }
        }
    }

    /// Look where everybody stands. Somebody who is behind `target`, if anybody is: a guest, or `Some(None)` for one who is
    /// not there and for whom messages are kept.
    pub(super) fn find_behind(&mut self, target: u64) -> Option<Option<Arc<Guest>>> {
        let mut slowest = self.view.kept.unwrap_or(self.head);
        let mut behind = (slowest < target).then_some(None);
        let mut broken = None;
        for guest in &self.view.present {
            match self.hall.position_of(guest, || self.head) {
                Some(position) if position < slowest => {
                    slowest = position;
                    behind = (position < target).then(|| Some(Arc::clone(guest)));
                }
                Some(_) => {}
                None => broken = Some(Arc::clone(guest)),
            }
        }
        if let Some(guest) = broken {
            // The next look at the seats says so, or goes on without it.
            self.hall.has_gone(&guest, Why::Broken);
            return Some(Some(guest));
        }
        self.slowest = slowest;
        behind
    }

    /// Sleep until the guest has passed `target`, the seats change, or the wait is ended; `false` if `limit` passed first.
    fn wait_for(&mut self, guest: Option<&Guest>, target: u64, limit: Duration, begun: Begun) -> bool {
        let (hall, seen) = (&*self.hall, self.view.generation);
        let is_over = || hall.generation() != seen || hall.ends.check(begun, OPERATION).is_err();
        let mut waiting = Waiting::new(&mut self.cadence, self.limits.crowded, Some(limit));
        let found = match guest {
            Some(guest) => {
                let tail = &guest.memory.page().tail;
                let look = || (tail.position.look() >= target || is_over()).then_some(());
                wait_at(&tail.space, look, &mut waiting)
            }
            None => wait_at(&hall.lobby, || is_over().then_some(()), &mut waiting),
        };
        found.is_some()
    }

    fn those_behind(&self, target: u64) -> Vec<ReaderStatus> {
        let is_behind = |seat: &Seat| match &seat.occupant {
            Occupant::Present(guest) => guest.memory.page().tail.position.look() < target,
            Occupant::Awaited => true,
            Occupant::Gone(departure) => departure.resume.is_some(),
        };
        self.hall.statuses_of(is_behind)
    }

    /// Somebody has been waited for for long: say for whom, and what they do.
    pub(super) fn warn(&self, operation: &'static str, waited: Duration) {
        let readers = WaitedFor::Readers(self.readers());
        tracing::warn!(queue = self.handle.name(), "{operation} has waited for {waited:.0?}: {readers}");
    }
}
