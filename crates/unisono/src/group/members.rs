//! The ranks of one group as this rank sees them: their memories, who is known dead, and why the group stopped.
//!
//! Shared between the callers of operations and the watcher threads. Stopping a group follows one order
//! everywhere: first the cause is written down in the own header, then ABORT is set in every word that
//! anybody may wait for, then the sleepers are woken. So whoever sees ABORT finds the cause.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use unisono_os::futex;
use unisono_protocol::Futex;

use super::cause::Cause;
use super::header::Header;
use super::shared_memory::SharedMemory;
use crate::call::Call;
use crate::error::{Error, LastOperation, PeerStatus};

/// The kernel's futex, for publishers: they only wake.
pub(crate) struct Waker;

impl Futex for Waker {
    fn sleep_while(&mut self, _word: &AtomicU32, _expected: u32) {}

    fn wake_all(&self, word: &AtomicU32) {
        futex::wake_all(word);
    }
}

/// The ranks of a group.
#[derive(Debug)]
pub(crate) struct Members {
    pub(crate) rank: usize,
    pub(crate) world: usize,
    /// All ranks but this one, one bit each.
    peers: u64,
    pids: Vec<u32>,
    own: SharedMemory,
    memories: Vec<SharedMemory>,
    /// One bit per rank whose process is known to be dead.
    dead: AtomicU64,
    stopping: Mutex<()>,
}

/// The call during which a rank had to stop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Situation {
    pub(crate) call: Call,
    pub(crate) number: u64,
    pub(crate) waited: Duration,
    /// Whether the thread itself asked for the end of its wait.
    pub(crate) interrupted: bool,
}

impl Situation {
    /// That of a call which has not waited.
    pub(crate) fn at_once(call: Call, number: u64) -> Self {
        Situation { call, number, waited: Duration::ZERO, interrupted: false }
    }
}

impl Members {
    pub(crate) fn new(rank: usize, pids: Vec<u32>, memories: Vec<SharedMemory>) -> Self {
        Members {
            rank,
            world: memories.len(),
            peers: (u64::MAX >> (64 - memories.len())) & !(1 << rank),
            pids,
            own: memories[rank].clone(),
            memories,
            dead: AtomicU64::new(0),
            stopping: Mutex::default(),
        }
    }

    /// The memory of a rank.
    #[inline]
    pub(crate) fn memory(&self, rank: usize) -> &SharedMemory {
        &self.memories[rank]
    }

    /// The own memory.
    #[inline]
    pub(crate) fn own(&self) -> &SharedMemory {
        &self.own
    }

    /// All ranks but this one, one bit each.
    #[inline]
    pub(crate) fn peers(&self) -> u64 {
        self.peers
    }

    pub(crate) fn pid(&self, rank: usize) -> u32 {
        self.pids[rank]
    }

    /// Note that the process of `rank` is dead, and stop the group. A rank that said goodbye is not dead.
    pub(crate) fn note_death(&self, rank: usize) {
        if self.memories[rank].header().has_left() {
            return;
        }
        // AcqRel: whoever reads the bit after seeing ABORT sees it set.
        if self.dead.fetch_or(1 << rank, Ordering::AcqRel) & (1 << rank) == 0 {
            self.stop(Cause::PeerDied { rank, pid: self.pids[rank] });
            tracing::debug!(rank, pid = self.pids[rank], "a rank died");
        }
    }

    /// Write down why, then let nobody wait for more.
    ///
    /// Threads of this rank take turns: one whose cause came second must not set ABORT before the first has written its
    /// cause to the end.
    pub(crate) fn stop(&self, cause: Cause) {
        let _turn = self.stopping.lock();
        let (kind, fields) = cause.pack();
        self.own().header().cause.write(kind, &fields);
        for memory in &self.memories {
            self.abort_words_of(memory);
        }
    }

    /// Say goodbye: whoever waits for more from this rank learns that nothing will come.
    pub(crate) fn leave(&self) {
        self.own().header().set_left();
        self.abort_words_of(self.own());
        // Whoever waits for several ranks sleeps on the word of one of them.
        for memory in &self.memories {
            memory.arrival().word().rouse(&Waker);
        }
    }

    fn abort_words_of(&self, memory: &SharedMemory) {
        memory.arrival().word().abort(&Waker);
        for peer in 0..self.world {
            memory.head(peer).word().abort(&Waker);
            memory.tail(peer).word().abort(&Waker);
        }
    }

    /// Whether this rank has been told that the group stopped.
    #[inline]
    pub(crate) fn is_stopped(&self) -> bool {
        self.own().arrival().look().is_aborted()
    }

