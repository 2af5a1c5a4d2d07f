//! Readers without which a queue does not go on, and how the writer hears of them.
//!
//! The one invariant that matters: **no message is lost in silence**: what a reader had not read when it went is kept for whoever
//! takes its rank, or the writer is told of that reader, be it that its rank has been taken anew by then.

use unisono_os::monitor::lock;

use super::elsewhere::Outlet;
use super::error::Error;
use super::guest::{Departure, Occupant};
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
