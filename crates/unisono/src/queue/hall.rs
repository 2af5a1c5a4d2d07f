//! The readers of a queue as its writer knows them: who has which rank, who is gone, and how far each has come.
//!
//! Shared between the writer, its host thread, which lets readers in, and the marker, which hears of deaths. The writer keeps a
//! [`View`] of its own, so that it takes the lock only when something has changed. The one invariant that matters:
//! **whoever comes in is announced by the generation before its first position is taken** (see the model
//! `a_reader_comes_while_the_writer_writes`), so the writer never writes over what a newcomer has not read.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use unisono_os::monitor::{lock, wait_until};
use unisono_os::poll::Waker;
use unisono_os::{clock, futex};
use unisono_protocol::{Bell, Futex, ring};

use super::elsewhere::Outlet;
use super::error::{Presence, ReaderStatus};
use super::guest::{Departure, Guest, Occupant, Why};
use super::memory::WriterMemory;
use super::pool::Housing;
use super::wait::Ends;
use crate::marker::Mortal;

/// What the writer does when a reader is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenGone {
    /// Sending fails, naming the reader, until another process has taken its rank, which begins with the message that is
    /// sent next. What the reader that went had not finished is lost to that rank, which the writer is told once even where
    /// another process was faster to take the rank than the writer to send again.
    #[default]
    Fail,
    /// Go on without it. Whoever takes its rank later begins with the message that is sent next.
    GoOn,
    /// Keep what it has not finished until another process has taken its rank, which begins there.
    AwaitReturn,
}

#[derive(Debug)]
pub(super) struct Seat {
    pub(super) rank: usize,
    pub(super) occupant: Occupant,
}

/// What the writer needs to know for sending, taken from the seats.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) generation: u64,
    pub(super) present: Vec<Arc<Guest>>,
    /// The lowest position that is kept for somebody who is not there.
    pub(super) kept: Option<u64>,
    /// Whether sending fails; [`Hall::take_trouble`] says why.
    pub(super) is_troubled: bool,
}

/// The writer's shared state.
#[derive(Debug)]
pub(super) struct Hall {
    pub(super) memory: WriterMemory,
    pub(super) policy: WhenGone,
    pub(super) ends: Ends,
    /// At which the writer sleeps when it waits for somebody who is not there.
    pub(super) lobby: Bell,
    /// Wakes the host thread.
    pub(super) host: Waker,
    pub(super) host_is_to_end: AtomicBool,
    /// The way to readers elsewhere, if there are to be any.
    pub(super) outlet: Option<Outlet>,
    seats: Mutex<Vec<Seat>>,
    /// Those who left messages behind that nobody else will read, and of whom the writer does not know, since their ranks were
    /// taken anew. Taken after the lock of the seats, never before.
    pub(super) lost: Mutex<VecDeque<Departure>>,
    /// The homes of large messages that every reader is to know. Taken after the lock of the seats, never before.
    homes: Mutex<Vec<Arc<Housing>>>,
    /// Moves with every change of the seats.
    generation: AtomicU64,
    changed: Condvar,
}

/// The kernel's futex, for those who only wake.
pub(super) struct Ringer;

impl Futex for Ringer {
    fn sleep_while(&mut self, _word: &AtomicU32, _expected: u32) {}

    fn wake_all(&self, word: &AtomicU32) {
        crate::fault::reach("waking");
        futex::wake_all(word);
    }
}

impl Seat {
    fn guest(&self) -> Option<&Arc<Guest>> {
        if let Occupant::Present(guest) = &self.occupant { Some(guest) } else { None }
    }
}

impl Hall {
    pub(super) fn new(
        memory: WriterMemory,
        ranks: &[usize],
        policy: WhenGone,
        host: Waker,
        outlet: Option<Outlet>,
    ) -> Hall {
        let seats = ranks.iter().map(|rank| Seat { rank: *rank, occupant: Occupant::Awaited }).collect();
        Hall {
            memory,
            policy,
            ends: Ends::default(),
            lobby: Bell::default(),
            host,
            host_is_to_end: AtomicBool::new(false),
            outlet,
            seats: Mutex::new(seats),
            lost: Mutex::default(),
            homes: Mutex::default(),
            generation: AtomicU64::new(1),
            changed: Condvar::new(),
        }
    }