    /// What a rank last did, as its record says.
    pub(crate) fn last_operation(&self, rank: usize) -> Option<LastOperation> {
        last_operation_in(self.memories[rank].header())
    }

    pub(crate) fn status(&self, rank: usize) -> PeerStatus {
        PeerStatus { last: self.last_operation(rank), ..self.identity(rank) }
    }

    /// What is known of a rank without a look at its memory.
    fn identity(&self, rank: usize) -> PeerStatus {
        let alive = self.dead.load(Ordering::Acquire) & (1 << rank) == 0;
        PeerStatus { rank, pid: self.pids[rank], alive, last: None }
    }

    /// What is known of all ranks without a look at their memory.
    pub(crate) fn identities(&self) -> Vec<PeerStatus> {
        (0..self.world).map(|rank| self.identity(rank)).collect()
    }

    pub(crate) fn statuses(&self, ranks: u64) -> Vec<PeerStatus> {
        (0..self.world).filter(|rank| ranks & (1 << rank) != 0).map(|rank| self.status(rank)).collect()
    }

    /// Why the group stopped, or why nothing more comes from the `missing` ranks.
    pub(crate) fn explain(&self, missing: u64, at: Situation) -> Error {
        let dead = self.dead.load(Ordering::Acquire);
        if dead != 0 {
            return self.peer_died(dead.trailing_zeros() as usize, None, at);
        }
        if let Some((by, cause)) = self.causes().min_by_key(|(_, cause)| cause.precedence()) {
            return self.error_of(by, cause, at);
        }
        match (0..self.world)
            .find(|rank| missing & (1 << rank) != 0 && self.memories[*rank].header().has_left())
        {
            Some(rank) => self.peer_left(rank, at, true),
            None => Error::Aborted { by: None, call: at.call, number: at.number },
        }
    }

    /// The news that one of the `missing` ranks has left, if that is all that has happened: nobody else is stopped by it.
    pub(crate) fn only_left(&self, missing: u64, at: Situation) -> Option<Error> {
        if self.dead.load(Ordering::Acquire) != 0 || self.causes().next().is_some() || self.is_stopped() {
            return None;
        }
        let gone = |rank: &usize| missing & (1 << rank) != 0 && self.memories[*rank].header().has_left();
        (0..self.world).find(gone).map(|rank| self.peer_left(rank, at, false))
    }

    /// Why ranks stopped the group, as far as they have written it down.
    fn causes(&self) -> impl Iterator<Item = (usize, Cause)> {
        (0..self.world).filter_map(|rank| {
            let (kind, fields) = self.memories[rank].header().cause.read()?;
            Some((rank, Cause::unpack(kind, fields, self.world)?))
        })
    }

    fn peer_left(&self, rank: usize, at: Situation, terminal: bool) -> Error {
        Error::PeerLeft { rank, pid: self.pids[rank], call: at.call, number: at.number, terminal }
    }

    fn error_of(&self, by: usize, cause: Cause, at: Situation) -> Error {
        let reported_by = (by != self.rank).then_some(by);
        match cause {
            Cause::PeerDied { rank, .. } => self.peer_died(rank, reported_by, at),
            Cause::Mismatch { number, mine, peer, theirs } => Error::Mismatch {
                number,
                rank: by,
                mine,
                peer,
                theirs: theirs.map_or("something else before".to_string(), |call| call.to_string()),
            },
            Cause::Aborted => Error::Aborted { by: Some(by), call: at.call, number: at.number },
            Cause::Timeout { missing, waited } => Error::Timeout {
                call: at.call,
                number: at.number,
                waited,
                peers: self.statuses(missing),
                reported_by,
                terminal: true,
            },
            Cause::PeerLeft { rank } => self.peer_left(rank, at, true),
        }
    }

    fn peer_died(&self, rank: usize, reported_by: Option<usize>, at: Situation) -> Error {
        Error::PeerDied {
            rank,
            pid: self.pids[rank],
            last: self.last_operation(rank).map(Box::new),
            call: at.call,
            number: at.number,
            reported_by,
        }
    }
}

/// What the owner of a header last did: what it is inside of, else its last collective, else its last send or recv.
pub(crate) fn last_operation_in(header: &Header) -> Option<LastOperation> {
    let read =
        |(number, fields, finished)| Some(LastOperation { number, call: Call::unpack(fields)?, finished });
    let collective = header.latest.newest().and_then(read);
    let transfer = header.transfers.newest().and_then(read);
    transfer.clone().filter(|transfer| !transfer.finished).or(collective).or(transfer)
}
