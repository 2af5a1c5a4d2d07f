//! The threads that take packets to the other node, and put there what comes from it.
//!
//! A kernel rings: call *n* puts so many words. The outgoing thread waits until each of them has the call's number, and sends what
//! they carry, a part at a time while the rest is being written. The incoming thread writes what comes as words of the same
//! number, for which the other kernel waits. So neither side's kernel needs anything ordered but the words themselves.
//!
//! The invariant: **a call's words are read, and those of the next but one overwritten, only as calls follow one another**: parts
//! come in order, each with number and place, and what does not fit is the end of the link.
//!
//! Idle, the outgoing thread sleeps until a launch is announced. Launches out of a captured graph are not announced: once
//! there is one, it looks a thousand times a second.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use unisono_os::fork_guard::ForkMark;

use super::call::next_number;
use super::crossing::{HEADER_BYTES, Inflow, LINK_LOST, PART_WORDS, PEER_LEFT, Shared};
use super::error::PacketError;
use super::wire::{Arrived, Wire};

/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
struct State {
    /// Launches that were announced, less those whose words were sent: a launch may be quicker than its announcement.
    pending: i64,
    /// Launches may come that nobody announces.
    is_captured: bool,
    is_ending: bool,
    failure: Option<PacketError>,
}

#[derive(Debug)]
struct Inner {
    shared: Shared,
    wire: Box<dyn Wire>,
    /// The rank on the other side.
    opposite: usize,
    /// In nanoseconds: whoever waits looks at it anew.
    patience: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
}

/// A rank's way to the other node. Dropped, it says goodbye.
#[derive(Debug)]
pub struct Carrier {
    inner: Arc<Inner>,
    threads: Vec<JoinHandle<()>>,
    /// In a forked child there are no threads to wait for, and a lock may be held for ever.
    born: ForkMark,
}

impl Carrier {
    /// Begins with call `number`. Words that a kernel has announced have to be there within `patience`.
    pub(super) fn start(
        shared: Shared,
        wire: Box<dyn Wire>,
        opposite: usize,
        number: u32,
        patience: Duration,
    ) -> Result<Self, PacketError> {
        let (state, changed) = (Mutex::new(State::default()), Condvar::new());
        let patience = AtomicU64::new(nanoseconds(patience));
        let inner = Arc::new(Inner { shared, wire, opposite, patience, state, changed });
        let mut carrier = Self { inner, threads: Vec::new(), born: ForkMark::now() };
        // If the second cannot be had, the first is ended with the carrier.
        carrier.spawn("unisono-put", move |inner| inner.carry_out(number))?;
        carrier.spawn("unisono-fetch", move |inner| inner.carry_in(number))?;
        Ok(carrier)
    }

    fn spawn(&mut self, name: &str, life: impl FnOnce(&Inner) + Send + 'static) -> Result<(), PacketError> {
        let inner = Arc::clone(&self.inner);
        let masked = move || {
            unisono_os::thread::mask_all_signals();
            life(&inner);
        };
        let opposite = self.inner.opposite;
        let failed = |error: std::io::Error| PacketError::Link {
            rank: opposite,
            problem: format!("no thread for it: {error}"),
        };
        self.threads.push(std::thread::Builder::new().name(name.to_owned()).spawn(masked).map_err(failed)?);
        Ok(())
    }

    /// From now on words that a kernel has announced have to be there within so long.
    pub(super) fn set_patience(&self, patience: Duration) {
        // Relaxed: nothing else is told by it.
        self.inner.patience.store(nanoseconds(patience), Ordering::Relaxed);
    }

    /// A launch is on the stream.
    pub(super) fn announce(&self) {
        self.inner.change(|state| state.pending += 1);
    }

    /// A launch was captured: it will come, nobody says when.
    pub(super) fn expect_replays(&self) {
        self.inner.change(|state| state.is_captured = true);
    }

    /// Why the link is of no use any more, if it is not.
    pub fn failure(&self) -> Option<PacketError> {
        self.inner.look().failure.clone()
    }

    fn end(&mut self) {
        if self.born.crossed_fork() {
            self.threads.drain(..).for_each(std::mem::forget);
            return;
        }
        self.inner.change(|state| state.is_ending = true);
        self.inner.wire.interrupt();
        for thread in self.threads.drain(..) {
            // A thread of ours that panicked has nothing more to give back.
            drop(thread.join());
        }
        // Nobody writes what a kernel may still wait for.
        self.inner.shared.stop(LINK_LOST);
        self.inner.wire.close(GOODBYE);
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        self.end();
    }
}

impl Inner {
    fn look(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, act: impl FnOnce(&mut State)) {
        act(&mut self.look());
        self.changed.notify_all();
    }

    fn patience(&self) -> Duration {
        Duration::from_nanos(self.patience.load(Ordering::Relaxed))
    }

    fn is_ending(&self) -> bool {
        self.look().is_ending
    }

    fn fail(&self, failure: PacketError, why: u64) {
        self.change(|state| {
            state.failure.get_or_insert(failure);
        });
        self.shared.stop(why);
    }

    fn fail_link(&self, problem: impl Into<String>, why: u64) {
        self.fail(PacketError::Link { rank: self.opposite, problem: problem.into() }, why);
    }

