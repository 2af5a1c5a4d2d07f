//! A reader's line to its writer: a thread that hears when the writer leaves or dies, and takes the memory of large messages.
//!
//! The one invariant that matters: **the end is told after everything that the writer had published**: whoever sees it looks
//! at the ring once more.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;
use unisono_os::poll::{self, Waker};
use unisono_os::socket::{Connection, SocketError};
use unisono_protocol::Bell;

use super::hall::Ringer;
use super::memory::{Home, ReaderMemory, WriterMemory};
use super::messages::{self, Message};
use super::wait::Ends;
use crate::marker::Mortal;

/// How much is heard before the thread looks whether it is to end: more than a writer ever says at once.
const MOST_AT_ONCE: usize = 1024;
/// More homes than a writer ever has.
const MOST_HOMES: usize = 1024;

/// What became of the writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Present,
    Left,
    Died,
}

/// Where large messages lie, as far as the writer's word of them arrived.
#[derive(Debug, Default)]
struct Homes {
    /// By number; or why one cannot be had.
    known: HashMap<u64, Result<Arc<Home>, String>>,
    /// The last number that arrived. They rise.
    latest: u64,
    /// The memory of one with a number above this was lost, and why.
    lost_above: Option<(u64, String)>,
}

impl Homes {
    fn get(&self, number: u64) -> Option<Result<Arc<Home>, String>> {
        let lost = || self.lost_above.as_ref().filter(|(above, _)| number > *above);
        self.known.get(&number).cloned().or_else(|| lost().map(|(_, problem)| Err(problem.clone())))
    }

    fn add(&mut self, number: u64, home: Result<Arc<Home>, String>) {
        self.latest = self.latest.max(number);
        if self.known.len() < MOST_HOMES {
            self.known.insert(number, home);
        }
    }

    /// The word of some home came without its memory. It does not say of which.
    fn lose(&mut self, problem: String) {
        self.lost_above.get_or_insert((self.latest, problem));
    }
}

/// What a reader shares with its threads.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) writer: WriterMemory,
    pub(super) own: ReaderMemory,
    pub(super) ends: Ends,
    pub(super) waker: Waker,
    pub(super) is_to_end: AtomicBool,
    fate: AtomicU32,
    /// The writer is gone and everything it said has been heard.
    has_heard_all: AtomicBool,
    homes: Mutex<Homes>,
}

impl Line {
    pub(super) fn new(writer: WriterMemory, own: ReaderMemory, waker: Waker) -> Line {
        let (is_to_end, fate, has_heard_all) =
            (AtomicBool::new(false), AtomicU32::new(0), AtomicBool::new(false));
        let (ends, homes) = (Ends::default(), Mutex::default());
        Line { writer, own, ends, waker, is_to_end, fate, has_heard_all, homes }
    }

    /// What became of the writer (acquire; pairs with the release in `writer_is_gone`).
    #[inline]
    pub(super) fn fate(&self) -> Fate {
        match self.fate.load(Ordering::Acquire) {
            0 => Fate::Present,
            1 => Fate::Left,
            _ => Fate::Died,
        }
    }

    /// The writer is not there any more. A writer that said goodbye has not died.
    fn writer_is_gone(&self) {
        let fate = if self.writer.page().is_closed() { 1 } else { 2 };
        // The first news stands.
        let _ = self.fate.compare_exchange(0, fate, Ordering::AcqRel, Ordering::Acquire);
        self.waker.wake(); // The thread is to hear what the writer said last.
        self.ring();
    }

    /// Where the large message of this number lies, or why that cannot be had: `None` as long as the writer's word of it is
    /// under way.
    pub(super) fn home(&self, number: u64) -> Option<Result<Arc<Home>, String>> {
        self.homes.lock().get(number)
    }

    /// Whether nothing more will be heard (acquire; whoever sees it finds all homes there are).
    pub(super) fn has_heard_all(&self) -> bool {
        self.has_heard_all.load(Ordering::Acquire)
    }

    /// Let the reader look again, if it sleeps.
    pub(super) fn ring(&self) {
        Bell::settle();
        self.own.page().doorbell.bell.wake_always(&Ringer);
    }

