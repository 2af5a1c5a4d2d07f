//! Send and recv: data from one rank to one other, in the order in which it was sent.
//!
//! Each ordered pair has a window of bytes in the receiver's memory, a ring of cache lines, and numbers its messages on its
//! own. A message is a header (number, count, type) and its bytes, from a line's beginning. A send returns once all its bytes
//! are in the window; a larger one waits for the receiver to make room. What the header says is compared with what
//! the receiver asked for before a byte is copied.

use std::time::Duration;

use parking_lot::MutexGuard;
use unisono_kernels::DType;
use unisono_protocol::{Cursor, Ended, wait_until, window};

use crate::arguments;
use crate::call::{Algorithm, Call, Operation};
use crate::error::{BoxedResult, Error};
use crate::fault;
use crate::group::Group;
use crate::group::cause::Cause;
use crate::group::layout::LINE;
use crate::group::members::{Situation, Waker};
use crate::group::waiter::Waiter;
use crate::memory::{Source, Target, copy};

/// Number, count and type code of a message.
type Header = [u64; 3];
const HEADER_BYTES: usize = size_of::<Header>();

/// One side of a window: how far this rank has come.
#[derive(Debug, Default)]
pub(crate) struct Side {
    /// Lines filled (sender) or emptied (receiver).
    lines: u64,
    /// Messages sent or received.
    pub(crate) messages: u64,
}

/// One send or recv under way.
struct Transfer<'g> {
    group: &'g Group,
    side: MutexGuard<'g, Side>,
    waiter: Waiter<'g>,
    call: Call,
    peer: usize,
    window: Target<'g>,
    /// The cursor that this rank moves, and the one it waits for.
    own: &'g Cursor,
    other: &'g Cursor,
    /// The number under which this rank's record shows the call.
    record: u64,
    touched: bool,
}

/// Send `data` to rank `to`.
pub(crate) fn send(
    group: &Group,
    data: Source<'_>,
    count: usize,
    dtype: DType,
    to: usize,
    timeout: Option<Duration>,
) -> BoxedResult<()> {
    arguments::rank("send", "receiver", to, group.members.world)?;
    group.enter("send")?;
    if to == group.members.rank {
        return group.loopback.send(group, dtype, data, timeout);
    }
    let members = &*group.members;
    let side = group.lock_side("send", &group.outgoing[to], timeout)?;
    let call = Call::new(Operation::Send).of(count, dtype).rooted(to).by(Algorithm::Window);
    let window = members.memory(to).window(members.rank);
    let (own, other) = (members.own().head(to), members.memory(to).tail(members.rank));
    let mut transfer = Transfer::begin(group, side, call, to, window, (own, other), timeout);
    if members.is_stopped() || members.memory(to).header().has_left() {
        return Err(transfer.fail(Ended::Aborted(1 << to)));
    }
    transfer.send(data, count, dtype)
}

/// Receive `data` from rank `from`.
pub(crate) fn recv(
    group: &Group,
    data: Target<'_>,
    count: usize,
    dtype: DType,
    from: usize,
    timeout: Option<Duration>,
) -> BoxedResult<()> {
    arguments::rank("recv", "sender", from, group.members.world)?;
    group.enter("recv")?;
    if from == group.members.rank {
        return group.loopback.recv(group, dtype, data, count, timeout);
    }
    let members = &*group.members;
    let side = group.lock_side("recv", &group.incoming[from], timeout)?;
    let call = Call::new(Operation::Recv).of(count, dtype).rooted(from).by(Algorithm::Window);
    let window = members.own().window(from);
    let (own, other) = (members.own().tail(from), members.memory(from).head(members.rank));
    let mut transfer = Transfer::begin(group, side, call, from, window, (own, other), timeout);
    transfer.recv(data, count, dtype)
}

impl Drop for Transfer<'_> {
    /// However it ended, this rank is not inside of it any more.
    fn drop(&mut self) {
        self.group.note_transfer_end(self.record);
    }
}

impl<'g> Transfer<'g> {
    fn begin(
        group: &'g Group,
        side: MutexGuard<'g, Side>,
        call: Call,
        peer: usize,
        window: Target<'g>,
        (own, other): (&'g Cursor, &'g Cursor),
        timeout: Option<Duration>,
    ) -> Self {
        let record = group.note_transfer(call);
        let waiter = Waiter::new(&group.members, group.crowded, timeout);
        Transfer { group, side, waiter, call, peer, window, own, other, record, touched: false }
    }

    fn send(&mut self, data: Source<'_>, count: usize, dtype: DType) -> BoxedResult<()> {
        let header: Header = [self.side.messages, count as u64, dtype as u64];
        let total = HEADER_BYTES + data.len();
        let mut done = 0;
        while done < total {
            let room = self.wait_for_room((total - done).div_ceil(LINE))?;
            let bytes = (room * LINE).min(total - done);
            self.write(done, bytes, &header, data);
            fault::reach("after_copy_in");
            done += bytes;
            self.advance(bytes);
            fault::reach("after_publish");
        }
        self.side.messages += 1;
        Ok(())
    }

