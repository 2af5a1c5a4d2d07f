//! A reader on the writer's machine: it takes messages in order, in place, and gives their room back.
//!
//! The one invariant that matters: **what is read from the ring is read once and bounded** by what the writer has published
//! and the ring can hold; and what was published before the writer's end is delivered before the end is told.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use unisono_os::clock;
use unisono_protocol::ring::{self, Kind, Record, wait_at};

use super::builder::WARN_INTERVAL;
use super::claim;
use super::error::{Error, Result, Role, WaitedFor};
use super::hall::Ringer;
use super::handle::Handle;
use super::line::{Fate, Line};
use super::memory::Home;
use super::wait::{Begun, Due, LOOKS, Pace, Patience, Waiting};
use crate::background::Background;
use crate::cadence::Cadence;
use crate::marker::Marker;
use crate::memory::Source;

/// Looks for a message before anything else is thought of; a microsecond or so.
const EAGER_LOOKS: u32 = 50;
/// A reader that never waits says now and then that it lives; reading the clock for every message would cost as much as
/// a short message does.
const STEPS_NOTED: u64 = 64;

/// Whether a wait ends when the writer is gone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum UntilGone {
    Yes,
    No,
}

/// Where a large message lies, and its length.
pub(super) type Housed = (Arc<Home>, u64);

/// What a reader on the writer's machine has.
#[derive(Debug)]
pub(super) struct Near {
    pub(super) line: Arc<Line>,
    queue: String,
    writer_rank: usize,
    writer_pid: u32,
    crowded: bool,
    pub(super) warn_interval: Duration,
    /// Where the next message begins, how many there were before it, and up to where they are known to be written.
    position: u64,
    messages: u64,
    head: u64,
    cadence: Cadence,
    pace: Pace,
    listener: Background,
    _marker: Marker,
}

impl Near {
    /// Claim `rank` of the queue that the handle names.
    pub(super) fn open(handle: &Handle, rank: usize, deadline: Option<Instant>) -> Result<Near> {
        let claimed = claim::claim(handle, rank, deadline)?;
        Ok(Near {
            line: claimed.line,
            queue: handle.name(),
            writer_rank: handle.writer_rank(),
            writer_pid: claimed.writer_pid,
            crowded: claimed.admitted.crowded,
            warn_interval: WARN_INTERVAL,
            position: claimed.admitted.position,
            messages: claimed.admitted.messages,
            head: claimed.admitted.position,
            cadence: Cadence::new(&LOOKS),
            pace: Pace::default(),
            listener: claimed.listener,
            _marker: claimed.marker,
        })
    }

    /// Wait until every reader of the queue is ready.
    pub(super) fn wait_until_ready(
        &mut self,
        operation: &'static str,
        timeout: Option<Duration>,
    ) -> Result<()> {
        let line = Arc::clone(&self.line);
        self.wait_for_what_is_promised(operation, timeout, UntilGone::Yes, || line.writer.page().is_ready())
    }

    /// The next message: its record and, if it is a large one, where it lies and its length.
    #[inline]
    pub(super) fn find(
        &mut self,
        operation: &'static str,
        timeout: Option<Duration>,
    ) -> Result<(Record, Option<Housed>)> {
        if self.line.ends.is_shut_down() {
            return Err(Error::ShutDown { operation });
        }
        let waited = if self.head == self.position {
            self.wait_for_message(operation, timeout)?
        } else {
            Duration::ZERO
        };
        let record = self.record()?;
        let home = match record.kind {
            Kind::Inline => None,
            Kind::Elsewhere => {
                Some(self.find_home(operation, timeout.map(|timeout| timeout.saturating_sub(waited)))?)
            }
        };
        crate::fault::reach("taken");
        Ok((record, home))
    }