    pub(super) fn seats(&self) -> MutexGuard<'_, Vec<Seat>> {
        lock(&self.seats)
    }

    /// Pairs with the release in `announce`; whoever has published before sees every newcomer whose position it may pass.
    #[inline]
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Let the writer look at the seats before it sends anything more. With the lock held, before a first position is taken.
    pub(super) fn announce(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        Bell::settle();
    }

    /// What the seats say to the writer.
    pub(super) fn view(&self) -> View {
        let seats = lock(&self.seats);
        // With the lock: what is announced later is not in the seats yet.
        let mut view = View { generation: self.generation(), ..View::default() };
        for seat in seats.iter() {
            match &seat.occupant {
                Occupant::Awaited => view.kept = Some(0),
                Occupant::Present(guest) => view.present.push(Arc::clone(guest)),
                Occupant::Gone(departure) => {
                    if let Some((position, _)) = departure.resume {
                        view.kept = Some(view.kept.map_or(position, |kept| kept.min(position)));
                    }
                    view.is_troubled |= self.fails_without(departure);
                }
            }
        }
        view.is_troubled |= !lock(&self.lost).is_empty();
        view.is_troubled |= self.outlet.as_ref().is_some_and(Outlet::is_troubled);
        view
    }

    /// A reader is not there any more. Told once; later news of the same reader is none.
    pub(super) fn has_gone(&self, guest: &Arc<Guest>, why: Why) {
        let is_complete = {
            let mut seats = lock(&self.seats);
            let Some(seat) = seats.get_mut(guest.seat) else { return };
            match &seat.occupant {
                Occupant::Present(present) if Arc::ptr_eq(present, guest) => {}
                _ => return,
            }
            let page = guest.memory.page();
            // Goodbye said, its process may end as it likes. Its goodbye comes after everything it published.
            let why = if page.has_left() { Why::Left } else { why };
            let read = page.tail.messages.load(Ordering::Relaxed);
            let stood = self.position_of(guest, || self.stand().0);
            let why = if stood.is_none() { Why::Broken } else { why };
            let resume = stood.filter(|_| self.policy == WhenGone::AwaitReturn && why.is_sound());
            let resume = resume.map(|position| (position, read));
            let settled = stood.unwrap_or(guest.believed.load(Ordering::Acquire));
            seat.occupant = if guest.was_ready() {
                Occupant::Gone(Departure { rank: guest.rank, pid: guest.pid, why, resume, settled })
            } else {
                guest.before.clone()
            };
            self.announce();
            self.note_completeness(&seats)
        };
        tracing::debug!(rank = guest.rank, pid = guest.pid, ?why, "a reader is gone");
        guest.memory.page().tail.space.wake_always(&Ringer);
        self.wake_writer();
        self.host.wake();
        if is_complete {
            self.ring_readers();
        }
    }

    /// Somebody came, left or ended the wait: let the writer look.
    pub(super) fn wake_writer(&self) {
        Bell::settle();
        self.lobby.wake_always(&Ringer);
        for guest in self.present() {
            guest.memory.page().tail.space.wake_always(&Ringer);
        }
        self.outlet.iter().for_each(Outlet::rouse);
        let _seats = lock(&self.seats); // Who is about to sleep on the condition has looked at it or sees it now.
        self.changed.notify_all();
    }

    /// A reader elsewhere came, is ready, or is gone.
    pub(super) fn has_news_from_elsewhere(&self) {
        let is_complete = {
            let seats = lock(&self.seats);
            self.announce();
            self.note_completeness(&seats)
        };
        self.wake_writer();
        if is_complete {
            self.ring_readers();
        }
    }

    pub(super) fn present(&self) -> Vec<Arc<Guest>> {
        lock(&self.seats).iter().filter_map(Seat::guest).cloned().collect()
    }

    /// Ring at every reader: something that they look at while they wait has changed.
    pub(super) fn ring_readers(&self) {
        Bell::settle();
        for guest in self.present() {
            guest.memory.page().doorbell.bell.wake_always(&Ringer);
        }
    }

    /// Let every reader know a new home, those who come later, too.
    pub(super) fn introduce(&self, housing: &Arc<Housing>) {
        lock(&self.homes).push(Arc::clone(housing));
        self.tell_all_or_leave_it_to_the_host();
    }

    /// A home is needed no more.
    pub(super) fn retire(&self, housing: &Housing) {
        lock(&self.homes).retain(|known| known.number != housing.number);
        self.tell_all_or_leave_it_to_the_host();
    }

    fn tell_all_or_leave_it_to_the_host(&self) {
        if !self.tell_all() {
            self.host.wake();
        }
    }

    /// Tell everybody who is there what is new of the homes; who cannot be told has gone. Says whether all have been told: who
    /// does not listen is to be told later.
    pub(super) fn tell_all(&self) -> bool {
        let (mut gone, mut all_are_told) = (Vec::new(), true);
        {
            let seats = lock(&self.seats);
            let homes = lock(&self.homes);
            for guest in seats.iter().filter_map(Seat::guest) {
                match guest.catch_up(&homes) {
                    Ok(is_told) => all_are_told &= is_told,
                    Err(why) => gone.push((Arc::clone(guest), why)),
                }
            }
        }
        gone.iter().for_each(|(guest, why)| self.has_gone(guest, *why));
        all_are_told
    }

    /// Whether everybody has come and is ready; those without whom the queue goes on aside.
    pub(super) fn is_complete(&self, seats: &[Seat]) -> bool {
        seats.iter().all(|seat| match &seat.occupant {
            Occupant::Present(guest) => guest.is_ready.load(Ordering::Acquire),
            Occupant::Awaited => false,
            Occupant::Gone(_) => self.policy == WhenGone::GoOn,
        }) && self.outlet.as_ref().is_none_or(Outlet::is_complete)
    }

    /// Let readers see it if everybody has come; says whether. They are to be rung then, without the lock.
    ///
    /// With the lock: the writer, which may die next, does not see all of them before the readers can.
    pub(super) fn note_completeness(&self, seats: &[Seat]) -> bool {
        let is_complete = self.is_complete(seats);
        if is_complete {
            self.memory.page().set_ready();
            self.outlet.iter().for_each(Outlet::say_complete);
        }
        is_complete
    }

    /// How far the writer has come, and with how many messages (more or less: that number is for people).
    pub(super) fn stand(&self) -> (u64, u64) {
        let head = &self.memory.page().head;
        (head.position.look(), head.messages.load(Ordering::Relaxed))
    }

    /// Give the lock back and sleep until the seats change, for at most `limit`.
    pub(super) fn wait_for_change(&self, seats: MutexGuard<'_, Vec<Seat>>, limit: Duration) {
        drop(wait_until(&self.changed, seats, Instant::now().checked_add(limit)));
    }

    /// What is known of every reader.
    pub(super) fn statuses(&self) -> Vec<ReaderStatus> {
        let mut readers = self.statuses_of(|_| true);
        readers.extend(self.outlet.iter().flat_map(Outlet::statuses));
        readers
    }

    /// Those that a wait for everybody waits for.
    pub(super) fn missing(&self) -> Vec<ReaderStatus> {
        let is_ready = |seat: &Seat| matches!(&seat.occupant, Occupant::Present(guest) if guest.is_ready.load(Ordering::Acquire));
        let mut missing = self.statuses_of(|seat| !is_ready(seat));
        missing.extend(self.outlet.iter().flat_map(Outlet::missing));
        missing
    }

    /// What is known of the readers of these seats.
    pub(super) fn statuses_of(&self, of: impl Fn(&Seat) -> bool) -> Vec<ReaderStatus> {
        let (head, messages) = self.stand();
        let seats = lock(&self.seats);
        seats.iter().filter(|seat| of(seat)).map(|seat| self.status(seat, head, messages)).collect()
    }

    fn status(&self, seat: &Seat, head: u64, messages: u64) -> ReaderStatus {
        let behind = |position: u64, read: u64| {
            (head.saturating_sub(position).min(self.memory.ring_bytes()), messages.saturating_sub(read))
        };
        let (pid, presence, (lag_bytes, lag_messages), last_step) = match &seat.occupant {
            Occupant::Awaited => (None, Presence::Awaited, behind(0, 0), None),
            Occupant::Present(guest) => {
                let tail = &guest.memory.page().tail;
                let lag = behind(tail.position.look(), tail.messages.load(Ordering::Relaxed));
                let moved_at = tail.moved_at.load(Ordering::Relaxed);
                let ago = clock::monotonic_nanoseconds().saturating_sub(moved_at);
                let last_step = (moved_at != 0).then_some(Duration::from_nanos(ago));
                (Some(guest.pid), Presence::Alive, lag, last_step)
            }
            Occupant::Gone(Departure { pid, why, resume, .. }) => {
                let presence = match why {
                    Why::Left => Presence::Left,
                    Why::Died => Presence::Dead,
                    Why::Broken | Why::Deaf => Presence::Broken,
                };
                let (position, read) = resume.unwrap_or((head, messages));
                (Some(*pid), presence, behind(position, read), None)
            }
        };
        ReaderStatus { rank: seat.rank, pid, presence, lag_messages, lag_bytes, last_step, address: None }
    }

    /// Where a guest stands, bounded by the ring, given a look at the `head`; `None` if it says what cannot be.
    #[inline]
    pub(super) fn position_of(&self, guest: &Guest, head: impl Fn() -> u64) -> Option<u64> {
        // Before the position: what another thread has believed by now was there before this looks. Pairs with the below.
        let believed = guest.believed.load(Ordering::Acquire);
        // Both sides may move on meanwhile: it was not too far behind the head before, nor beyond that after.
        let before = head();
        let position = guest.memory.page().tail.position.look();
        let is_behind = before.saturating_sub(position) <= self.memory.ring_bytes() && position <= head();
        if !is_behind || position < believed || !position.is_multiple_of(ring::RECORD_ALIGNMENT) {
            return None;
        }
        if position > believed {
            guest.believed.fetch_max(position, Ordering::AcqRel);
        }
        Some(position)
    }
}

/// A guest, for the marker.
#[derive(Debug)]
pub(super) struct MortalGuest {
    pub(super) guest: Arc<Guest>,
    pub(super) hall: Weak<Hall>,
}

impl Mortal for MortalGuest {
    fn death_word(&self) -> &AtomicU32 {
        self.guest.memory.death_word()
    }

    fn has_died(&self) {
        if let Some(hall) = self.hall.upgrade() {
            hall.has_gone(&self.guest, Why::Died);
        }
    }
}