    fn recv(&mut self, data: Target<'_>, count: usize, dtype: DType) -> BoxedResult<()> {
        let mut available = self.wait_for_data()?;
        let mut header: Header = [0; 3];
        copy(Target::of(&mut header), self.window.part(self.position(), HEADER_BYTES).as_source());
        if header[..] != [self.side.messages, count as u64, dtype as u64] {
            return Err(self.mismatch(header));
        }
        let total = HEADER_BYTES + data.len();
        let mut done = 0;
        loop {
            let bytes = (available * LINE).min(total - done);
            self.read(done, bytes, data);
            done += bytes;
            self.advance(bytes);
            if done == total {
                break;
            }
            available = self.wait_for_data()?;
        }
        self.side.messages += 1;
        Ok(())
    }

    /// Lines of the window.
    fn lines(&self) -> u64 {
        (self.window.len() / LINE) as u64
    }

    /// Where in the window this rank stands, in bytes.
    fn position(&self) -> usize {
        (self.side.lines % self.lines()) as usize * LINE
    }

    /// Publish that `bytes` more were written or read: whole lines, because a message begins on a line.
    fn advance(&mut self, bytes: usize) {
        self.touched = true;
        self.side.lines += bytes.div_ceil(LINE) as u64;
        // Release: the other side, which acquires the cursor, sees what was written, or may overwrite what was read.
        self.own.word().publish(self.side.lines, &Waker);
    }

    /// Lines that may be written, at most a quarter of the window at a time so that both sides work at once.
    fn wait_for_room(&mut self, needed: usize) -> BoxedResult<usize> {
        let lines = self.lines();
        let wanted = (needed as u64).min((lines / 4).max(1));
        let free = |transfer: &Self| window::free(transfer.other.word().look(), transfer.side.lines, lines);
        if free(self) < wanted {
            self.wait((self.side.lines + wanted).saturating_sub(lines))?;
        }
        Ok(free(self).clamp(1, wanted.max(1)) as usize)
    }

    /// Lines that may be read: at least one.
    fn wait_for_data(&mut self) -> BoxedResult<usize> {
        let lines = self.lines();
        let filled =
            |transfer: &Self| window::filled(transfer.other.word().look(), transfer.side.lines, lines);
        if filled(self) == 0 {
            self.wait(self.side.lines + 1)?;
        }
        Ok(filled(self).clamp(1, (lines / 4).max(1)) as usize)
    }

    fn wait(&mut self, target: u64) -> BoxedResult<()> {
        let other = self.other;
        wait_until(1 << self.peer, target, |_| other.word(), &mut self.waiter)
            .map_err(|ended| self.fail(ended))
    }

    /// Write `bytes` of the message from its byte `done` to where this rank stands.
    fn write(&self, done: usize, bytes: usize, header: &Header, data: Source<'_>) {
        let header = Source::of(header).part(done, bytes);
        self.put(self.position(), header);
        let data = data.part(done.saturating_sub(HEADER_BYTES), bytes - header.len());
        self.put((self.position() + header.len()) % self.window.len(), data);
    }

    /// Read `bytes` of the message from its byte `done` from where this rank stands.
    fn read(&self, done: usize, bytes: usize, data: Target<'_>) {
        let skipped = HEADER_BYTES.saturating_sub(done).min(bytes);
        let data = data.part((done + skipped) - HEADER_BYTES, bytes - skipped);
        let from = (self.position() + skipped) % self.window.len();
        let first = data.len().min(self.window.len() - from);
        copy(data.part(0, first), self.window.part(from, first).as_source());
        copy(data.part(first, usize::MAX), self.window.part(0, data.len() - first).as_source());
    }

    /// Copy into the window from byte `at`, around its end if need be.
    fn put(&self, at: usize, data: Source<'_>) {
        let first = data.len().min(self.window.len() - at);
        copy(self.window.part(at, first), data.part(0, first));
        copy(self.window.part(0, data.len() - first), data.part(first, usize::MAX));
    }

    fn situation(&self) -> Situation {
        self.waiter.situation(self.call, self.side.messages + 1)
    }

    #[cold]
    fn fail(&mut self, ended: Ended) -> Box<Error> {
        self.group.end_transfer(ended, self.situation(), self.touched)
    }

    #[cold]
    fn mismatch(&mut self, found: Header) -> Box<Error> {
        let theirs = Call {
            count: usize::try_from(found[1]).unwrap_or(usize::MAX),
            dtype: u8::try_from(found[2]).ok().and_then(DType::from_code),
            ..Call::new(Operation::Send).rooted(self.group.members.rank)
        };
        let cause = Cause::Mismatch {
            number: self.side.messages + 1,
            mine: self.call,
            peer: self.peer,
            theirs: Some(theirs),
        };
        self.group.members.stop(cause);
        self.group.end_with(self.group.members.explain(1 << self.peer, self.situation()))
    }
}
