//! The queue's ring, as `queue/` of the library uses it: one writer, readers with a position and a bell each. A record is
//! one region here.

use unisono_protocol::atomics::{AtomicU32, AtomicU64, Ordering};
use unisono_protocol::ring::{Bell, Position, wait_at};
use unisono_protocol::{Futex, Wait};

use super::machine::Space;
use super::platform::{Arc, Mutex, Region, join_all, spawn};
use super::waits::{Beds, Either, Sleeping, Spinning};

/// A reader's own memory.
struct Reader {
    tail: Position,
    /// At which the writer sleeps when it waits for this reader.
    space: Bell,
    bell: Bell,
}

struct Ring {
    head: Position,
    slots: Vec<Region>,
    readers: Vec<Reader>,
    messages: u64,
    space: Space,
    /// Not 0: nothing more will come.
    ended: AtomicU32,
    /// Moves with every newcomer; how many readers there are is behind the lock.
    generation: AtomicU64,
    known: Mutex<usize>,
}

impl Ring {
    fn new(readers: usize, messages: u64, slots: u64, space: Space) -> Arc<Ring> {
        let reader = |_| Reader { tail: Position::new(0), space: Bell::default(), bell: Bell::default() };
        Arc::new(Ring {
            head: Position::new(0),
            slots: (0..slots).map(|_| Region::new(0)).collect(),
            readers: (0..readers).map(reader).collect(),
            messages,
            space,
            ended: AtomicU32::new(0),
            generation: AtomicU64::new(0),
            known: Mutex::new(readers),
        })
    }

    fn slot(&self, message: u64) -> &Region {
        &self.slots[(message % self.slots.len() as u64) as usize]
    }

    fn beds(&self) -> Beds {
        // A bell is its atomic and nothing else, so both have one address.
        let bells = self.readers.iter().flat_map(|reader| [&reader.space, &reader.bell]);
        Beds::at(bells.map(|bell| core::ptr::from_ref(bell).cast()))
    }

    fn write(&self, message: u64, readers: usize, wait: &mut impl Wait) {
        for reader in &self.readers[..readers] {
            if self.space == Space::Kept {
                let has_room = || message - reader.tail.look() < self.slots.len() as u64;
                wait_at(&reader.space, || has_room().then_some(()), wait).expect("nobody gives up");
            }
        }
        self.slot(message).write(message + 1);
        self.head.publish(message + 1);
    }

    fn ring_bells(&self, readers: usize, futex: &impl Futex) {
        self.readers[..readers].iter().for_each(|reader| reader.bell.ring(futex));
    }

    /// One message, or `None` if the end came before it.
    fn read(&self, reader: &Reader, message: u64, wait: &mut impl Wait) -> Option<()> {
        let look = || {
            // The end first: what was written before it is seen by the look that follows.
            let ended = self.ended.load(Ordering::Acquire) != 0;
            let is_there = self.head.look() > message;
            (is_there || ended).then_some(is_there)
        };
        let is_there = wait_at(&reader.bell, look, wait).expect("nobody gives up");
        if !is_there {
            return None;
        }
        assert_eq!(self.slot(message).read(), message + 1, "message {message}");
        reader.tail.publish(message + 1);
        reader.space.ring(wait);
        Some(())
    }
}

/// Readers and writer look again while they wait.
pub(crate) fn spinning_ring(readers: usize, messages: u64, slots: u64, space: Space) {
    let ring = Ring::new(readers, messages, slots, space);
    run(&ring, None);
}

/// Readers and writer sleep while they wait.
pub(crate) fn sleeping_ring(readers: usize, messages: u64, slots: u64) {
    let ring = Ring::new(readers, messages, slots, Space::Kept);
    let beds = Arc::new(ring.beds());
    run(&ring, Some(&beds));
}

fn way_of(beds: Option<&Arc<Beds>>) -> Either<'_> {
    beds.map_or(Either::Spins, |beds| Either::Sleeps(Sleeping(beds)))
}

fn run(ring: &Arc<Ring>, beds: Option<&Arc<Beds>>) {
    let readers = ring.readers.len();
    let threads: Vec<_> = (0..readers)
        .map(|index| {
            let (ring, beds) = (ring.clone(), beds.cloned());
            spawn(move || {
                let mut wait = way_of(beds.as_ref());
                for message in 0..ring.messages {
                    ring.read(&ring.readers[index], message, &mut wait).expect("nobody ends it");
                }
            })
        })
        .collect();
    let mut wait = way_of(beds);
    for message in 0..ring.messages {
        ring.write(message, readers, &mut wait);
        ring.ring_bells(readers, &wait);
    }
    join_all(threads);
}

