//! The subscriber's thread: it puts messages together from their parts and says how far it is.
//!
//! The one invariant that matters: **every part has the number that comes next**; with another one, or one that is not
//! signed, it is over. The thread takes all that comes at once, since the publisher bounds how much that is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use unisono_os::fault;

use crate::frame::{self, Doubt, FrameSet, Kind};
use crate::handshake::{Admitted, Link};
use crate::inbox::{End, Inbox};
use crate::link;
use crate::word::Word;

/// So many parts are taken before the publisher is told of them.
const MOST_PARTS_AT_ONCE: usize = 16;

/// What the thread has.
pub(crate) struct Receiver {
    link: Link,
    inbox: Arc<Inbox>,
    is_to_end: Arc<AtomicBool>,
    assembly: Assembly,
    /// The last word of how far this is, and what it said.
    said: Option<Vec<u8>>,
    told: (u64, u64),
    /// Ends after the sockets.
    _context: zmq::Context,
}

/// A message of which parts are still to come, and what comes next.
#[derive(Debug)]
struct Assembly {
    part: u64,
    message: u64,
    bytes: Vec<u8>,
}

impl Receiver {
    pub(crate) fn new(
        link: Link,
        context: zmq::Context,
        admitted: Admitted,
        inbox: Arc<Inbox>,
        is_to_end: Arc<AtomicBool>,
    ) -> Receiver {
        let assembly = Assembly { part: admitted.part, message: admitted.message, bytes: Vec::new() };
        let (said, told) = (None, (0, 0));
        Receiver { link, inbox, is_to_end, assembly, said, told, _context: context }
    }

    /// The thread's life: until it is told to end, then it says goodbye.
    pub(crate) fn run(mut self) {
        if let Err(error) = self.receive() {
            tracing::error!(%error, "a reader cannot hear its writer any more");
            self.inbox.end(End::LinkLost);
        }
        // After an end there is nobody, or nobody to be trusted, to say it to.
        let _ = self.say_how_far().and_then(|()| self.link.say(Word::Goodbye));
    }

    fn receive(&mut self) -> zmq::Result<()> {
        let mut is_over = false;
        // Acquire: pairs with the release in the subscriber's drop.
        while !self.is_to_end.load(Ordering::Acquire) {
            if is_over {
                link::wait(&[], Some(&self.inbox.waker), None)?;
                self.inbox.waker.drain();
                continue;
            }
            self.say_how_far()?;
            link::wait(&[&self.link.socket, &self.link.fate], Some(&self.inbox.waker), None)?;
            self.inbox.waker.drain();
            // First: what had arrived before the end is received by now.
            let has_ended = link::has_ended(&self.link.fate);
            is_over = self.take_all(if has_ended { usize::MAX } else { MOST_PARTS_AT_ONCE })?;
            if has_ended && !is_over {
                self.inbox.end(End::LinkLost);
                is_over = true;
            }
            if is_over {
                // The last words, so that the publisher need not wait for them; and nobody waits until they are heard.
                self.say_how_far()?;
                self.link.socket.set_linger(0)?;
            }
        }
        Ok(())
    }

    /// Take what is there; says whether it is over.
    fn take_all(&mut self, most: usize) -> zmq::Result<bool> {
        for _ in 0..most {
            let end = match frame::receive(&self.link.socket, &self.link.key, self.link.nonce)? {
                None => return Ok(false),
                Some(Ok(frames)) => self.take(&frames),
                Some(Err(Doubt::Key)) => Some(End::Unauthentic),
                Some(Err(Doubt::Shape)) => Some(End::Broken("sent something that is no part of a message")),
            };
            if let Some(end) = end {
                tracing::debug!(?end, "a queue from elsewhere has ended");
                self.inbox.end(end);
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn take(&mut self, frames: &FrameSet) -> Option<End> {
        match frames.header.kind {
            Kind::Data => match self.assembly.add(frames) {
                Ok(Some(message)) => {
                    self.inbox.deliver(message);
                    None
                }
                Ok(None) => {
                    self.inbox.has_begun(self.assembly.bytes.len() as u64, frames.header.length);
                    None
                }
                Err(end) => Some(end),
            },
            Kind::End => Some(self.assembly.check(frames).err().unwrap_or_else(|| {
                self.assembly.part += 1;
                End::Left
            })),
            Kind::Complete => {
                self.inbox.set_complete();
                None
            }
            // What is left of the way in.
            Kind::Challenge | Kind::Welcome | Kind::Refused => None,
        }
    }

    /// Tell the publisher how far this is, if that is news.
    fn say_how_far(&mut self) -> zmq::Result<()> {
        let now = (self.assembly.part, self.inbox.finished());
        if self.said.is_some() && self.told == now {
            return Ok(());
        }
        let word = self.link.say(Word::Ack { parts: now.0, messages: now.1 })?;
        fault::reach("said ack");
        // The publisher need not remember the one before.
        if let Some(before) = self.said.replace(word) {
            self.link.socket.set_unsubscribe(&before)?;
        }
        self.told = now;
        Ok(())
    }
}

impl Assembly {
    /// Whether this is the part that comes next.
    fn check(&self, frames: &FrameSet) -> Result<(), End> {
        let header = frames.header;
        match (header.part, header.message) == (self.part, self.message) {
            true => Ok(()),
            false => {
                let parts = (self.part, header.part);
                Err(End::Lost { expected: self.message, found: header.message, parts })
            }
        }
    }

    /// Add the next part; gives the message if it is whole by that.
    fn add(&mut self, frames: &FrameSet) -> Result<Option<Vec<u8>>, End> {
        self.check(frames)?;
        let (header, payload) = (frames.header, &frames.payload[..]);
        let (at, here) = (self.bytes.len() as u64, payload.len() as u64);
        let fits = header.offset == at && header.length.checked_sub(at).is_some_and(|rest| here <= rest);
        if !fits || (here == 0 && header.length != 0) {
            return Err(End::Broken("sent a part that does not fit its message"));
        }
        let rest = usize::try_from(header.length - at).map_err(|_| TOO_LONG)?;
        self.bytes.try_reserve_exact(rest).map_err(|_| TOO_LONG)?;
        self.bytes.extend_from_slice(payload);
        self.part += 1;
        if self.bytes.len() as u64 != header.length {
            fault::reach("half a message");
            return Ok(None);
        }
        self.message += 1;
        Ok(Some(std::mem::take(&mut self.bytes)))
    }
}

const TOO_LONG: End = End::Broken("sent a message for which there is no memory");
