//! What happens before what: vector clocks over the threads of many launches.
//!
//! A thread's events are numbered by what orders them: the work of its stream (works of one stream happen one after the
//! other), its block, the block's *phase* (how many barriers it has passed: all events of a phase happen before all of the
//! next), and within the phase its own *tick*. A clock therefore need not list every thread: it has, per stream, up to which
//! work all is known, per block the phase, and single threads only where a flag has told of them.

use std::rc::Rc;

/// When something happened: enough to ask a [`Clock`] whether it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) block: BlockId,
    pub(crate) phase: u32,
    pub(crate) thread: u32,
    pub(crate) tick: u32,
}

/// A block of a work of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BlockId {
    pub(crate) stream: u32,
    pub(crate) work: u32,
    pub(crate) block: u32,
}

/// What is known to have happened.
#[derive(Debug, Clone, Default)]
pub(crate) struct Clock {
    /// Per stream: all works with a lower number.
    works: Vec<u32>,
    /// Of blocks of later works: all phases with a lower number.
    phases: Vec<(BlockId, u32)>,
    /// Of single threads: all ticks up to and with this one.
    ticks: Vec<((BlockId, u32), u32)>,
}

impl Clock {
    pub(crate) fn new(streams: usize) -> Self {
        Self { works: vec![0; streams], ..Self::default() }
    }

    /// Everything that the other knows is known from now on.
    pub(crate) fn join(&mut self, other: &Clock) {
        for (mine, theirs) in self.works.iter_mut().zip(&other.works) {
            *mine = (*mine).max(*theirs);
        }
        for (block, phase) in &other.phases {
            self.learn_phase(*block, *phase);
        }
        for (thread, tick) in &other.ticks {
            self.learn_tick(*thread, *tick);
        }
        let works = &self.works;
        let is_news = |block: &BlockId| works[block.stream as usize] <= block.work;
        self.phases.retain(|(block, _)| is_news(block));
        self.ticks.retain(|((block, _), _)| is_news(block));
    }

    /// All works of the stream before this one are known.
    pub(crate) fn learn_works(&mut self, stream: usize, before: u32) {
        self.works[stream] = self.works[stream].max(before);
    }

    fn learn_phase(&mut self, block: BlockId, before: u32) {
        match self.phases.iter_mut().find(|(known, _)| *known == block) {
            Some((_, phase)) => *phase = (*phase).max(before),
            None => self.phases.push((block, before)),
        }
    }

    fn learn_tick(&mut self, thread: (BlockId, u32), with: u32) {
        match self.ticks.iter_mut().find(|(known, _)| *known == thread) {
            Some((_, tick)) => *tick = (*tick).max(with),
            None => self.ticks.push((thread, with)),
        }
    }

    fn knows(&self, moment: &Moment) -> bool {
        let BlockId { stream, work, .. } = moment.block;
        let thread = (moment.block, moment.thread);
        work < self.works[stream as usize]
            || self.phases.iter().any(|(block, before)| *block == moment.block && moment.phase < *before)
            || self.ticks.iter().any(|(known, with)| *known == thread && moment.tick <= *with)
    }
}

/// A thread's own clock.
#[derive(Debug, Clone)]
pub(crate) struct ThreadClock {
    /// What it has heard of others; shared with the threads that left the same barrier.
    heard: Rc<Clock>,
    now: Moment,
}

impl ThreadClock {
    pub(crate) fn new(heard: Rc<Clock>, block: BlockId, thread: u32) -> Self {
        Self { heard, now: Moment { block, phase: 0, thread, tick: 0 } }
    }

    /// A clock for as many streams, that knows nothing.
    pub(crate) fn empty(&self) -> Clock {
        Clock::new(self.heard.works.len())
    }

    /// When the thread's next event happens.
    pub(crate) fn now(&self) -> Moment {
        self.now
    }

