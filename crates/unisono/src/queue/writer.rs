//! The writer of a queue: it reserves room in the ring, fills it in place, and publishes.
//!
//! The one invariant that matters: **a record is written only where every reader has passed**, those who have not come yet
//! included, and becomes visible as a whole.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use unisono_os::fork_guard::ForkMark;
use unisono_protocol::ring::{Kind, Record};

use super::ahead::Ahead;
use super::builder::Builder;
use super::elsewhere::Outlet;
use super::error::{Error, ReaderStatus, Result, WaitedFor};
use super::hall::{Hall, Ringer, View};
use super::handle::Handle;
use super::memory::ADDRESS_BYTES;
use super::pool::{Housing, Pool};
use super::slot::Slot;
use super::wait::{Due, LOOKS, Patience};
use crate::background::Background;
use crate::cadence::Cadence;
use crate::marker::Marker;
use crate::segment::check_headroom;

/// The side of a queue that writes. Dropped, it says goodbye; readers still get everything that was sent. Of a reader that was
/// gone before, with messages unread, and of which no call has told, the log does then.
///
/// ```
/// use unisono::queue::{Reader, Writer};
///
/// let mut writer = Writer::builder().readers(1).create()?;
/// let mut reader = Reader::open(writer.handle(), 0)?; // in another process
/// writer.send(b"hello")?;
/// assert_eq!(reader.recv()?.to_vec(), b"hello");
/// # Ok::<_, unisono::queue::Error>(())
/// ```
#[derive(Debug)]
pub struct Writer {
    pub(super) hall: Arc<Hall>,
    pub(super) handle: Handle,
    pub(super) limits: Limits,
    pub(super) view: View,
    /// How far this writer has come, and with how many messages.
    pub(super) head: u64,
    messages: u64,
    /// No reader was behind this when last looked.
    pub(super) slowest: u64,
    /// Where the messages end that somebody may not have read, if their number is bounded.
    pub(super) unread: VecDeque<u64>,
    pub(super) pool: Pool,
    pub(super) cadence: Cadence,
    ahead: Ahead,
    is_all_elsewhere: bool,
    host: Background,
    _marker: Arc<Marker>,
    born: ForkMark,
}

/// What a writer was built with.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    pub(super) timeout: Option<Duration>,
    pub(super) warn_interval: Duration,
    pub(super) max_chunks: Option<usize>,
    pub(super) max_chunk_bytes: u64,
    pub(super) crowded: bool,
}

/// Ends waits of a [`Writer`] from another thread. In a forked child it does nothing.
#[derive(Clone, Debug)]
pub struct WriterControl {
    hall: Arc<Hall>,
    born: ForkMark,
}

impl WriterControl {
    /// End the wait that is under way, if there is one, with [`Error::Cancelled`].
    pub fn cancel(&self) {
        if !self.born.crossed_fork() {
            self.hall.ends.cancel();
            self.hall.wake_writer();
        }
    }

    /// What is known of every reader, whatever the writer is doing; in a forked child, nothing.
    pub fn readers(&self) -> Vec<ReaderStatus> {
        if self.born.crossed_fork() { Vec::new() } else { self.hall.statuses() }
    }

    /// Let every call of this side end with [`Error::ShutDown`], now and from now on. Readers are not told before the
    /// writer is dropped.
    pub fn shut_down(&self) {
        if !self.born.crossed_fork() {
            self.hall.ends.shut_down();
            self.hall.wake_writer();
        }
    }
}

impl Writer {
    /// Begin to describe a queue.
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(super) fn assemble(
        hall: Arc<Hall>,
        handle: Handle,
        limits: Limits,
        host: Background,
        marker: Arc<Marker>,
    ) -> Writer {
        let is_all_elsewhere = hall.outlet.is_some() && hall.seats().is_empty();
        Writer {
            view: hall.view(),
            hall,
            handle,
            limits,
            head: 0,
            messages: 0,
            slowest: 0,
            unread: VecDeque::new(),
            pool: Pool::default(),
            cadence: Cadence::new(&LOOKS),
            ahead: Ahead::new(),
            is_all_elsewhere,
            host,
            _marker: marker,
            born: ForkMark::now(),
        }
    }

    /// What readers open the queue with.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// A control with which other threads end this writer's waits.
    pub fn control(&self) -> WriterControl {
        WriterControl { hall: Arc::clone(&self.hall), born: self.born }
    }

