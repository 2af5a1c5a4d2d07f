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

use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::call::next_number;
use super::error::PacketError;
use super::host_words::HostWords;
use super::wire::{Arrived, Wire};

/// Where things lie in the words that kernel and host share.
const DOORBELL: usize = 0;
const STOP: usize = 16;
const OUTGOING: usize = 32;
/// Words of a part.
const PART_WORDS: usize = 4096;
/// Bytes before a part's data: the call's number, the first word, how many words the call has.
const HEADER_BYTES: usize = 12;
/// Why nothing will come any more, as the kernels know it.
const PEER_LEFT: u64 = 1;
const LINK_LOST: u64 = 2;
/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(5);

/// The words that a rank's kernels and its carrier share.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    words: Arc<HostWords>,
    /// Words that can be put at a time.
    put: usize,
    /// How far apart the words are that are written anew with every call.
    slot: usize,
}

impl Shared {
    pub(super) fn new(put: usize, slot: usize) -> Self {
        Self { words: Arc::new(HostWords::new(OUTGOING + 4 * put)), put, slot }
    }

    pub(super) fn words(&self) -> &Arc<HostWords> {
        &self.words
    }

    /// As the device sees them, if it sees the first at `address`: what is put, what has come, the bell, the stop.
    pub(super) fn addresses(&self, address: u64) -> [u64; 4] {
        [OUTGOING, OUTGOING + 2 * self.put, DOORBELL, STOP].map(|word| address + 8 * word as u64)
    }

    /// What the word of this index has, if it is of the call.
    fn load(&self, index: usize, number: u32) -> Option<u32> {
        // Acquire, as the device's stores are at system scope; all that matters is in the word.
        let word = self.words.get(index)?.load(Ordering::Acquire);
        ((word >> 32) as u32 == number).then_some(word as u32)
    }

    fn store(&self, index: usize, number: u32, data: u32) {
        if let Some(word) = self.words.get(index) {
            word.store(u64::from(number) << 32 | u64::from(data), Ordering::Release);
        }
    }

    fn stop(&self, why: u64) {
        if let Some(word) = self.words.get(STOP) {
            // Release: a kernel that finds it finds what came before.
            word.fetch_max(why, Ordering::Release);
        }
    }

    fn outgoing(&self, number: u32) -> usize {
        OUTGOING + number as usize % 2 * self.put
    }

    fn incoming(&self, number: u32) -> usize {
        OUTGOING + (2 + number as usize % 2) * self.put
    }
}

