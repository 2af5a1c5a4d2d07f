//! The readers as their publisher knows them: who has which rank, how far each is, and what is kept for whom.
//!
//! No socket and no clock of its own: the publisher's thread tells it what was heard, and asks what is to be sent. The one
//! invariant that matters: **a rank has one session at a time**, and what a session says is bounded by what was sent to it.

use std::time::Instant;

use crate::backlog::{Backlog, Part};
use crate::publisher::Unfinished;
use crate::word::Session;

/// So much may be under way to one reader.
const MOST_PARTS_UNDER_WAY: u64 = 1024;
const MOST_BYTES_UNDER_WAY: u64 = 16 << 20;

/// Why a reader is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It said goodbye.
    Left,
    /// Its connection ended, or nothing came over it any more.
    LinkLost,
    /// It said what cannot be.
    Broken,
}

/// Where a reader is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Nobody has come under this rank.
    Awaited,
    /// It is connected; ready, once it has said that it is.
    Present {
        /// Whether it has said that it is ready.
        is_ready: bool,
    },
    /// It is not connected any more.
    Gone {
        /// Why.
        why: Why,
        /// Whether messages are kept for whoever takes the rank next.
        is_kept: bool,
    },
}

/// One reader, as its publisher sees it.
#[derive(Clone, Debug)]
pub struct ReaderState {
    /// Its rank.
    pub rank: u64,
    /// Whether it is there.
    pub presence: Presence,
    /// Its process, on its machine, and its machine's address.
    pub at: Option<(u32, String)>,
    /// Messages and bytes that it has not finished.
    pub lag_messages: u64,
    /// See `lag_messages`.
    pub lag_bytes: u64,
    /// When it last finished a message or came in.
    pub last_step: Option<Instant>,
}

/// A reader that is there.
#[derive(Clone, Debug)]
pub(crate) struct Present {
    pub(crate) session: Session,
    pub(crate) challenge: [u8; 16],
    pub(crate) pid: u32,
    pub(crate) address: String,
    is_ready: bool,
    /// The next part to be sent to it; parts before `received` have arrived, messages before `finished` are finished.
    next: u64,
    received: u64,
    finished: u64,
    last_step: Instant,
    knows_of_completeness: bool,
    /// Who had the rank before, to whom it falls back if this one goes before it was ready.
    before: Box<Occupant>,
}

#[derive(Clone, Debug)]
enum Occupant {
    Awaited,
    Present(Present),
    Gone { pid: u32, address: String, why: Why, resume: Option<u64> },
}

#[derive(Debug)]
struct Seat {
    rank: u64,
    occupant: Occupant,
}

/// Everything that a publisher's threads share.
#[derive(Debug)]
pub(crate) struct Roster {
    seats: Vec<Seat>,
    pub(crate) backlog: Backlog,
    /// Whether what a reader had not finished when it went is kept for the next one of its rank.
    keeps_for_the_gone: bool,
    /// All readers of the queue have come, those elsewhere included.
    pub(crate) is_complete: bool,
    /// Nothing more is sent; each reader is to hear of it.
    pub(crate) is_closing: bool,
}

/// What a newcomer is told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Welcome {
    /// The number of the first part that it gets, and of the message that this begins.
    pub(crate) part: u64,
    pub(crate) message: u64,
}

/// Why a newcomer is turned away.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Taken { pid: u32, address: String },
    UnknownRank,
    Closing,
}

impl Roster {
    pub(crate) fn new(ranks: &[u64], keeps_for_the_gone: bool) -> Roster {
        let seats = ranks.iter().map(|rank| Seat { rank: *rank, occupant: Occupant::Awaited }).collect();
        let backlog = Backlog::default();
        Roster { seats, backlog, keeps_for_the_gone, is_complete: false, is_closing: false }
    }

