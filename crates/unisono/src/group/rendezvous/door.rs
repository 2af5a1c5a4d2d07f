//! The sockets at which rank 0 can be found: while ranks gather, and later to turn latecomers away.
//!
//! The abstract socket stays for the life of the group: it is what makes a second engine under the same name fail with
//! a reason instead of meeting half of the first. A socket file exists only while ranks gather; one whose rank 0 was
//! killed meanwhile outlives it, so every rank 0 sweeps the directory when it opens its door.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use unisono_os::pidfd;
use unisono_os::socket::{Address, Connection, Credentials, Listener, SocketError};

use super::Invitation;
use super::messages::{self, Message};
use crate::error::Result;

/// How long the socket file waits for ranks that come to the abstract socket.
const FILE_AFTER: Duration = Duration::from_millis(500);
/// How long a dying holder of the name is given to disappear.
const PATIENCE_WITH_HOLDER: Duration = Duration::from_secs(10);
/// How many are let in before the others get their turn.
const MOST_AT_ONCE: usize = 64;
const PAUSE: Duration = Duration::from_millis(20);
/// How long a holder of the name may think about its answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// How long a latecomer may take to say its first word, and how many are heard out at once.
const HEAR_OUT_FOR: Duration = Duration::from_millis(100);
const MOST_HEARD_OUT: usize = 64;

/// Rank 0's listening sockets.
#[derive(Debug)]
pub(crate) struct Door {
    listener: Listener,
    file: Option<Listener>,
    file_address: Address,
    /// When the socket file is due; `None` once it is there or could not be made.
    file_at: Option<Instant>,
    /// What latecomers are told.
    full: String,
    /// Latecomers who have not said anything yet, and how long they are waited for.
    latecomers: Vec<(Connection, Instant)>,
}

impl Door {
    /// Take the group's name. If somebody has it, ask who; a holder that is dying is waited for.
    pub(crate) fn open(invitation: &Invitation) -> Result<Door> {
        let address = invitation.meeting.abstract_address();
        let patience = Instant::now() + PATIENCE_WITH_HOLDER;
        let patience = invitation.deadline.map_or(patience, |deadline| deadline.min(patience));
        let mut had_ended = false;
        let listener = loop {
            match Listener::bind(&address) {
                Ok(listener) => break listener,
                Err(SocketError::InUse { holder, .. }) => {
                    // It may have ended since the name was found taken: then the next try gets it.
                    let has_ended = has_ended(holder);
                    if std::mem::replace(&mut had_ended, has_ended) && has_ended {
                        let advice =
                            "it has ended, but a child that it forked still holds the name: end that child";
                        return Err(invitation.error(format!("{} ({advice})", taken_by(holder))));
                    }
                    if !has_ended && let Some(answer) = ask_holder(invitation, &address) {
                        return Err(invitation.error(format!("{} ({answer})", taken_by(holder))));
                    }
                    if Instant::now() >= patience {
                        return Err(invitation.error(format!("{} (it does not answer: it may be a forked child of an earlier rank 0, or stopped)", taken_by(holder))));
                    }
                    std::thread::sleep(PAUSE);
                }
                Err(error) => return Err(invitation.socket_error("listening for the other ranks")(error)),
            }
        };
        invitation.meeting.sweep();
        let wants_file_now = invitation.meeting.directory().is_some();
        let mut door = Door {
            listener,
            file: None,
            file_address: invitation.meeting.file_address(),
            file_at: Some(if wants_file_now { Instant::now() } else { Instant::now() + FILE_AFTER }),
            full: String::new(),
            latecomers: Vec::new(),
        };
        let made = door.make_file_if_due();
        if wants_file_now {
            made.map_err(invitation.socket_error("listening for the other ranks"))?;
        }
        Ok(door)
    }