    /// The bytes of a record at the position.
    #[inline]
    pub(super) fn contents(&self, record: Record) -> Source<'_> {
        self.line.writer.data(self.position + record.contents(), record.bytes).as_source()
    }

    /// The number of the message at the position. Where this reader began was counted by one who could not tell whether the writer
    /// was in between two messages.
    pub(super) fn number(&self) -> u64 {
        Record::number(self.line.writer.record_head(self.position), self.messages)
    }

    /// The record at the position, bounded by what is published.
    #[inline]
    fn record(&self) -> Result<Record> {
        let head = self.line.writer.record_head(self.position);
        Record::unpack(head, self.head - self.position)
            .ok_or_else(|| self.broken("wrote a record that is none"))
    }

    /// Where the large message lies of which the record at the position speaks, and its length. The writer's word of it is
    /// under way at the latest.
    #[cold]
    fn find_home(&mut self, operation: &'static str, timeout: Option<Duration>) -> Result<Housed> {
        let (number, bytes) = self.line.writer.address(self.position);
        let line = Arc::clone(&self.line);
        let is_known = || line.has_heard_all() || line.home(number).is_some();
        self.wait_for_what_is_promised(operation, timeout, UntilGone::No, is_known)?;
        match line.home(number) {
            Some(Ok(home)) if bytes <= home.bytes() => Ok((home, bytes)),
            Some(Err(problem)) => Err(Error::Undelivered { operation, problem }),
            Some(Ok(_)) => Err(self.broken("speaks of a large message that is longer than its home")),
            // All is heard: the writer is gone, and had not come to telling of it.
            None => Err(self.end(line.fate())),
        }
    }

    /// Wait for the next message; says how long that took.
    #[inline]
    fn wait_for_message(&mut self, operation: &'static str, timeout: Option<Duration>) -> Result<Duration> {
        let waited = if self.is_there_soon() { Duration::ZERO } else { self.wait_long(operation, timeout)? };
        let (writer, position) = (&self.line.writer, self.position);
        let head = self.pace.fall_behind(&writer.page().head.position, position);
        match ring::unread(position, head, writer.ring_bytes()) {
            Some(_) => {
                self.head = head;
                Ok(waited)
            }
            None => Err(self.broken("wrote a position that cannot be")),
        }
    }

    /// The common case, without a thought for anything else: the message is there, or comes in a moment.
    #[inline]
    fn is_there_soon(&mut self) -> bool {
        let head = &self.line.writer.page().head.position;
        if head.look() != self.position {
            return true;
        }
        self.pace.has_waited();
        for _ in 0..if self.crowded { 1 } else { EAGER_LOOKS } {
            std::hint::spin_loop();
            if head.look() != self.position {
                return true;
            }
        }
        false
    }

    #[cold]
    fn wait_long(&mut self, operation: &'static str, timeout: Option<Duration>) -> Result<Duration> {
        let (line, position) = (Arc::clone(&self.line), self.position);
        self.note_step();
        let (begun, is_there) = (line.ends.begin(), || line.writer.page().head.position.look() != position);
        let waited = self.wait(operation, begun, timeout, UntilGone::Yes, is_there);
        self.note_step();
        waited
    }

    /// Say that this reader lives and works.
    fn note_step(&self) {
        // Relaxed: for people.
        self.line.own.page().tail.moved_at.store(clock::coarse_nanoseconds(), Ordering::Relaxed);
    }

    /// As [`wait`](Near::wait), for what the writer owes; it is said in the log when that takes long.
    fn wait_for_what_is_promised(
        &mut self,
        operation: &'static str,
        timeout: Option<Duration>,
        until_gone: UntilGone,
        is_there: impl Fn() -> bool,
    ) -> Result<()> {
        let begun = self.line.ends.begin();
        let mut patience = Patience::new(timeout, self.warn_interval);
        loop {
            let ended = self.wait(operation, begun, Some(patience.limit()), until_gone, &is_there);
            if !matches!(ended, Err(Error::Timeout { .. })) {
                return ended.map(drop);
            }
            match patience.due() {
                Due::Nothing => {}
                Due::Warning(waited) => {
                    let writer = self.writer();
                    tracing::warn!(queue = self.queue, "{operation} has waited for {waited:.0?}: {writer}");
                }
                Due::Error(waited) => {
                    return Err(Error::Timeout { operation, waited, waited_for: self.writer() });
                }
            }
        }
    }

    /// The writer, as one that is waited for.
    fn writer(&self) -> WaitedFor {
        let messages = self.line.writer.page().head.messages.load(Ordering::Relaxed);
        let (rank, pid) = (self.writer_rank, self.writer_pid);
        WaitedFor::Writer { rank, pid, messages, address: None, last_step: None }
    }

    /// Wait at the bell until `is_there`, the end of the writer (if nothing more can come from it then) or of the wait; says how
    /// long that took.
    fn wait(
        &mut self,
        operation: &'static str,
        begun: Begun,
        timeout: Option<Duration>,
        until_gone: UntilGone,
        is_there: impl Fn() -> bool,
    ) -> Result<Duration> {
        let line = Arc::clone(&self.line);
        let look = || {
            // The end first: what was published before it is seen by the look that follows.
            let fate = line.fate();
            if is_there() {
                return Some(Ok(()));
            }
            if let Err(end) = line.ends.check(begun, operation) {
                return Some(Err(end));
            }
            (fate != Fate::Present && until_gone == UntilGone::Yes).then(|| Err(self.end(fate)))
        };
        let mut cadence = self.cadence;
        let mut waiting = Waiting::new(&mut cadence, self.crowded, timeout);
        let found = wait_at(&line.own.page().doorbell.bell, look, &mut waiting);
        let waited = waiting.waited();
        drop(waiting);
        self.cadence = cadence;
        let Some(found) = found else {
            return Err(Error::Timeout { operation, waited, waited_for: self.writer() });
        };
        found.map(|()| waited)
    }

    fn end(&self, fate: Fate) -> Error {
        let (role, rank, pid) = (Role::Writer, self.writer_rank, self.writer_pid);
        match fate {
            Fate::Died => Error::PeerDied { role, rank, pid },
            Fate::Left | Fate::Present => Error::PeerLeft { role, rank, pid },
        }
    }

    fn broken(&self, problem: &'static str) -> Error {
        let (role, rank, pid) = (Role::Writer, self.writer_rank, self.writer_pid);
        Error::PeerBroken { role, rank, pid, problem }
    }

    /// Give the room of the message at the position back.
    #[inline]
    pub(super) fn pass(&mut self, record: Record) {
        crate::fault::reach("read");
        self.position += record.len();
        self.messages = self.messages.wrapping_add(1); // Where it began was the writer's word.
        let tail = &self.line.own.page().tail;
        // Relaxed: for people.
        tail.messages.store(self.messages, Ordering::Relaxed);
        if self.messages % STEPS_NOTED == 1 {
            self.note_step();
        }
        tail.position.publish(self.position);
        crate::fault::reach("passed");
        tail.space.ring(&Ringer);
    }
}

impl Drop for Near {
    fn drop(&mut self) {
        if self.listener.lives_elsewhere() {
            return;
        }
        self.line.own.page().set_left();
        self.line.is_to_end.store(true, Ordering::Release);
        self.line.waker.wake();
        // The thread has the connection: it closes with it.
        self.listener.join();
    }
}