    /// Somebody who has proved to have the key wants to have the rank.
    pub(crate) fn join(
        &mut self,
        rank: u64,
        session: Session,
        challenge: [u8; 16],
        pid: u32,
        address: String,
    ) -> Result<Welcome, Refusal> {
        if self.is_closing {
            return Err(Refusal::Closing);
        }
        let next_message = self.backlog.messages();
        let seat = self.seats.iter_mut().find(|seat| seat.rank == rank).ok_or(Refusal::UnknownRank)?;
        let message = match &seat.occupant {
            Occupant::Present(present) => {
                return Err(Refusal::Taken { pid: present.pid, address: present.address.clone() });
            }
            Occupant::Awaited => 0,
            Occupant::Gone { resume, .. } => resume.unwrap_or(next_message),
        };
        let part = self.backlog.first_part_of(message);
        let before = Box::new(std::mem::replace(&mut seat.occupant, Occupant::Awaited));
        seat.occupant = Occupant::Present(Present {
            session,
            challenge,
            pid,
            address,
            is_ready: false,
            next: part,
            received: part,
            finished: message,
            last_step: Instant::now(),
            knows_of_completeness: false,
            before,
        });
        Ok(Welcome { part, message })
    }

    /// A reader says how far it is, and so that it is ready: whether that is news. What cannot be is told.
    pub(crate) fn acknowledge(&mut self, session: Session, parts: u64, messages: u64) -> Result<bool, Why> {
        let backlog = &self.backlog;
        let Some(present) = present_in(&mut self.seats, session) else { return Ok(false) };
        let received = parts.max(present.received);
        if parts > present.next || messages > backlog.messages_before(received) {
            return Err(Why::Broken);
        }
        let is_news = !std::mem::replace(&mut present.is_ready, true);
        if messages > present.finished {
            (present.finished, present.last_step) = (messages, Instant::now());
        }
        present.received = received;
        if let Some(kept_from) = self.kept_from() {
            self.backlog.forget_before(kept_from);
        }
        Ok(is_news)
    }

    /// A session has ended; `false` if there was none.
    pub(crate) fn has_gone(&mut self, session: Session, why: Why) -> bool {
        let keeps = self.keeps_for_the_gone && why != Why::Broken;
        let is_it = |seat: &&mut Seat| matches!(&seat.occupant, Occupant::Present(present) if present.session == session);
        let Some(seat) = self.seats.iter_mut().find(is_it) else { return false };
        let Occupant::Present(present) = std::mem::replace(&mut seat.occupant, Occupant::Awaited) else {
            return false;
        };
        seat.occupant = if present.is_ready {
            let resume = keeps.then_some(present.finished);
            Occupant::Gone { pid: present.pid, address: present.address, why, resume }
        } else {
            *present.before
        };
        let kept_from = self.kept_from().unwrap_or(self.backlog.messages());
        self.backlog.forget_before(kept_from);
        true
    }

    /// Nobody can be reached any more.
    pub(crate) fn lose_all(&mut self) {
        let sessions: Vec<Session> = self.present().map(|present| present.session).collect();
        for session in sessions {
            self.has_gone(session, Why::LinkLost);
        }
    }

    /// From which message on messages are kept: the first that somebody has not finished, who is there or may come.
    fn kept_from(&self) -> Option<u64> {
        let next = self.backlog.messages();
        let kept = |seat: &Seat| match &seat.occupant {
            Occupant::Awaited => Some(0),
            Occupant::Present(present) if present.is_ready => Some(present.finished),
            Occupant::Present(present) => {
                Some(present.finished.min(present.before.kept_from().unwrap_or(next)))
            }
            Occupant::Gone { resume, .. } => *resume,
        };
        self.seats.iter().filter_map(kept).min()
    }

    /// How far the readers are behind.
    pub(crate) fn unfinished(&self) -> Unfinished {
        let next = self.backlog.messages();
        let message = self.kept_from().unwrap_or(next);
        let is_gone = |seat: &Seat| matches!(seat.occupant, Occupant::Gone { resume: None, .. });
        Unfinished {
            messages: next - message,
            bytes: self.backlog.bytes_from(message),
            is_any_gone: self.seats.iter().any(is_gone),
        }
    }

    pub(crate) fn send(&mut self, message: Vec<u8>) {
        self.backlog.push(message);
        if self.kept_from().is_none() {
            self.backlog.forget_before(self.backlog.messages());
        }
    }

