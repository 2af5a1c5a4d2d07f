//! Counting by address: which bytes are shared, and which rank's cache held a line last.
//!
//! The memories of a group are known with the lines that they consist of, and for each line the rank that touched it last.
//! A line that another rank touched last crosses between two cores: on a read it is *fetched*, which is the purpose of the
//! exercise; on a write it is *taken* from somebody who only held it to read, which is the cost that migrating lines avoid.
//! Ranks are threads here, and a line passes from one to another only through the protocol, so that the counts are the same
//! in every run.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::communicator::Communicator;
use crate::memory::LINE;
use crate::registered::RegisteredMemory;

/// What one rank did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Steps published: the arrival line was written so many times.
    pub steps: u64,
    /// Tag lines written.
    pub tags: u64,
    /// Bytes written to staging and to other ranks' registered memory.
    pub shared_written: u64,
    /// Bytes read from there.
    pub shared_read: u64,
    /// Bytes written to the rank's own buffers, registered or not.
    pub own_written: u64,
    /// Bytes read from there.
    pub own_read: u64,
    /// Cache lines of staging or registered memory that were read and that another rank had touched last.
    pub lines_fetched: u64,
    /// The same of lines that were written.
    pub lines_taken: u64,
}

/// Counts what the thread does that made it, as a rank of a communicator, until it is dropped.
#[derive(Debug)]
pub struct Counter<'c> {
    communicator: PhantomData<&'c Communicator>,
    /// It belongs to its thread.
    on_this_thread: PhantomData<*const ()>,
}

impl<'c> Counter<'c> {
    /// Begin to count. The memories live as long as the counter.
    pub fn start(comm: &'c Communicator, registered: &[&'c RegisteredMemory]) -> Self {
        let members = &comm.group.members;
        let staging = (0..members.world).map(|owner| {
            let (start, bytes) = members.memory(owner).extent();
            Memory::new(start, bytes, false)
        });
        let registered = registered.iter().flat_map(|memory| {
            (0..members.world).map(|owner| {
                let part = memory.allocation.part(owner);
                Memory::new(part.pointer().addr(), part.len(), owner == members.rank)
            })
        });
        let memories = staging.chain(registered).collect();
        LEDGER.set(Some(Ledger { rank: members.rank, memories, counts: Counts::default() }));
        Counter { communicator: PhantomData, on_this_thread: PhantomData }
    }

    /// What was counted since the start or since this was asked last.
    pub fn take(&self) -> Counts {
        LEDGER.with_borrow_mut(|ledger| {
            ledger.as_mut().map(|ledger| std::mem::take(&mut ledger.counts)).unwrap_or_default()
        })
    }
}

impl Drop for Counter<'_> {
    fn drop(&mut self) {
        LEDGER.set(None);
    }
}

thread_local! {
    static LEDGER: RefCell<Option<Ledger>> = const { RefCell::new(None) };
    static BEFORE_A_WAIT: Cell<Option<fn()>> = const { Cell::new(None) };
}

/// Have this called whenever this thread, as a rank, is about to look for what others do. Who counts instructions lets the
/// others finish there, so that waiting, which takes as long as it takes, is none of what is counted.
pub fn before_every_wait(let_others_finish: Option<fn()>) {
    BEFORE_A_WAIT.set(let_others_finish);
}

/// A wait begins.
pub(crate) fn about_to_wait() {
    if let Ok(Some(let_others_finish)) = BEFORE_A_WAIT.try_with(Cell::get) {
        let_others_finish();
    }
}

/// Who touched each line of a memory last, by where the memory begins: the ranks of a process share it.
static TOUCHED: Mutex<Option<HashMap<usize, Weak<Lines>>>> = Mutex::new(None);

/// By line: the rank that touched it last, plus one; 0 if none has.
type Lines = [AtomicU8];

/// What one thread counts.
struct Ledger {
    rank: usize,
    memories: Vec<Memory>,
    counts: Counts,
}

/// A memory that ranks share.
struct Memory {
    start: usize,
    bytes: usize,
    /// Whether it is this rank's own buffer, which others may reach.
    own: bool,
    touched: Arc<Lines>,
}

impl Memory {
    fn new(start: usize, bytes: usize, own: bool) -> Self {
        let lines = bytes.div_ceil(LINE);
        let mut known = TOUCHED.lock();
        let known = known.get_or_insert_default();
        known.retain(|_, touched| touched.strong_count() > 0);
        let touched = known.get(&start).and_then(Weak::upgrade).filter(|touched| touched.len() == lines);
        let touched = touched.unwrap_or_else(|| (0..lines).map(|_| AtomicU8::new(0)).collect());
        known.insert(start, Arc::downgrade(&touched));
        Memory { start, bytes, own, touched }
    }

    /// Touch all lines of a stretch; how many another rank had touched last.
    fn touch(&self, rank: usize, start: usize, bytes: usize) -> u64 {
        let first = (start - self.start) / LINE;
        let end = (start + bytes - self.start).div_ceil(LINE);
        let mine = rank as u8 + 1;
        let others = |line: &AtomicU8| ![0, mine].contains(&line.swap(mine, Ordering::Relaxed));
        self.touched.iter().take(end).skip(first).filter(|line| others(line)).count() as u64
    }
}

impl Ledger {
    /// Touch a stretch: whether it is shared with others, and how many of its lines came from them.
    fn touch(&self, start: *const u8, bytes: usize) -> (bool, u64) {
        let start = start.addr();
        let memory =
            self.memories.iter().find(|memory| (memory.start..memory.start + memory.bytes).contains(&start));
        memory.map_or((false, 0), |memory| (!memory.own, memory.touch(self.rank, start, bytes)))
    }
}

fn note(what: impl FnOnce(&mut Ledger)) {
    // A thread that is ending has no ledger any more, and nothing to count.
    let _ = LEDGER.try_with(|ledger| ledger.borrow_mut().as_mut().map(what));
}

/// A step was published: the arrival line was written.
pub(crate) fn step_published() {
    note(|ledger| ledger.counts.steps += 1);
}

/// The tag line of a message was written.
pub(crate) fn tag_announced() {
    note(|ledger| ledger.counts.tags += 1);
}

/// This many bytes are about to be read.
pub(crate) fn read(start: *const u8, bytes: usize) {
    note(|ledger| {
        let (shared, crossed) = ledger.touch(start, bytes);
        ledger.counts.lines_fetched += crossed;
        *(if shared { &mut ledger.counts.shared_read } else { &mut ledger.counts.own_read }) += bytes as u64;
    });
}

/// This many bytes are about to be written.
pub(crate) fn written(start: *const u8, bytes: usize) {
    note(|ledger| {
        let (shared, crossed) = ledger.touch(start, bytes);
        ledger.counts.lines_taken += crossed;
        *(if shared { &mut ledger.counts.shared_written } else { &mut ledger.counts.own_written }) +=
            bytes as u64;
    });
}
