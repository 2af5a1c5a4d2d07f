//! A block of a running launch: its threads, who of them can run, and the barrier at which they meet.

use std::rc::Rc;
use std::sync::Arc;

use crate::clock::{BlockId, Clock, ThreadClock};
use crate::code::{Kernel, Register};
use crate::error::{Awaited, Waiting};
use crate::machine::Launch;
use crate::report::Who;
use crate::shared::Shared;
use crate::thread::{Shuffle, Thread};

/// A block that is running.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) id: BlockId,
    pub(crate) launch: Arc<Launch>,
    pub(crate) threads: Vec<Thread>,
    /// What all of them have, and no other block.
    pub(crate) shared: Shared,
    /// Threads that can run, in no order.
    pub(crate) ready: Vec<u32>,
    pub(crate) ended: usize,
    arrived: Vec<Arrived>,
    /// Per warp, who waits for the others' values.
    shuffling: Vec<Vec<(u32, Shuffle)>>,
}

/// Threads that exchange values directly.
const WARP: u32 = 32;

#[derive(Debug)]
struct Arrived {
    thread: u32,
    says: bool,
    answer: Option<Register>,
}

impl Block {
    pub(crate) fn new(id: BlockId, launch: Arc<Launch>, heard: &Rc<Clock>, detects_races: bool) -> Self {
        let thread = |index| Thread::new(index, ThreadClock::new(Rc::clone(heard), id, index));
        let threads: Vec<_> = (0..launch.threads).map(thread).collect();
        let ready = (0..launch.threads).collect();
        let shuffling = vec![Vec::new(); launch.threads.div_ceil(WARP) as usize];
        let shared = Shared::new(launch.kernel.shared_bytes, detects_races);
        Self { id, launch, threads, shared, ready, ended: 0, arrived: Vec::new(), shuffling }
    }

    pub(crate) fn kernel(&self) -> &Kernel {
        &self.launch.kernel
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended == self.threads.len()
    }

    /// What all of its threads know once it has ended.
    pub(crate) fn told(&self, all: &mut Clock) {
        let mut last = None;
        self.threads.iter().for_each(|thread| thread.clock.tell(all, &mut last));
    }

    /// A thread comes to the barrier; the last to come lets all go on. The error is about that thread's instruction.
    pub(crate) fn arrive(
        &mut self,
        thread: u32,
        says: bool,
        answer: Option<Register>,
    ) -> Result<bool, String> {
        self.arrived.push(Arrived { thread, says, answer });
        let position = self.threads[thread as usize].next;
        let first = self.arrived.first().map_or(thread, |first| first.thread);
        if self.threads[first as usize].next != position {
            return Err(format!("thread {first} of the block waits at another barrier"));
        }
        let is_last = self.arrived.len() == self.threads.len();
        if is_last {
            self.go_on();
        }
        Ok(is_last)
    }

    fn go_on(&mut self) {
        let any = self.arrived.iter().any(|arrived| arrived.says);
        let (mut all, mut last) = (Clock::default(), None);
        if let Some(thread) = self.threads.first() {
            all = thread.clock.empty();
        }
        self.threads.iter().for_each(|thread| thread.clock.tell(&mut all, &mut last));
        let all = Rc::new(all);
        for arrived in self.arrived.drain(..) {
            let thread = &mut self.threads[arrived.thread as usize];
            thread.clock.leave_barrier(&all);
            if let Some(register) = arrived.answer {
                thread.set(register, u64::from(any));
            }
            self.ready.push(arrived.thread);
        }
    }

    /// A thread shows its warp a value; the last to come lets all go on. The error is about that thread's instruction.
    pub(crate) fn shuffle(&mut self, thread: u32, shuffle: Shuffle) -> Result<bool, String> {
        let first_lane = thread / WARP * WARP;
        let lanes = (self.threads.len() as u32 - first_lane).min(WARP) as usize;
        let shown = &mut self.shuffling[(thread / WARP) as usize];
        shown.push((thread, shuffle));
        let next = |of: u32| self.threads[of as usize].next;
        if let Some((first, _)) = shown.first().filter(|(first, _)| next(*first) != next(thread)) {
            return Err(format!("thread {first} of the warp is at another instruction"));
        }
        if shown.len() < lanes {
            return Ok(false);
        }
        let shown = std::mem::take(shown);
        let mut values = [0; WARP as usize];
        for (thread, shuffle) in &shown {
            values[(thread % WARP) as usize] = shuffle.value;
        }
        for (thread, shuffle) in shown {
            let lane = (thread % WARP) as usize ^ (shuffle.flip as usize & 0x1f);
            // A lane that is not there shows nothing: the own value remains.
            let found = if lane < lanes { values[lane] } else { shuffle.value };
            self.threads[thread as usize].set(shuffle.to, found);
            self.ready.push(thread);
        }
        Ok(true)
    }

    pub(crate) fn who(&self, thread: u32) -> Who {
        let BlockId { stream, work, block } = self.id;
        Who { device: stream as usize, work, block, thread }
    }

    /// The line of a thread's next instruction, or, once it has arrived at a barrier, of that.
    pub(crate) fn line(&self, thread: u32) -> u32 {
        let code = &self.kernel().code;
        let next = self.threads[thread as usize].next;
        code.get(next).map_or(0, |instruction| instruction.line)
    }

    /// Its threads that wait for a word; those at a barrier as one.
    pub(crate) fn waiting(&self) -> Vec<Waiting> {
        let at_barrier = |thread: u32| {
            self.arrived.iter().any(|arrived| arrived.thread == thread)
                || self.shuffling.iter().flatten().any(|(waiting, _)| *waiting == thread)
        };
        let mut found: Vec<_> = self
            .threads
            .iter()
            .filter(|thread| !at_barrier(thread.index))
            .filter_map(|thread| {
                let seen = thread.seen?;
                let for_what = Awaited::Word { address: seen.address, value: seen.value };
                thread.is_running().then(|| Waiting {
                    who: self.who(thread.index),
                    line: self.line(thread.index),
                    for_what,
                })
            })
            .collect();
        if let Some(first) = self.arrived.first() {
            let for_what = Awaited::Barrier { arrived: self.arrived.len(), ended: self.ended };
            found.push(Waiting { who: self.who(first.thread), line: self.line(first.thread), for_what });
        }
        for (first, shown) in self.shuffling.iter().filter_map(|shown| Some((shown.first()?.0, shown))) {
            let for_what = Awaited::Warp { arrived: shown.len() };
            found.push(Waiting { who: self.who(first), line: self.line(first), for_what });
        }
        found
    }
}