    /// Whether the moment happened before the thread's next event.
    pub(crate) fn is_after(&self, moment: &Moment) -> bool {
        if moment.block == self.now.block
            && (moment.phase < self.now.phase || moment.thread == self.now.thread)
        {
            return true;
        }
        self.heard.knows(moment)
    }

    /// What whoever acquires this thread's release will know; what the thread does from now on is not in it.
    pub(crate) fn release(&mut self) -> Rc<Clock> {
        let mut told = (*self.heard).clone();
        told.learn_phase(self.now.block, self.now.phase);
        told.learn_tick((self.now.block, self.now.thread), self.now.tick);
        self.now.tick += 1;
        Rc::new(told)
    }

    pub(crate) fn acquire(&mut self, told: &Clock) {
        Rc::make_mut(&mut self.heard).join(told);
    }

    /// Adds what this thread has heard to `all`; `last` spares it where the one before had heard the same.
    pub(crate) fn tell(&self, all: &mut Clock, last: &mut Option<Rc<Clock>>) {
        if !last.as_ref().is_some_and(|last| Rc::ptr_eq(last, &self.heard)) {
            all.join(&self.heard);
            *last = Some(Rc::clone(&self.heard));
        }
    }

    /// The thread leaves a barrier: it knows what all of the block knew, and the block's phase is over.
    pub(crate) fn leave_barrier(&mut self, all: &Rc<Clock>) {
        self.heard = Rc::clone(all);
        self.now.phase += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: BlockId = BlockId { stream: 0, work: 0, block: 0 };
    const THERE: BlockId = BlockId { stream: 1, work: 0, block: 0 };

    fn thread(block: BlockId, thread: u32) -> ThreadClock {
        ThreadClock::new(Rc::new(Clock::new(2)), block, thread)
    }

    fn barrier(threads: &mut [&mut ThreadClock]) {
        let (mut all, mut last) = (Clock::new(2), None);
        threads.iter().for_each(|thread| thread.tell(&mut all, &mut last));
        let all = Rc::new(all);
        threads.iter_mut().for_each(|thread| thread.leave_barrier(&all));
    }

    #[test]
    fn threads_are_ordered_by_a_barrier_only() {
        let (mut a, mut b) = (thread(HERE, 0), thread(HERE, 1));
        let before = a.now();
        assert!(a.is_after(&before) && !b.is_after(&before));
        barrier(&mut [&mut a, &mut b]);
        assert!(b.is_after(&before) && !b.is_after(&a.now()));
    }

    #[test]
    fn a_release_tells_what_came_before_it_and_nothing_after() {
        let (mut a, mut b) = (thread(HERE, 0), thread(THERE, 0));
        let before = a.now();
        let told = a.release();
        let after = a.now();
        b.acquire(&told);
        assert!(b.is_after(&before) && !b.is_after(&after));
    }

    #[test]
    fn a_release_after_a_barrier_tells_of_the_whole_block() {
        let (mut a, mut a2, mut b, mut b2) =
            (thread(HERE, 0), thread(HERE, 1), thread(THERE, 0), thread(THERE, 1));
        let data = a2.now();
        barrier(&mut [&mut a, &mut a2]);
        let late = a2.now();
        let told = a.release();
        b.acquire(&told);
        assert!(b.is_after(&data) && !b.is_after(&late) && !b2.is_after(&data));
        barrier(&mut [&mut b, &mut b2]);
        assert!(b2.is_after(&data));
    }

    #[test]
    fn works_of_a_stream_follow_one_another() {
        let a = thread(HERE, 0);
        let mut heard = Clock::new(2);
        heard.learn_works(0, 1);
        let next = ThreadClock::new(Rc::new(heard.clone()), BlockId { work: 1, ..HERE }, 5);
        assert!(next.is_after(&a.now()));
        let mut other = Clock::new(2);
        other.learn_phase(HERE, 3);
        other.join(&heard);
        assert!(other.phases.is_empty(), "what the works say needs no phases");
    }
}
