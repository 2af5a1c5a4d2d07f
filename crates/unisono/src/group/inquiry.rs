//! Telling whoever asks from outside how a rank's groups stand: the socket at which its watcher answers.
//!
//! Every rank has one, so that a rank that is stopped does not hide what the others know: all of them see the same memory.
//! The name says nothing; `unisono ps` finds it in the system's list of sockets, or in the directory at which ranks of other
//! network namespaces meet. The one invariant that matters: **answering never waits**: not for who asks, who may be stopped or hostile,
//! nor for a lock that a call holds; and however many ask, the watcher has its time to itself between.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use unisono_os::socket::{Address, Connection, Listener, SocketError};
use unisono_os::{clock, process};

use super::members::{Members, last_operation_in};
use super::rendezvous::name::Meeting;
use crate::call::Call;
use crate::error::Result;
use crate::socket_file;
use crate::words::{self, Language};

/// What the abstract names of these sockets begin with.
pub(crate) const PREFIX: &str = "unisono-rank/";
/// Changes whenever a message does.
const VERSION: u32 = 1;
/// How long somebody may take to ask, how many are listened to at a time, and for how long nobody is after so many.
const HEAR_OUT_FOR: Duration = Duration::from_millis(200);
const MOST_AT_ONCE: usize = 32;
const REST_FOR: Duration = Duration::from_millis(20);
/// How many groups one answer has.
const MOST_GROUPS: usize = 64;
const LONGEST_NAME: usize = 512;

/// What is asked and answered: one question, then a message for each group, then the end of the connection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    Question { version: u32 },
    Group(GroupSeen),
    Refused(String),
}

impl Language for Message {
    const LONGEST: usize = 16 * 1024;

    fn not_understood(problem: String) -> Self {
        Message::Refused(problem)
    }
}

/// A group as one of its ranks sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct GroupSeen {
    /// What tells this group from every other, whichever rank tells of it.
    pub(crate) nonce: u64,
    pub(crate) name: String,
    /// Whose view this is.
    pub(crate) rank: usize,
    /// Whether no more calls are possible.
    pub(crate) stopped: bool,
    pub(crate) ranks: Vec<RankSeen>,
}

/// A rank as another sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RankSeen {
    pub(crate) pid: u32,
    pub(crate) alive: bool,
    pub(crate) left: bool,
    pub(crate) last: Option<CallSeen>,
    /// How long ago it began or ended its last long wait, if it has begun no call since.
    pub(crate) last_step: Option<Duration>,
}

/// What a rank last did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CallSeen {
    pub(crate) number: u64,
    pub(crate) call: [u64; 4],
    pub(crate) finished: bool,
}

impl GroupSeen {
    /// What a rank sees of its group; `None` once it has left it.
    pub(crate) fn of(members: &Members, name: &str, nonce: u64) -> Option<GroupSeen> {
        if members.own().header().has_left() {
            return None;
        }
        let now = clock::monotonic_nanoseconds();
        let ranks = members.identities().into_iter().map(|identity| {
            let header = members.memory(identity.rank).header();
            let last = last_operation_in(header).map(|last| CallSeen {
                number: last.number,
                call: last.call.pack(),
                finished: last.finished,
            });
            let last_step = header.last_step().map(|at| Duration::from_nanos(now.saturating_sub(at)));
            RankSeen { pid: identity.pid, alive: identity.alive, left: header.has_left(), last, last_step }
        });
        Some(GroupSeen {
            nonce,
            name: name.chars().take(LONGEST_NAME / 4).collect(),
            rank: members.rank,
            stopped: members.is_stopped(),
            ranks: ranks.collect(),
        })
    }
}

impl CallSeen {
    /// The call, if it makes sense.
    pub(crate) fn call(&self) -> Option<Call> {
        Call::unpack(self.call)
    }
}

/// The question, for who asks.
pub(crate) fn question() -> Message {
    Message::Question { version: VERSION }
}

/// Where a rank's watcher listens for questions.
#[derive(Debug)]
pub(crate) struct Desk {
    listeners: Vec<Listener>,
    /// Who has come and not asked yet, and how long it is listened to.
    callers: Vec<(Connection, Instant)>,
    /// Until when nobody is let in.
    rests_until: Option<Instant>,
    /// Where the socket file lies, if there is one.
    directory: Option<PathBuf>,
}

