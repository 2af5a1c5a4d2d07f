//! In front of the writer's doors: those who have knocked and not yet said who they are.
//!
//! Anybody on the machine can knock, and as often as it likes. The one invariant that matters: **neither a crowd nor another
//! user's processes keep a reader out or the host busy**: there are limits to how many are let in, and how fast.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use unisono_os::process;
use unisono_os::seldom::Seldom;
use unisono_os::socket::{Connection, Listener};

use super::messages::{self, Message, Refusal};

/// How long somebody who knocks may take to say who it is, and how many may be silent at a time: one more takes the place of
/// the first, which has had so long at least.
const HEAR_OUT_FOR: Duration = Duration::from_secs(1);
const HEAR_OUT_AT_LEAST: Duration = Duration::from_millis(250);
const MOST_STRANGERS: usize = 64;
/// How long nobody is let in when that has failed, for want of descriptors, or when so many of other users have been turned away in
/// that time: who knocks stays at the door.
const REST_FOR: Duration = Duration::from_millis(50);
const MOST_TURNED_AWAY: usize = 128;
/// How often it is said that others are turned away, or that nobody can be let in.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// Somebody who has knocked and not yet said who it is.
#[derive(Debug)]
struct Stranger {
    connection: Connection,
    came: Instant,
}

/// The doors, and who waits in front of them.
#[derive(Debug)]
pub(super) struct Porch {
    queue: String,
    doors: Vec<Listener>,
    /// The first came first.
    strangers: Vec<Stranger>,
    rests_until: Option<Instant>,
    /// How many of other users were turned away since then.
    others: (Instant, usize),
    turned_away: Seldom,
    cannot_let_in: Seldom,
}

impl Porch {
    pub(super) fn new(doors: Vec<Listener>, queue: String) -> Porch {
        let (turned_away, cannot_let_in) = (Seldom::every(COMPLAIN_EVERY), Seldom::every(COMPLAIN_EVERY));
        let (strangers, others) = (Vec::new(), (Instant::now(), 0));
        Porch { queue, doors, strangers, rests_until: None, others, turned_away, cannot_let_in }
    }

    /// Until when nothing is to be done if nobody knocks or speaks.
    pub(super) fn patience(&mut self) -> Option<Instant> {
        self.rests_until = self.rests_until.filter(|until| Instant::now() < *until);
        let heard_out = self.strangers.first().map(|first| first.came + HEAR_OUT_FOR);
        [heard_out, self.rests_until].into_iter().flatten().min()
    }

    /// What is to be listened at: doors, unless they are closed for a moment, then strangers.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let strangers = self.strangers.iter().map(|stranger| stranger.connection.as_fd());
        self.open_doors().iter().map(AsFd::as_fd).chain(strangers)
    }

    fn open_doors(&self) -> &[Listener] {
        if self.rests_until.is_some() { &[] } else { &self.doors }
    }

    /// Let those who knock come as strangers, and give those who have something to say; `ready` says for each descriptor whether
    /// there is something.
    pub(super) fn look(&mut self, ready: &[bool]) -> Vec<Connection> {
        let now = Instant::now();
        let (knocks, speaks) = ready.split_at(self.open_doors().len());
        let knocks: Vec<usize> = (0..knocks.len()).filter(|door| knocks[*door]).collect();
        let mut speaking = Vec::new();
        for (stranger, speaks) in std::mem::take(&mut self.strangers).into_iter().zip(speaks) {
            if *speaks {
                speaking.push(stranger.connection);
            } else if now < stranger.came + HEAR_OUT_FOR {
                self.strangers.push(stranger);
            }
        }
        for door in knocks {
            self.rests_until = self.rests_until.or(self.welcome(door, now).err());
        }
        speaking
    }

    /// Let those who knock at this door come; or say until when nobody may.
    fn welcome(&mut self, door: usize, now: Instant) -> Result<(), Instant> {
        for _ in 0..MOST_STRANGERS {
            let of_the_first = self.strangers.first().map(|first| first.came + HEAR_OUT_AT_LEAST);
            if let Some(until) =
                of_the_first.filter(|until| self.strangers.len() >= MOST_STRANGERS && *until > now)
            {
                return Err(until);
            }
            match self.doors[door].accept(Some(now)) {
                Ok(connection) if self.is_of_this_user(&connection, now) => {
                    self.strangers.push(Stranger { connection, came: now });
                    let too_many = self.strangers.len().saturating_sub(MOST_STRANGERS);
                    self.strangers.drain(..too_many);
                }
                Ok(_) => self.turn_away_slowly(now)?,
                Err(error) if error.is_timed_out() => break,
                Err(error) => {
                    if let Some(times) = self.cannot_let_in.note(now) {
                        tracing::warn!(queue = self.queue, %error, times, "a queue cannot let readers in for now");
                    }
                    return Err(now + REST_FOR);
                }
            }
        }
        Ok(())
    }

    /// One of another user was turned away. If that was one of many, nobody is let in for a moment.
    fn turn_away_slowly(&mut self, now: Instant) -> Result<(), Instant> {
        let (since, count) = &mut self.others;
        if now >= *since + REST_FOR {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        if *count < MOST_TURNED_AWAY { Ok(()) } else { Err(now + REST_FOR) }
    }

    /// Whether a stranger may be heard at all; another user's is told why not.
    fn is_of_this_user(&mut self, stranger: &Connection, now: Instant) -> bool {
        let problem = "it belongs to another user than the queue";
        let user = stranger.peer_credentials().map(|credentials| credentials.uid);
        match user {
            Ok(user) if user == process::uid() => return true,
            Ok(user) => {
                if let Some(times) = self.turned_away.note(now) {
                    tracing::warn!(queue = self.queue, user, times, problem, "a reader was turned away");
                }
            }
            Err(error) => tracing::debug!(%error, "a reader was turned away: whose it is cannot be seen"),
        }
        let refusal = Refusal::Other { problem: problem.to_string() };
        // If it has gone by now, nobody needs the answer.
        let _ = messages::send(stranger, &Message::Refused(refusal), &[], Some(now));
        false
    }
}