    /// The next part to be sent to each reader that has room for one.
    pub(crate) fn due(&mut self) -> Vec<(Session, Part)> {
        let Roster { seats, backlog, .. } = self;
        let mut due = Vec::new();
        for seat in seats {
            let Occupant::Present(present) = &mut seat.occupant else { continue };
            let has_room = present.next - present.received < MOST_PARTS_UNDER_WAY
                && backlog.bytes_between(present.received, present.next) < MOST_BYTES_UNDER_WAY;
            if let Some(part) = backlog.part(present.next).filter(|_| has_room && present.is_ready) {
                present.next += 1;
                due.push((present.session, part));
            }
        }
        due
    }

    /// A part could not be sent after all.
    pub(crate) fn put_back(&mut self, session: Session, part: u64) {
        if let Some(present) = present_in(&mut self.seats, session) {
            present.next = part;
        }
    }

    fn present(&mut self) -> impl Iterator<Item = &mut Present> {
        self.seats.iter_mut().filter_map(|seat| match &mut seat.occupant {
            Occupant::Present(present) => Some(present),
            _ => None,
        })
    }

    pub(crate) fn find(&mut self, session: Session) -> Option<&mut Present> {
        present_in(&mut self.seats, session)
    }

    /// The sessions that have been sent all parts and are to hear of the end, which has the number after theirs.
    pub(crate) fn due_to_end(&mut self) -> Vec<Session> {
        let (end, is_closing) = (self.backlog.parts(), self.is_closing);
        let has_all = |present: &&mut Present| is_closing && present.is_ready && present.next == end;
        self.present()
            .filter(has_all)
            .map(|present| {
                present.next += 1;
                present.session
            })
            .collect()
    }

    /// The sessions that are ready and have not heard that everybody has come.
    pub(crate) fn due_to_hear_of_completeness(&mut self) -> Vec<Session> {
        let is_complete = self.is_complete;
        let is_unaware =
            |present: &&mut Present| is_complete && present.is_ready && !present.knows_of_completeness;
        self.present()
            .filter(is_unaware)
            .map(|present| {
                present.knows_of_completeness = true;
                present.session
            })
            .collect()
    }

    /// Whether everybody who is there has received all there is, and the end.
    pub(crate) fn all_is_received(&mut self) -> bool {
        let end = self.backlog.parts();
        self.present().all(|present| present.received > end || !present.is_ready)
    }

    pub(crate) fn readers(&self) -> Vec<ReaderState> {
        self.seats.iter().map(|seat| self.state_of(seat)).collect()
    }

    fn state_of(&self, seat: &Seat) -> ReaderState {
        let next = self.backlog.messages();
        let (presence, at, finished, last_step) = match &seat.occupant {
            Occupant::Awaited => (Presence::Awaited, None, 0, None),
            Occupant::Present(present) => {
                let at = (present.pid, present.address.clone());
                let presence = Presence::Present { is_ready: present.is_ready };
                (presence, Some(at), present.finished, Some(present.last_step))
            }
            Occupant::Gone { pid, address, why, resume } => {
                let presence = Presence::Gone { why: *why, is_kept: resume.is_some() };
                (presence, Some((*pid, address.clone())), resume.unwrap_or(next), None)
            }
        };
        let (lag_messages, lag_bytes) = (next - finished, self.backlog.bytes_from(finished));
        ReaderState { rank: seat.rank, presence, at, lag_messages, lag_bytes, last_step }
    }
}

impl Occupant {
    /// What would have to be kept if the rank fell back to this.
    fn kept_from(&self) -> Option<u64> {
        match self {
            Occupant::Awaited => Some(0),
            Occupant::Present(_) => None,
            Occupant::Gone { resume, .. } => *resume,
        }
    }
}

fn present_in(seats: &mut [Seat], session: Session) -> Option<&mut Present> {
    seats.iter_mut().find_map(|seat| match &mut seat.occupant {
        Occupant::Present(present) if present.session == session => Some(present),
        _ => None,
    })
}
