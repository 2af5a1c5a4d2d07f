//! Any order of calls, against a plain list: what a reader gets next is the next of what was sent, whoever comes, goes,
//! looks without taking, or gives up what it reserved in between.

use std::time::{Duration, Instant};

use unisono::queue::{Error, Reader, Slot, WaitedFor, WhenGone, Writer};

use super::quick;

const READERS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(20);
const AT_ONCE: Duration = Duration::ZERO;

/// xorshift.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// A queue, and what it should be.
struct Model {
    dice: Dice,
    writer: Writer,
    policy: WhenGone,
    max_chunks: u64,
    readers: [Option<Reader>; READERS],
    sent: Vec<(u8, usize)>,
    /// What each reader gets next, if it is there or awaited.
    next: [usize; READERS],
}

impl Model {
    fn new(seed: u64) -> Model {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let policy = [WhenGone::GoOn, WhenGone::AwaitReturn][dice.below(2) as usize];
        let max_chunks = 1 + dice.below(40);
        let builder = Writer::builder().readers(READERS).ring_bytes(4096 << dice.below(3)).when_gone(policy);
        let writer = builder.max_chunks(max_chunks as usize).create().expect("a queue");
        let readers = [const { None }; READERS];
        Model { dice, writer, policy, max_chunks, readers, sent: Vec::new(), next: [0; READERS] }
    }

    /// How many messages whoever is slowest has not read, of those for whom messages are kept.
    fn unread(&self) -> u64 {
        let slowest = self.next.into_iter().min().expect("there are readers");
        self.sent.len().saturating_sub(slowest) as u64
    }

    fn length(&mut self) -> usize {
        let end = [10, 300, 900, 5000, 40_000][self.dice.below(5) as usize];
        self.dice.below(end) as usize
    }

    fn send(&mut self) {
        let (bytes, mark) = (self.length(), self.dice.below(256) as u8);
        let commit = self.dice.below(8) > 0;
        let fill = |mut slot: Slot<'_>| {
            assert!(
                slot.write_at(0, &vec![mark; bytes]) && !slot.write_at(1, &vec![mark; bytes]) || bytes == 0
            );
            if commit { slot.commit() } else { drop(slot) }
        };
        let unread = self.unread();
        match self.writer.reserve_within(bytes, AT_ONCE).map(fill) {
            Ok(()) => {
                assert!(unread < self.max_chunks, "no more are unread than are allowed");
                self.sent.extend(commit.then_some((mark, bytes)));
            }
            Err(Error::Timeout { waited_for: WaitedFor::Readers(readers), .. }) => {
                assert!(unread > 0 && !readers.is_empty(), "who has read all is not waited for");
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn receive(&mut self, rank: usize) {
        let keep = self.dice.below(6) == 0;
        let Some(reader) = &mut self.readers[rank] else { return };
        match (reader.recv_within(AT_ONCE), self.sent.get(self.next[rank])) {
            (Ok(message), Some((mark, bytes))) => {
                assert!(
                    message.to_vec() == vec![*mark; *bytes],
                    "reader {rank}, message {}",
                    self.next[rank]
                );
                if keep {
                    message.keep();
                } else {
                    drop(message);
                    self.next[rank] += 1;
                }
            }
            (Err(Error::Timeout { .. }), None) => {}
            // The memory of a large message is under way.
            (Err(Error::Timeout { .. }), Some((_, bytes))) if *bytes > 1000 => {}
            (found, expected) => panic!("reader {rank} found {found:?}, expected {expected:?}"),
        }
    }

    fn leave(&mut self, rank: usize) {
        if self.readers[rank].take().is_none() || self.policy == WhenGone::AwaitReturn {
            return;
        }
        // The writer hears of it a moment later; until then it waits for it.
        let until = Instant::now() + PATIENCE;
        let is_here = |writer: &Writer| writer.readers()[rank].presence == unisono::queue::Presence::Alive;
        while is_here(&self.writer) {
            assert!(Instant::now() < until, "the writer hears of it");
            std::thread::yield_now();
        }
        self.next[rank] = usize::MAX;
    }

    fn come(&mut self, rank: usize) {
        if self.readers[rank].is_none() {
            self.readers[rank] = Some(Reader::open(self.writer.handle(), rank).expect("the rank is free"));
            self.next[rank] = self.next[rank].min(self.sent.len());
        }
    }

    /// At the end everybody gets what is left, and then the end.
    fn finish(mut self) -> usize {
        (0..READERS).for_each(|rank| self.come(rank));
        self.writer.wait_until_ready(PATIENCE).expect("all are here");
        drop(self.writer);
        for (reader, next) in self.readers.iter_mut().flatten().zip(self.next) {
            for (mark, bytes) in &self.sent[next..] {
                let message = reader.recv_within(PATIENCE).expect("it was sent");
                assert!(message.to_vec() == vec![*mark; *bytes]);
            }
            assert!(matches!(reader.recv_within(PATIENCE), Err(Error::PeerLeft { .. })));
        }
        self.sent.len()
    }
}

#[test]
fn any_order_of_calls_gives_what_a_plain_list_gives() {
    let (rounds, steps) = if quick() { (10, 100) } else { (150, 400) };
    let mut sent = 0;
    for seed in 0..rounds {
        let mut model = Model::new(seed + 1);
        for _ in 0..steps {
            let rank = model.dice.below(READERS as u64) as usize;
            match model.dice.below(20) {
                0 => model.leave(rank),
                1..=2 => model.come(rank),
                3..=9 => model.send(),
                _ => model.receive(rank),
            }
        }
        sent += model.finish();
    }
    assert!(sent > rounds as usize * 10, "{sent} messages");
}
