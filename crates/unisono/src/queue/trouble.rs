//! Readers without which a queue does not go on, and how the writer hears of them.
//!
//! The one invariant that matters: **no message is lost in silence**: what a reader had not read when it went is kept for whoever
//! takes its rank, or the writer is told of that reader, be it that its rank has been taken anew by then; a
//! writer that asks no more is told in the log.

use std::sync::atomic::Ordering;

use unisono_os::monitor::lock;
use unisono_os::robust::{self, WordState};

use super::elsewhere::Outlet;
use super::error::Error;
use super::guest::{Departure, Occupant, Why};
use super::hall::{Hall, Seat, WhenGone};

impl Hall {
    pub(super) fn fails_without(&self, departure: &Departure) -> bool {
        self.policy != WhenGone::GoOn && departure.resume.is_none()
    }

    /// Why sending fails, if it does, for the writer to be told: it knows then that what it has sent so far may not have been
    /// read under that rank. Those whose ranks were taken anew are told of once, and first.
    pub(super) fn take_trouble(&self, seats: &mut [Seat]) -> Option<Error> {
        if let Some(departure) = lock(&self.lost).pop_front() {
            self.announce();
            return Some(departure.error());
        }
        let gone = seats.iter_mut().find_map(|seat| match &mut seat.occupant {
            Occupant::Gone(departure) if self.fails_without(departure) => Some(departure),
            _ => None,
        });
        if let Some(departure) = gone {
            departure.settled = self.stand().0; // Exactly: it is the writer who asks.
            return Some(departure.error());
        }
        let elsewhere = self.outlet.as_ref().and_then(Outlet::take_trouble);
        elsewhere.inspect(|_| self.announce())
    }

    /// Readers that went with messages unread, of which the writer, which sends nothing more, was not told, and which nobody has
    /// got in their place.
    pub(super) fn untold(&self) -> Vec<Error> {
        self.hear_of_the_latest();
        let head = self.stand().0;
        let seats = self.seats();
        let gone = seats.iter().filter_map(|seat| match &seat.occupant {
            Occupant::Gone(departure) if self.policy != WhenGone::GoOn => Some(departure),
            _ => None,
        });
        let unread_from =
            |departure: &Departure| departure.resume.map_or(departure.settled, |(position, _)| position);
        let untold = gone.filter(|departure| unread_from(departure) < head).map(Departure::error);
        let mut errors: Vec<Error> = lock(&self.lost).drain(..).map(|departure| departure.error()).collect();
        errors.extend(untold);
        errors.extend(self.outlet.iter().flat_map(Outlet::untold));
        errors
    }

    /// Of those that have gone by now, without waiting for those who listen for it.
    fn hear_of_the_latest(&self) {
        for guest in self.present() {
            let is_dead = || {
                // Acquire: pairs with what the kernel marks after all that the dead has written.
                robust::state(guest.memory.death_word().load(Ordering::Acquire)) == WordState::Dead
            };
            if guest.memory.page().has_left() {
                self.has_gone(&guest, Why::Left);
            } else if is_dead() {
                self.has_gone(&guest, Why::Died);
            }
        }
    }

    /// Somebody takes the seat anew and begins at `position`: what lies between that and where its last guest stood is lost to
    /// it, which the writer is to hear.
    pub(super) fn settle(&self, seat: &mut Seat, position: u64) {
        let Occupant::Gone(departure) = &mut seat.occupant else { return };
        if self.fails_without(departure) && departure.settled < position {
            lock(&self.lost).push_back(departure.clone());
            departure.settled = position;
        }
    }
}