    /// How many messages have been sent.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// What is known of every reader; in a forked child, nothing.
    pub fn readers(&self) -> Vec<ReaderStatus> {
        if self.crossed_fork() { Vec::new() } else { self.hall.statuses() }
    }

    /// Wait until every rank has been claimed and its reader is ready, for at most `timeout`.
    ///
    /// # Errors
    /// [`Error::Timeout`] names those that are missing; [`Error::PeerDied`] or [`Error::PeerLeft`] a reader that came and went,
    /// unless the queue awaits its return.
    pub fn wait_until_ready(&mut self, timeout: impl Into<Option<Duration>>) -> Result<()> {
        const OPERATION: &str = "wait_until_ready";
        self.check_fork(OPERATION)?;
        let begun = self.hall.ends.begin();
        let mut patience = Patience::new(timeout.into(), self.limits.warn_interval);
        loop {
            let mut seats = self.hall.seats();
            if self.hall.is_complete(&seats) {
                return Ok(());
            }
            self.hall.ends.check(begun, OPERATION)?;
            if let Some(trouble) = self.hall.take_trouble(&mut seats) {
                return Err(trouble);
            }
            match patience.due() {
                Due::Nothing => self.hall.wait_for_change(seats, patience.limit()),
                Due::Warning(waited) => {
                    drop(seats);
                    self.warn(OPERATION, waited);
                }
                Due::Error(waited) => {
                    drop(seats);
                    let waited_for = WaitedFor::Readers(self.hall.missing());
                    return Err(Error::Timeout { operation: OPERATION, waited, waited_for });
                }
            }
        }
    }

    /// Send a copy of `message` to every reader; waits, within the queue's time-out, while a reader is too far behind.
    ///
    /// # Errors
    /// As [`Writer::reserve`].
    pub fn send(&mut self, message: &[u8]) -> Result<()> {
        self.send_within(message, self.limits.timeout)
    }

    /// As [`Writer::send`], with a time-out of its own; `None` waits without end.
    ///
    /// # Errors
    /// As [`Writer::reserve`].
    #[inline]
    pub fn send_within(&mut self, message: &[u8], timeout: impl Into<Option<Duration>>) -> Result<()> {
        let mut slot = self.reserve_within(message.len(), timeout)?;
        slot.fill(message);
        slot.commit();
        Ok(())
    }