/// The writer writes one message and says that it was the last; the reader, asleep, gets it and then the end.
pub(crate) fn an_end_reaches_who_waits() {
    let ring = Ring::new(1, 1, 1, Space::Kept);
    let beds = Arc::new(ring.beds());
    let (reading, beds_of_reader) = (ring.clone(), beds.clone());
    let reader = spawn(move || {
        let mut wait = Sleeping(&beds_of_reader);
        reading.read(&reading.readers[0], 0, &mut wait).expect("what was written before the end is read");
        assert_eq!(reading.read(&reading.readers[0], 1, &mut wait), None, "then comes the end");
    });
    let mut wait = Sleeping(&beds);
    ring.write(0, 1, &mut wait);
    ring.ring_bells(1, &wait);
    ring.ended.store(1, Ordering::Release);
    Bell::settle();
    ring.ring_bells(1, &wait);
    join_all([reader]);
}

/// Whom news of an end wakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// Everybody, awake or not.
    WakesAll,
    /// Those who look asleep, which is wrong; for the models alone.
    #[cfg(loom)]
    WakesSleepers,
}

/// Killed when it has taken out that somebody sleeps, before it wakes them.
struct Dying;

impl Futex for Dying {
    fn sleep_while(&mut self, _word: &AtomicU32, _expected: u32) {}

    fn wake_all(&self, _word: &AtomicU32) {}
}

/// The writer writes one message and dies in the middle of waking the reader; the news of its death wakes it.
pub(crate) fn a_death_wakes_whom_the_dead_left_asleep(news: News) {
    let ring = Ring::new(1, 1, 1, Space::Kept);
    let beds = Arc::new(ring.beds());
    let (reading, beds_of_reader) = (ring.clone(), beds.clone());
    let reader = spawn(move || {
        let mut wait = Sleeping(&beds_of_reader);
        reading.read(&reading.readers[0], 0, &mut wait).expect("what was written before the death is read");
        assert_eq!(reading.read(&reading.readers[0], 1, &mut wait), None, "then comes the end");
    });
    let mut wait = Sleeping(&beds);
    ring.write(0, 1, &mut wait);
    ring.ring_bells(1, &Dying);
    ring.ended.store(1, Ordering::Release);
    Bell::settle();
    match news {
        News::WakesAll => ring.readers[0].bell.wake_always(&wait),
        #[cfg(loom)]
        News::WakesSleepers => ring.ring_bells(1, &wait),
    }
    join_all([reader]);
}

/// In which order a newcomer is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// The writer is told of it, then its first position is taken.
    ToldFirst,
    /// The other way round, which is wrong; for the models alone.
    #[cfg(loom)]
    PositionFirst,
}

/// A reader comes while the writer writes: it reads every message from its first position on.
pub(crate) fn a_reader_comes_while_the_writer_writes(claim: Claim) {
    const MESSAGES: u64 = 3;
    let ring = Ring::new(1, MESSAGES, 1, Space::Kept);
    *ring.known.lock().expect("nobody panics with the lock") = 0;
    let coming = ring.clone();
    let reader = spawn(move || {
        let reader = &coming.readers[0];
        let mut known = coming.known.lock().expect("nobody panics with the lock");
        let too_early = coming.head.look();
        // Release: the fence orders it before the look at the head.
        coming.generation.store(1, Ordering::Release);
        Bell::settle();
        let first = if claim == Claim::ToldFirst { coming.head.look() } else { too_early };
        reader.tail.publish(first);
        *known = 1;
        drop(known);
        let mut wait = Spinning;
        for message in first..MESSAGES {
            coming.read(reader, message, &mut wait).expect("nobody ends it");
        }
    });
    let (mut seen, mut readers) = (0, 0);
    let mut wait = Spinning;
    for message in 0..MESSAGES {
        // Acquire: pairs with the release above; and the fence of the last publish lies before it.
        let generation = ring.generation.load(Ordering::Acquire);
        if generation != seen {
            (seen, readers) = (generation, *ring.known.lock().expect("nobody panics with the lock"));
        }
        ring.write(message, readers, &mut wait);
        ring.ring_bells(readers, &wait);
    }
    join_all([reader]);
}