    /// The outgoing thread.
    fn carry_out(&self, mut number: u32) {
        while let Some(words) = self.next_put(number) {
            if words as usize > self.shared.put {
                let (put, most) = (words, self.shared.put);
                return self.fail_link(
                    format!("a kernel puts {put} words where {most} fit: memory was overwritten"),
                    LINK_LOST,
                );
            }
            if !self.send_put(number, words as usize) {
                return;
            }
            number = next_number(number);
            self.look().pending -= 1;
        }
    }

    /// Waits until the kernel of this call rings; how many words it puts. `None`: there is nothing more to do.
    fn next_put(&self, number: u32) -> Option<u32> {
        let mut rest = Rest::new();
        loop {
            if let Some(words) = self.shared.rung(number) {
                return Some(words);
            }
            let mut state = self.look();
            while state.pending <= 0 && !state.is_captured && !state.is_ending {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                rest = Rest::new();
            }
            if state.is_ending {
                return None;
            }
            drop(state);
            rest.a_while();
        }
    }

    /// Sends a call's words as they come; `false` if that was the end.
    fn send_put(&self, number: u32, words: usize) -> bool {
        let base = self.shared.outgoing(number);
        let mut first = 0;
        loop {
            let count = (words - first).min(PART_WORDS);
            let mut part = Vec::with_capacity(HEADER_BYTES + 4 * count);
            for field in [number, first as u32, words as u32] {
                part.extend(field.to_le_bytes());
            }
            for index in first..first + count {
                let Some(data) = self.wait_for_word(base + index, number) else {
                    if !self.is_ending() {
                        let (words, missing, patience) = (words as u32, index as u32, self.patience());
                        self.fail(PacketError::NotWritten { number, words, missing, patience }, LINK_LOST);
                    }
                    return false;
                };
                part.extend(data.to_le_bytes());
            }
            self.wire.send(part);
            first += count;
            if first == words {
                return true;
            }
        }
    }

    fn wait_for_word(&self, index: usize, number: u32) -> Option<u32> {
        let first = self.shared.load(index, number);
        if first.is_some() {
            return first;
        }
        let (start, mut rest) = (Instant::now(), Rest::new());
        loop {
            if let Some(data) = self.shared.load(index, number) {
                return Some(data);
            }
            if start.elapsed() > self.patience() || self.is_ending() {
                return None;
            }
            rest.a_while();
        }
    }

    /// The incoming thread.
    fn carry_in(&self, number: u32) {
        let mut inflow = Inflow::new(number);
        loop {
            match self.wire.receive() {
                Arrived::Message(part) => {
                    if let Err(problem) = inflow.take(&part, &self.shared) {
                        return self.fail_link(problem, LINK_LOST);
                    }
                }
                Arrived::Left => return self.fail_link("it has left", PEER_LEFT),
                Arrived::Lost(why) => return self.fail_link(format!("lost: {why}"), LINK_LOST),
                Arrived::Interrupted => return,
            }
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// How a thread waits for a device: it looks again at once, then yields, then sleeps, up to a millisecond at a time.
#[derive(Debug)]
struct Rest {
    looks: u32,
}

impl Rest {
    fn new() -> Self {
        Self { looks: 0 }
    }

    fn a_while(&mut self) {
        self.looks = self.looks.saturating_add(1);
        match self.looks {
            0..=200 => std::hint::spin_loop(),
            201..=300 => std::thread::yield_now(),
            looks => std::thread::sleep(Duration::from_micros(u64::from(looks - 280).min(1000))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::super::crossing::DOORBELL;
    use super::*;

    /// Nothing ever comes over it.
    #[derive(Debug, Default)]
    struct Silence(AtomicBool);

    impl Wire for Silence {
        fn send(&self, _: Vec<u8>) {}

        fn receive(&self) -> Arrived {
            while !self.0.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_millis(1));
            }
            Arrived::Interrupted
        }

        fn interrupt(&self) {
            self.0.store(true, Ordering::Release);
        }

        fn close(&self, _: Duration) {}
    }

    #[test]
    fn kernels_are_told_when_it_ends() {
        let shared = Shared::new(4, 4).unwrap();
        let wire = Box::new(Silence::default());
        let carrier = Carrier::start(shared.clone(), wire, 5, 1, Duration::from_secs(3600)).unwrap();
        assert_eq!(shared.stopped(), Some(0));
        drop(carrier);
        assert_eq!(shared.stopped(), Some(LINK_LOST));
    }

    #[test]
    fn a_patience_that_is_said_later_holds_for_what_is_waited_for_already() {
        let shared = Shared::new(4, 4).unwrap();
        let hour = Duration::from_secs(3600);
        let carrier = Carrier::start(shared.clone(), Box::new(Silence::default()), 5, 1, hour).unwrap();
        // The kernel rings for two words, and writes one.
        shared.store(DOORBELL + 1, 1, 2);
        shared.store(shared.outgoing(1), 1, 7);
        carrier.announce();
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(50) {
            assert_eq!(carrier.failure(), None);
            std::thread::sleep(Duration::from_millis(5));
        }
        let patience = Duration::from_millis(10);
        carrier.set_patience(patience);
        while carrier.failure().is_none() {
            assert!(start.elapsed() < Duration::from_secs(20), "it still waits");
            std::thread::sleep(Duration::from_millis(5));
        }
        let expected = PacketError::NotWritten { number: 1, words: 2, missing: 1, patience };
        assert_eq!(carrier.failure(), Some(expected));
    }
}