    /// Room for a message of `bytes` bytes, to be filled in place and then [committed](Slot::commit).
    ///
    /// # Errors
    /// [`Error::Timeout`] with every reader that is too far behind, [`Error::PeerDied`] and [`Error::PeerLeft`] for one that is
    /// gone (unless the queue goes on without it), [`Error::ShutDown`], [`Error::Cancelled`]. Nothing was sent.
    pub fn reserve(&mut self, bytes: usize) -> Result<Slot<'_>> {
        self.reserve_within(bytes, self.limits.timeout)
    }

    /// As [`Writer::reserve`], with a time-out of its own; `None` waits without end.
    ///
    /// # Errors
    /// As [`Writer::reserve`].
    #[inline]
    pub fn reserve_within(&mut self, bytes: usize, timeout: impl Into<Option<Duration>>) -> Result<Slot<'_>> {
        const OPERATION: &str = "send";
        self.check_fork(OPERATION)?;
        self.look_at_seats()?;
        if !self.pool.is_unused() {
            self.take_back();
        }
        let bytes = bytes as u64;
        let timeout = self.wait_for_those_elsewhere(bytes, timeout.into())?;
        if self.is_all_elsewhere {
            return self.reserve_for_those_elsewhere(bytes);
        }
        if bytes > self.limits.max_chunk_bytes {
            return self.reserve_at_home(bytes, timeout);
        }
        let record = Record::at(self.head, Kind::Inline, bytes);
        self.wait_for_room(record.len(), timeout)?;
        crate::fault::reach("reserved");
        Ok(Slot::new(self, record))
    }

    /// Room in memory of its own, of which the record says where it is.
    #[cold]
    fn reserve_at_home(&mut self, bytes: u64, timeout: Option<Duration>) -> Result<Slot<'_>> {
        let start = Instant::now();
        let record = Record::at(self.head, Kind::Elsewhere, ADDRESS_BYTES);
        self.wait_for_room(record.len(), timeout)?;
        if let Some(target) = self.pool.target(bytes) {
            let timeout = timeout.map(|timeout| timeout.saturating_sub(start.elapsed()));
            self.wait_for_readers(target, timeout)?;
        }
        self.take_back();
        let housing = self.pool.house(bytes, &self.hall)?;
        crate::fault::reach("reserved");
        Ok(Slot::at_home(self, record, housing, bytes))
    }

    /// Room for a message that nobody reads from this memory.
    #[cold]
    fn reserve_for_those_elsewhere(&mut self, bytes: u64) -> Result<Slot<'_>> {
        if bytes > self.limits.max_chunk_bytes {
            check_headroom("a large message", bytes as usize)?;
        }
        Ok(Slot::own(self, vec![0; bytes as usize]))
    }

    /// Send what was published, or what nobody reads from this memory, to readers elsewhere.
    pub(super) fn send_elsewhere(&self, message: impl FnOnce() -> Vec<u8>) {
        if let Some(outlet) = &self.hall.outlet {
            outlet.send(message());
        }
    }

    /// A message that nobody reads from this memory.
    pub(super) fn publish_elsewhere(&mut self, message: Vec<u8>) {
        self.messages += 1;
        // Relaxed: for people.
        self.hall.memory.page().head.messages.store(self.messages, Ordering::Relaxed);
        self.send_elsewhere(|| message);
    }

    /// Take the homes of large messages back that all have read.
    fn take_back(&mut self) {
        self.find_behind(0); // Which looks where everybody stands.
        self.pool.take_back(self.slowest, &self.hall);
    }

    /// Write into the record at the head where the message lies.
    pub(super) fn write_address(&self, number: u64, bytes: u64) {
        self.hall.memory.set_address(self.head, number, bytes);
    }

    /// The record that was published last speaks of this home.
    pub(super) fn occupy(&mut self, housing: Arc<Housing>) {
        self.pool.occupy(self.head, housing);
    }

    /// Publish the record at the head, which is written.
    #[inline]
    pub(super) fn publish(&mut self, record: Record) {
        let memory = &self.hall.memory;
        memory.set_record_head(self.head, record.pack(self.messages));
        self.head += record.len();
        self.messages += 1;
        if self.limits.max_chunks.is_some() {
            self.unread.push_back(self.head);
        }
        crate::fault::reach("written");
        // Relaxed: for people.
        memory.page().head.messages.store(self.messages, Ordering::Relaxed);
        memory.page().head.position.publish(self.head);
        crate::fault::reach("published");
        // After the fence of the publishing: whoever came in between is in the new view, and its bell is rung.
        if self.hall.generation() != self.view.generation {
            self.view = self.hall.view();
        }
        for guest in &self.view.present {
            guest.memory.page().doorbell.bell.ring(&Ringer);
        }
        self.ahead.prepare(self.hall.memory.data(self.head, record.len()));
    }

    pub(super) fn head(&self) -> u64 {
        self.head
    }

    #[inline]
    fn check_fork(&self, operation: &'static str) -> Result<()> {
        if self.crossed_fork() { Err(Error::Forked { operation }) } else { Ok(()) }
    }

    /// Whether this is a forked child, which does not have the queue's memory.
    #[inline]
    pub(super) fn crossed_fork(&self) -> bool {
        self.born.crossed_fork()
    }

    /// Take note of who came and went, and of the end.
    #[inline]
    pub(super) fn look_at_seats(&mut self) -> Result<()> {
        if self.hall.ends.is_shut_down() {
            return Err(Error::ShutDown { operation: "send" });
        }
        if self.hall.generation() != self.view.generation {
            self.view = self.hall.view();
        }
        if self.view.is_troubled { self.hear_of_trouble() } else { Ok(()) }
    }

    #[cold]
    fn hear_of_trouble(&mut self) -> Result<()> {
        while self.view.is_troubled {
            if let Some(trouble) = self.hall.take_trouble(&mut self.hall.seats()) {
                return Err(trouble);
            }
            self.view = self.hall.view(); // Somebody came in its place meanwhile.
        }
        Ok(())
    }
}

impl Writer {
    /// What it would have heard with its next call.
    fn tell_the_log(&self) {
        let queue = self.handle.name();
        for error in self.hall.untold() {
            tracing::warn!(
                queue,
                "{error}, with messages unread that nobody will get: the writer is dropped"
            );
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.host.lives_elsewhere() {
            return;
        }
        self.hall.memory.page().set_closed();
        self.hall.host_is_to_end.store(true, Ordering::Release);
        self.hall.host.wake();
        self.host.join();
        self.tell_the_log();
        // The sockets close with the guests, which tells the readers.
        self.hall.seats().clear();
        self.view = View::default();
        self.hall.announce();
        self.hall.outlet.iter().for_each(Outlet::close);
    }
}