    /// The next time at which the door wants to be looked after.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.file_at
    }

    /// Make the socket file when its time has come: ranks that did not come to the abstract socket may be in
    /// another network namespace.
    pub(crate) fn make_file_if_due(&mut self) -> Result<(), SocketError> {
        if self.file_at.is_some_and(|at| Instant::now() >= at) {
            self.file_at = None;
            self.file = Some(Listener::bind(&self.file_address)?);
        }
        Ok(())
    }

    /// Everybody is in: remove the socket file, and remember what to tell those who still come.
    pub(crate) fn close_file(&mut self, full: String) {
        self.file = None;
        self.file_at = None;
        self.full = full;
    }

    pub(crate) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        std::iter::once(&self.listener).chain(&self.file).map(AsFd::as_fd).collect()
    }

    /// Let in who waits outside, a bounded number at a time. An error says that nobody can be let in: whoever waits goes on
    /// knocking, and would wake who listens for ever.
    pub(crate) fn let_in(&self) -> Result<Vec<Connection>, SocketError> {
        let mut come = Vec::new();
        for listener in std::iter::once(&self.listener).chain(&self.file) {
            for _ in 0..MOST_AT_ONCE {
                match listener.accept(Some(Instant::now())) {
                    Ok(guest) => come.push(guest),
                    Err(SocketError::TimedOut { .. }) => break,
                    // Those who are in are heard first; the next look finds the same.
                    Err(_) if !come.is_empty() => return Ok(come),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(come)
    }

    /// When the patience with the longest-waiting latecomer ends.
    pub(crate) fn patience_ends(&self) -> Option<Instant> {
        self.latecomers.first().map(|(_, until)| *until)
    }

    /// Those latecomers who may say something any moment.
    pub(crate) fn latecomers(&self) -> Vec<BorrowedFd<'_>> {
        self.latecomers.iter().map(|(guest, _)| guest.as_fd()).collect()
    }

    /// Tell whoever has come late that the group is complete; never waits. `knocked` says that somebody stands outside.
    /// Returns whether the door still works.
    pub(crate) fn turn_away(&mut self, knocked: bool) -> bool {
        let now = Instant::now();
        let come = if knocked { self.let_in() } else { Ok(Vec::new()) };
        let come = come.unwrap_or_else(|error| {
            tracing::debug!(%error, "latecomers are not told that the group is complete");
            Vec::new()
        });
        // A listener that is readable and yet lets nobody in would wake the watcher for ever.
        let works = !knocked || !come.is_empty();
        self.latecomers.extend(come.into_iter().map(|guest| (guest, now + HEAR_OUT_FOR)));
        let too_many = self.latecomers.len().saturating_sub(MOST_HEARD_OUT);
        for (index, (guest, until)) in std::mem::take(&mut self.latecomers).into_iter().enumerate() {
            // What it says is taken first: closing a socket on unread words would lose our answer, too.
            let is_silent =
                messages::receive::<Message>(&guest, Some(now)).is_err_and(|error| error.is_timed_out());
            if is_silent && now < until && index >= too_many {
                self.latecomers.push((guest, until));
            } else {
                refuse(&guest, &self.full, &[]);
            }
        }
        works
    }
}

/// Tell somebody why it cannot take part. It may have gone already, which is as good.
pub(crate) fn refuse(guest: &Connection, problem: &str, missing: &[usize]) {
    let refusal = Message::Refused { problem: problem.to_string(), missing: missing.to_vec() };
    let _ = messages::send(guest, &refusal, &[], Some(Instant::now() + ANSWER_WITHIN));
}

/// Ask whoever holds the name what it is; `None` if nobody answers.
fn ask_holder(invitation: &Invitation, address: &Address) -> Option<String> {
    let deadline = Some(Instant::now() + ANSWER_WITHIN);
    let connection = Connection::connect(address, deadline).ok()?;
    messages::send(&connection, &Message::Hello(invitation.hello()), &[], deadline).ok()?;
    match messages::receive(&connection, deadline).ok()?? {
        (Message::Refused { problem, .. }, _) => Some(problem),
        _ => Some("it answered something else".to_string()),
    }
}

/// Whether the process that took the name has ended; it closes its sockets before it does. `false` if that is not known.
fn has_ended(holder: Option<Credentials>) -> bool {
    match holder {
        Some(Credentials { pid, .. }) if pid != 0 => match pidfd::open(pid) {
            Ok(process) => pidfd::has_exited(process.as_fd()).unwrap_or(false),
            Err(error) => error.is_not_found(),
        },
        _ => false,
    }
}

fn taken_by(holder: Option<Credentials>) -> String {
    let who = match holder {
        Some(Credentials { pid, uid, .. }) if pid != 0 => format!("process {pid} of user {uid}"),
        Some(Credentials { uid, .. }) => format!("a process of user {uid} in another process namespace"),
        None => "another process".to_string(),
    };
    format!(
        "{who} is rank 0 of a group of this name already: give one of them another port, group name or run id"
    )
}