impl Desk {
    /// Open one under a name of its own; with a directory at a socket file there, too.
    pub(crate) fn open(directory: Option<&Path>) -> Result<Desk> {
        let name: String = Meeting::draw()?.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut listeners = Vec::new();
        let mut listen = |address: Address| match Listener::bind(&address) {
            Ok(listener) => listeners.push(listener),
            // Nothing but `unisono ps` misses it.
            Err(error) => tracing::debug!(%error, "nobody can ask this rank how things stand here"),
        };
        listen(Address::Abstract(format!("{PREFIX}{name}").into_bytes()));
        if let Some(directory) = directory {
            socket_file::sweep(directory);
            listen(Address::File(socket_file::of_rank(directory, &name)));
        }
        let directory = directory.map(Path::to_owned);
        Ok(Desk { listeners, callers: Vec::new(), rests_until: None, directory })
    }

    /// A peer has died: take the socket file away that it may have left.
    pub(crate) fn sweep(&self) {
        self.directory.iter().for_each(|directory| socket_file::sweep(directory));
    }

    /// What to sleep on: the door, unless it rests, and those who have come.
    pub(crate) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let doors = if self.rests_until.is_some() { &[] } else { &self.listeners[..] };
        doors.iter().map(AsFd::as_fd).chain(self.callers.iter().map(|(caller, _)| caller.as_fd())).collect()
    }

    /// When it wants to be looked after though nobody says anything.
    pub(crate) fn patience_ends(&self) -> Option<Instant> {
        self.callers.iter().map(|(_, until)| *until).chain(self.rests_until).min()
    }

    /// Let in who has come, and answer who has asked; never waits. `seen` is asked for at most once.
    pub(crate) fn serve(&mut self, seen: impl FnOnce() -> Vec<GroupSeen>) {
        let now = Instant::now();
        if self.rests_until.is_none_or(|until| now >= until) {
            self.rests_until = None;
            self.let_in(now);
        }
        let mut asked = Vec::new();
        for (caller, until) in std::mem::take(&mut self.callers) {
            match words::receive(&caller, Some(now)) {
                Err(error) if error.is_timed_out() && now < until => self.callers.push((caller, until)),
                Ok(Some((Message::Question { version }, _))) => asked.push((caller, version)),
                _ => {} // It has gone, or speaks another language.
            }
        }
        if asked.is_empty() {
            return;
        }
        let groups: Vec<Message> = seen().into_iter().take(MOST_GROUPS).map(Message::Group).collect();
        for (caller, version) in asked {
            let refusal =
                [Message::Refused(format!("speaks version {VERSION}, and was asked in version {version}"))];
            let answer = if version == VERSION { &groups[..] } else { &refusal[..] };
            // Whoever does not take it at once, or has gone, goes without.
            let _ = answer.iter().try_for_each(|message| words::send(&caller, message, &[], Some(now)));
        }
    }

    fn let_in(&mut self, now: Instant) {
        let mut come = 0;
        for listener in &self.listeners {
            while come < MOST_AT_ONCE && self.callers.len() < MOST_AT_ONCE {
                match listener.accept(Some(now)) {
                    Ok(caller) => {
                        come += 1;
                        if is_of_this_user(&caller) {
                            self.callers.push((caller, now + HEAR_OUT_FOR));
                        }
                    }
                    Err(SocketError::TimedOut { .. }) => break,
                    Err(error) => {
                        tracing::debug!(%error, "nobody can ask this rank how things stand for now");
                        come = MOST_AT_ONCE;
                    }
                }
            }
        }
        // However many come, and though nobody can be let in: the watcher is not kept busy.
        if come >= MOST_AT_ONCE || self.callers.len() >= MOST_AT_ONCE {
            self.rests_until = Some(now + REST_FOR);
        }
    }
}

/// Nobody else is told anything.
fn is_of_this_user(caller: &Connection) -> bool {
    caller.peer_credentials().is_ok_and(|credentials| credentials.uid == process::uid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_answer_fits_a_message() {
        let last = CallSeen { number: u64::MAX, call: [u64::MAX; 4], finished: true };
        let last_step = Some(Duration::from_nanos(u64::MAX));
        let rank = RankSeen { pid: u32::MAX, alive: true, left: true, last: Some(last), last_step };
        let name = "\u{10ffff}".repeat(LONGEST_NAME / 4);
        let ranks = vec![rank; crate::parameters::MAX_WORLD_SIZE];
        let group = GroupSeen { nonce: u64::MAX, name, rank: 63, stopped: true, ranks };
        let (here, there) = Connection::pair().unwrap();
        words::send(&here, &Message::Group(group), &[], None).unwrap();
        let Some((Message::Group(arrived), _)) = words::receive(&there, None).unwrap() else { panic!() };
        assert_eq!((arrived.ranks.len(), arrived.nonce), (64, u64::MAX));
    }
}