#[derive(Debug, Default)]
struct State {
    /// Launches that were announced and whose words were not sent yet.
    pending: u64,
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
    patience: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

/// A rank's way to the other node. Dropped, it says goodbye.
#[derive(Debug)]
pub struct Carrier {
    inner: Arc<Inner>,
    threads: Vec<JoinHandle<()>>,
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
        let inner = Arc::new(Inner { shared, wire, opposite, patience, state, changed });
        let mut carrier = Self { inner, threads: Vec::new() };
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
        self.inner.change(|state| state.is_ending = true);
        self.inner.wire.interrupt();
        for thread in self.threads.drain(..) {
            // A thread of ours that panicked has nothing more to give back.
            drop(thread.join());
        }
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
            let mut state = self.look();
            state.pending = state.pending.saturating_sub(1);
        }
    }

    /// Waits until the kernel of this call rings; how many words it puts. `None`: there is nothing more to do.
    fn next_put(&self, number: u32) -> Option<u32> {
        let bell = DOORBELL + number as usize % 2;
        let mut rest = Rest::new();
        loop {
            if let Some(words) = self.shared.load(bell, number) {
                return Some(words);
            }
            let mut state = self.look();
            while state.pending == 0 && !state.is_captured && !state.is_ending {
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
                        let (words, missing, patience) = (words as u32, index as u32, self.patience);
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
            if start.elapsed() > self.patience || self.is_ending() {
                return None;
            }
            rest.a_while();
        }
    }

    /// The incoming thread.
    fn carry_in(&self, number: u32) {
        let mut inflow = Inflow { number, first: 0, refreshed: 0 };
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

/// What comes in, and how far it has come.
#[derive(Debug)]
struct Inflow {
    /// The call of which the next part is.
    number: u32,
    /// The part's first word.
    first: usize,
    /// The word that is written anew though no message reaches it: see `refresh` in `kernels/packet.h`.
    refreshed: usize,
}

impl Inflow {
    /// Writes a part's words where the kernel waits for them; or says what is wrong with it.
    fn take(&mut self, part: &[u8], shared: &Shared) -> Result<(), String> {
        let (header, data) = part.split_at_checked(HEADER_BYTES).ok_or("a part without a header came")?;
        let field =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (number, first, words) = (field(0), field(4) as usize, field(8) as usize);
        let count = data.len() / 4;
        let fits = data.len() % 4 == 0 && words <= shared.put && first + count <= words;
        if (number, first) != (self.number, self.first) || !fits || (count == 0 && words > 0) {
            return Err(format!(
                "{} bytes came for word {first} of {words} of call {number}; word {} of call {} was to come, and {} fit: do \
                 both nodes make the same calls?",
                data.len(),
                self.first,
                self.number,
                shared.put
            ));
        }
        let base = shared.incoming(number);
        for (index, data) in data.chunks_exact(4).enumerate() {
            shared.store(
                base + first + index,
                number,
                u32::from_le_bytes([data[0], data[1], data[2], data[3]]),
            );
        }
        self.first += count;
        if self.first == words {
            self.refresh(words, shared);
            (self.number, self.first) = (next_number(number), 0);
        }
        Ok(())
    }

    fn refresh(&mut self, words: usize, shared: &Shared) {
        let step = shared.slot.clamp(1, shared.put.max(1));
        for index in (self.refreshed..shared.put).step_by(step).filter(|index| *index >= words) {
            shared.store(shared.incoming(self.number) + index, self.number, 0);
        }
        if self.number % 2 == 1 {
            self.refreshed = (self.refreshed + 1) % step;
        }
    }
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
    use super::*;

    fn part(number: u32, first: u32, words: u32, data: &[u32]) -> Vec<u8> {
        let header = [number, first, words];
        header.iter().chain(data).flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn parts_become_words_of_their_call_in_the_area_of_its_parity() {
        let shared = Shared::new(4, 4);
        let mut inflow = Inflow { number: 1, first: 0, refreshed: 0 };
        inflow.take(&part(1, 0, 3, &[7, 8]), &shared).unwrap();
        inflow.take(&part(1, 2, 3, &[9]), &shared).unwrap();
        inflow.take(&part(2, 0, 1, &[6]), &shared).unwrap();
        let odd = shared.incoming(1);
        assert_eq!(
            (0..4).map(|i| shared.load(odd + i, 1)).collect::<Vec<_>>(),
            [Some(7), Some(8), Some(9), None]
        );
        assert_eq!(shared.load(shared.incoming(2), 2), Some(6));
        // The second call's next word was written anew.
        assert_eq!(shared.load(shared.incoming(2) + 1, 2), Some(0));
    }

    #[test]
    fn a_part_that_is_not_the_next_or_does_not_fit_is_refused() {
        for wrong in [
            part(2, 0, 1, &[1]),
            part(1, 1, 2, &[1]),
            part(1, 0, 5, &[1]),
            part(1, 0, 1, &[1, 2]),
            part(1, 0, 2, &[]),
            part(1, 0, 1, &[1])[..15].to_vec(),
            vec![1],
        ] {
            let mut inflow = Inflow { number: 1, first: 0, refreshed: 0 };
            assert!(inflow.take(&wrong, &Shared::new(4, 4)).is_err(), "{wrong:?}");
        }
        let mut inflow = Inflow { number: 1, first: 0, refreshed: 0 };
        inflow.take(&part(1, 0, 0, &[]), &Shared::new(4, 4)).unwrap();
        assert_eq!(inflow.number, 2);
    }

    #[test]
    fn no_word_keeps_an_old_number_for_ever() {
        let shared = Shared::new(6, 3);
        let mut inflow = Inflow { number: 1, first: 0, refreshed: 0 };
        inflow.take(&part(1, 0, 6, &[1; 6]), &shared).unwrap();
        for number in 2..10 {
            inflow.take(&part(number, 0, 1, &[1]), &shared).unwrap();
        }
        assert!((0..6).all(|i| shared.load(shared.incoming(1) + i, 1).is_none()));
    }
}