    /// The thread's life: sleep on the connection and the writer's pidfd until told to end.
    pub(super) fn listen(&self, connection: &Connection, pidfd: Option<&OwnedFd>) {
        let mut connection = Some(connection);
        // Acquire: pairs with the release in the reader's drop.
        while !self.is_to_end.load(Ordering::Acquire) {
            let is_present = self.fate() == Fate::Present;
            let mut descriptors: Vec<BorrowedFd<'_>> = vec![self.waker.as_fd()];
            descriptors.extend(connection.map(AsFd::as_fd));
            descriptors.extend(pidfd.filter(|_| is_present).map(AsFd::as_fd));
            let ready = match poll::until_readable(&descriptors, None) {
                Ok(ready) => ready,
                Err(error) => {
                    tracing::error!(%error, "a reader cannot listen for its writer's end any more");
                    return;
                }
            };
            if ready[0].any() {
                self.waker.drain();
            }
            let at_process = 1 + usize::from(connection.is_some());
            if is_present && ready.get(at_process).is_some_and(|process| process.any()) {
                self.writer_is_gone();
            }
            // What it said last is heard before its end counts as heard.
            let is_gone = self.fate() != Fate::Present;
            let is_closed = connection.is_some_and(|connection| !self.hear(connection));
            if is_closed {
                connection = None;
                self.writer_is_gone();
            }
            if is_gone || is_closed {
                self.has_heard_all.store(true, Ordering::Release);
                self.ring();
            }
        }
    }

    /// Hear what the writer has said so far; `false` once nothing more can come.
    fn hear(&self, connection: &Connection) -> bool {
        for _ in 0..MOST_AT_ONCE {
            match messages::receive(connection, Some(Instant::now())) {
                Ok(None) => return false,
                Ok(Some((message, packet))) => self.take_note(&message, packet.descriptors),
                Err(error) if error.is_timed_out() => return true,
                Err(error @ SocketError::DescriptorsLost) => {
                    tracing::error!(%error, "the memory of a large message did not arrive");
                    self.homes.lock().lose(error.to_string());
                    self.ring();
                }
                Err(error) => {
                    tracing::error!(%error, "a reader cannot hear its writer any more");
                    return false;
                }
            }
        }
        true
    }

    fn take_note(&self, message: &Message, descriptors: Vec<OwnedFd>) {
        match message {
            Message::Segment { number, bytes } => {
                let opened = descriptors.first().ok_or("it came without memory".to_string());
                let home = opened.and_then(|memory| Home::open(memory.as_fd(), *bytes)).map(Arc::new);
                if let Err(problem) = &home {
                    tracing::error!(problem, "a large message's memory is not what it should be");
                }
                self.homes.lock().add(*number, home);
                self.ring();
            }
            Message::Retired { number } => drop(self.homes.lock().known.remove(number)),
            // A writer says nothing else; what it does not mean for us is not for us.
            _ => {}
        }
    }
}

/// The writer, for the marker.
#[derive(Debug)]
pub(super) struct MortalWriter {
    pub(super) line: Weak<Line>,
    /// A mapping of its own: the line may be gone while the marker still looks.
    pub(super) memory: WriterMemory,
    pub(super) seat: usize,
}

impl Mortal for MortalWriter {
    fn death_word(&self) -> &AtomicU32 {
        self.memory.death_word(self.seat)
    }

    fn has_died(&self) {
        if let Some(line) = self.line.upgrade() {
            line.writer_is_gone();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_that_was_lost_is_told_from_one_that_is_under_way() {
        let mut homes = Homes::default();
        homes.add(1, Err("one".to_string()));
        assert!(homes.get(2).is_none(), "under way");
        homes.lose("two".to_string());
        homes.add(3, Err("three".to_string()));
        homes.lose("later".to_string());
        let problem = |number| homes.get(number).unwrap().unwrap_err();
        assert_eq!([problem(1), problem(2), problem(3)], ["one", "two", "three"]);
        assert!(homes.get(0).is_none());
    }
}
