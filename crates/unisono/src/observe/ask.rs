//! Asking many at once: connect to all, say the question, listen until all have answered or the time is up.
//!
//! Nobody who is asked is waited for longer than the others: there is one deadline for all. The one invariant that matters: **what is
//! heard is bounded**: by the length of a message, their number, and the time.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use unisono_os::poll;
use unisono_os::socket::{Address, Connection, Credentials, SocketError};

use crate::words::{self, Language};

/// How many messages one answer may have.
const MOST_MESSAGES: usize = 256;

/// What came of asking somebody.
pub(super) struct Answer<Message> {
    /// Who listens there, as the kernel says.
    pub(super) credentials: Credentials,
    pub(super) address: Address,
    pub(super) messages: Vec<Message>,
    /// Why there is no more than that; `None` if it said all it wanted to.
    pub(super) problem: Option<String>,
}

/// Somebody who was asked.
struct Asked<Message> {
    connection: Option<Connection>,
    answer: Answer<Message>,
}

/// Ask all of these the same; `is_whole` says whether an answer may be followed by more. Those of other users are passed over, and so
/// are those that have gone.
pub(super) fn ask<Message: Language>(
    addresses: Vec<Address>,
    uid: u32,
    question: &Message,
    deadline: Instant,
) -> Vec<Answer<Message>> {
    let mut asked: Vec<Asked<Message>> =
        addresses.into_iter().filter_map(|address| Asked::begin(address, uid, question)).collect();
    loop {
        let open = |asked: &&Asked<Message>| asked.connection.is_some();
        let descriptors: Vec<BorrowedFd<'_>> =
            asked.iter().filter(open).filter_map(|asked| Some(asked.connection.as_ref()?.as_fd())).collect();
        if descriptors.is_empty() || Instant::now() >= deadline {
            break;
        }
        if let Err(error) = poll::until_readable(&descriptors, Some(deadline)) {
            asked.iter_mut().for_each(|asked| asked.give_up(error.to_string()));
            break;
        }
        asked.iter_mut().for_each(Asked::hear);
    }
    // Who was late to look finds what has come meanwhile.
    asked.iter_mut().for_each(Asked::hear);
    asked.iter_mut().for_each(|asked| asked.give_up("does not answer".to_string()));
    asked.into_iter().map(|asked| asked.answer).collect()
}

impl<Message: Language> Asked<Message> {
    fn begin(address: Address, uid: u32, question: &Message) -> Option<Self> {
        let now = Some(Instant::now());
        let connection = match Connection::connect(&address, now) {
            Ok(connection) => connection,
            // Its queue is full: too many ask, or it has been stopped for long. Who it is cannot be seen.
            Err(error @ SocketError::TimedOut { .. }) => {
                return Some(Asked::never(address, uid, format!("cannot be asked: {error}")));
            }
            // This process may not open that many: somebody is there, and is not to be hidden by that.
            Err(SocketError::Os(error)) if error.is_exhausted() => {
                return Some(Asked::never(address, uid, format!("cannot be asked: {error}")));
            }
            Err(_) => return None,
        };
        let credentials = connection.peer_credentials().ok().filter(|found| found.uid == uid)?;
        let said = words::send(&connection, question, &[], now);
        let answer = Answer { credentials, address, messages: Vec::new(), problem: None };
        let mut asked = Asked { connection: Some(connection), answer };
        if let Err(error) = said {
            asked.give_up(error.to_string());
        }
        Some(asked)
    }

    /// Somebody who could not be asked, and why.
    fn never(address: Address, uid: u32, problem: String) -> Self {
        let credentials = Credentials { pid: 0, uid, gid: 0 };
        let answer = Answer { credentials, address, messages: Vec::new(), problem: Some(problem) };
        Asked { connection: None, answer }
    }

    /// Hear what there is.
    fn hear(&mut self) {
        while let Some(connection) = &self.connection {
            match words::receive(connection, Some(Instant::now())) {
                Ok(None) => self.connection = None,
                Ok(Some((message, _))) if self.answer.messages.len() < MOST_MESSAGES => {
                    self.answer.messages.push(message);
                }
                Ok(Some(_)) => self.give_up("does not stop to answer".to_string()),
                Err(error) if error.is_timed_out() => return,
                Err(error) => self.give_up(error.to_string()),
            }
        }
    }

    fn give_up(&mut self, problem: String) {
        if self.connection.take().is_some() {
            self.answer.problem = Some(problem);
        }
    }
}
