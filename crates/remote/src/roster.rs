//! The readers as their publisher knows them: who has which rank, how far each is, and what is kept for whom.
//!
//! No socket and no clock of its own: the publisher's thread tells it what was heard, and asks what is to be sent. The one
//! invariant that matters: **a rank has one session at a time**, and what a session says is bounded by what was sent to it.

use std::collections::VecDeque;
use std::time::Instant;

use crate::backlog::{Backlog, Part};
use crate::publisher::Unfinished;
use crate::state::{Leftovers, Presence, ReaderState, Why};
use crate::word::Session;

/// So much may be under way to one reader.
const MOST_PARTS_UNDER_WAY: u64 = 1024;
const MOST_BYTES_UNDER_WAY: u64 = 16 << 20;

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
    /// Messages before `settled` were finished by it, or the sender heard of its departure after they were sent: none of those
    /// is lost in silence.
    Gone {
        pid: u32,
        address: String,
        why: Why,
        resume: Option<u64>,
        settled: u64,
    },
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
    leftovers: Leftovers,
    /// Those who left messages behind that nobody else will read, and of whom the sender has not heard, since their ranks were
    /// taken anew.
    lost: VecDeque<ReaderState>,
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
    pub(crate) fn new(ranks: &[u64], leftovers: Leftovers) -> Roster {
        let seats = ranks.iter().map(|rank| Seat { rank: *rank, occupant: Occupant::Awaited }).collect();
        let (backlog, lost) = (Backlog::default(), VecDeque::new());
        Roster { seats, backlog, leftovers, lost, is_complete: false, is_closing: false }
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
        let at = self.seats.iter().position(|seat| seat.rank == rank).ok_or(Refusal::UnknownRank)?;
        let message = match &self.seats[at].occupant {
            Occupant::Present(present) => {
                return Err(Refusal::Taken { pid: present.pid, address: present.address.clone() });
            }
            Occupant::Awaited => 0,
            Occupant::Gone { resume, .. } => resume.unwrap_or(next_message),
        };
        let part = self.backlog.first_part_of(message);
        self.settle(at, message);
        let occupant = &mut self.seats[at].occupant;
        let before = Box::new(std::mem::replace(occupant, Occupant::Awaited));
        *occupant = Occupant::Present(Present {
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
        let keeps = self.leftovers == Leftovers::Kept && why != Why::Broken;
        let is_it = |seat: &&mut Seat| matches!(&seat.occupant, Occupant::Present(present) if present.session == session);
        let Some(seat) = self.seats.iter_mut().find(is_it) else { return false };
        let Occupant::Present(present) = std::mem::replace(&mut seat.occupant, Occupant::Awaited) else {
            return false;
        };
        seat.occupant = if present.is_ready {
            let resume = keeps.then_some(present.finished);
            let (pid, address, settled) = (present.pid, present.address, present.finished);
            Occupant::Gone { pid, address, why, resume, settled }
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
        Unfinished {
            messages: next - message,
            bytes: self.backlog.bytes_from(message),
            is_troubled: self.is_troubled(),
        }
    }

    /// Whether the sender is to hear of a reader that is gone.
    pub(crate) fn is_troubled(&self) -> bool {
        !self.lost.is_empty() || self.seats.iter().any(|seat| self.fails_without(&seat.occupant))
    }

    fn fails_without(&self, occupant: &Occupant) -> bool {
        self.leftovers != Leftovers::Forgotten && matches!(occupant, Occupant::Gone { resume: None, .. })
    }

    /// Of whom the sender is to hear, those first of whom it hears once: it knows then that what it has sent so far may not have
    /// been read under that rank.
    pub(crate) fn take_trouble(&mut self) -> Option<ReaderState> {
        if let Some(lost) = self.lost.pop_front() {
            return Some(lost);
        }
        let at = self.seats.iter().position(|seat| self.fails_without(&seat.occupant))?;
        let next = self.backlog.messages();
        if let Occupant::Gone { settled, .. } = &mut self.seats[at].occupant {
            *settled = next;
        }
        Some(self.state_of(&self.seats[at]))
    }

    /// Those who are gone with messages unfinished that nobody has got, and of whom the sender has not heard.
    pub(crate) fn take_untold(&mut self) -> Vec<ReaderState> {
        let next = self.backlog.messages();
        let left_some = |seat: &&Seat| match &seat.occupant {
            Occupant::Gone { resume, settled, .. } => resume.unwrap_or(*settled) < next,
            _ => false,
        };
        let is_missed = self.leftovers != Leftovers::Forgotten;
        let mut untold = Vec::from(std::mem::take(&mut self.lost));
        untold.extend(
            self.seats.iter().filter(|_| is_missed).filter(left_some).map(|seat| self.state_of(seat)),
        );
        untold
    }

    /// Somebody takes the seat anew and begins with `message`: what lies between that and what its last reader finished is lost to
    /// it, which the sender is to hear.
    fn settle(&mut self, at: usize, message: u64) {
        let state = self.state_of(&self.seats[at]);
        let fails = self.fails_without(&self.seats[at].occupant);
        if let Occupant::Gone { settled, .. } = &mut self.seats[at].occupant
            && fails
            && *settled < message
        {
            *settled = message;
            self.lost.push_back(state);
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

    /// It could not be said after all.
    pub(crate) fn has_not_heard_of_completeness(&mut self, session: Session) {
        if let Some(present) = present_in(&mut self.seats, session) {
            present.knows_of_completeness = false;
        }
    }

    /// Whether everybody who is there has received all there is, and the end; who was let in and has not said yet that it is ready
    /// is there, too.
    pub(crate) fn all_is_received(&mut self) -> bool {
        let end = self.backlog.parts();
        self.present().all(|present| present.received > end)
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
            Occupant::Gone { pid, address, why, resume, .. } => {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn roster(leftovers: Leftovers) -> Roster {
        Roster::new(&[5], leftovers)
    }

    /// A reader comes and is ready; gives the message that it begins with.
    fn come(roster: &mut Roster, session: u8) -> u64 {
        let welcome = roster.join(5, [session; 16], [0; 16], u32::from(session), "there".to_string());
        let Welcome { part, message } = welcome.expect("the rank is free");
        assert!(roster.acknowledge([session; 16], part, message).expect("it is sound"));
        message
    }

    fn pid_in_trouble(roster: &mut Roster) -> Option<u32> {
        let (is_troubled, trouble) = (roster.unfinished().is_troubled, roster.take_trouble());
        assert_eq!(is_troubled, trouble.is_some());
        trouble.map(|reader| reader.at.expect("it was there").0)
    }

    #[test]
    fn whoever_left_messages_behind_is_known_to_a_sender_that_sends_no_more() {
        let untold = |roster: &mut Roster| -> Vec<u32> {
            roster.take_untold().into_iter().map(|reader| reader.at.expect("it was there").0).collect()
        };
        let pids_of = |leftovers| {
            let mut roster = roster(leftovers);
            come(&mut roster, 1);
            roster.send(vec![1]);
            assert!(untold(&mut roster).is_empty(), "it is there");
            assert!(roster.has_gone([1; 16], Why::Left));
            untold(&mut roster)
        };
        assert_eq!(pids_of(Leftovers::Told), [1]);
        assert_eq!(pids_of(Leftovers::Kept), [1]);
        assert_eq!(pids_of(Leftovers::Forgotten), [0; 0]);
        let mut roster = roster(Leftovers::Told);
        come(&mut roster, 1);
        roster.send(vec![1]);
        assert!(roster.has_gone([1; 16], Why::Left));
        come(&mut roster, 2);
        assert_eq!(untold(&mut roster), [1], "its rank was taken anew");
        roster.send(vec![2]);
        assert!(roster.has_gone([2; 16], Why::Left));
        assert_eq!(pid_in_trouble(&mut roster), Some(2));
        assert_eq!(untold(&mut roster), [0; 0], "it was told");
    }

    #[test]
    fn whoever_left_messages_behind_is_told_of_once_when_its_rank_is_taken_again() {
        let mut roster = roster(Leftovers::Told);
        come(&mut roster, 1);
        roster.send(vec![1]);
        assert!(roster.has_gone([1; 16], Why::LinkLost));
        assert_eq!(come(&mut roster, 2), 1);
        assert_eq!(pid_in_trouble(&mut roster), Some(1));
        assert_eq!(pid_in_trouble(&mut roster), None);
        // One that had finished all, or was told of as long as its rank was free, is not told of again.
        assert!(roster.has_gone([2; 16], Why::Left));
        come(&mut roster, 3);
        roster.send(vec![2]);
        assert!(roster.has_gone([3; 16], Why::Left));
        assert_eq!([pid_in_trouble(&mut roster), pid_in_trouble(&mut roster)], [Some(3); 2]);
        come(&mut roster, 4);
        assert_eq!(pid_in_trouble(&mut roster), None);
    }

    #[test]
    fn what_is_sent_while_one_comes_that_never_is_ready_is_told_of_too() {
        let mut roster = roster(Leftovers::Told);
        come(&mut roster, 1);
        assert!(roster.has_gone([1; 16], Why::Left));
        roster.join(5, [2; 16], [0; 16], 2, String::new()).expect("the rank is free");
        assert_eq!(pid_in_trouble(&mut roster), None);
        roster.send(vec![1]);
        assert!(roster.has_gone([2; 16], Why::LinkLost));
        assert_eq!(come(&mut roster, 3), 1, "the rank had fallen back to the first");
        assert_eq!(pid_in_trouble(&mut roster), Some(1));
        assert_eq!(pid_in_trouble(&mut roster), None);
    }

    #[test]
    fn whoever_broke_the_rules_is_told_of_where_messages_are_kept() {
        let mut roster = roster(Leftovers::Kept);
        come(&mut roster, 1);
        roster.send(vec![1]);
        assert_eq!(roster.acknowledge([1; 16], 9, 9), Err(Why::Broken));
        assert!(roster.has_gone([1; 16], Why::Broken));
        assert_eq!(come(&mut roster, 2), 1, "what it said cannot be believed");
        assert_eq!([pid_in_trouble(&mut roster), pid_in_trouble(&mut roster)], [Some(1), None]);
    }

    #[test]
    fn nobody_is_told_of_where_messages_are_forgotten_or_kept() {
        for (leftovers, resumes_at) in [(Leftovers::Forgotten, 1), (Leftovers::Kept, 0)] {
            let mut roster = roster(leftovers);
            come(&mut roster, 1);
            roster.send(vec![1]);
            assert!(roster.has_gone([1; 16], Why::LinkLost));
            assert_eq!(pid_in_trouble(&mut roster), None);
            assert_eq!(come(&mut roster, 2), resumes_at);
            assert_eq!(pid_in_trouble(&mut roster), None);
        }
    }
}
