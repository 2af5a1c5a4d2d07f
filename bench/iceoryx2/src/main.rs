//! The queue comparison's side of iceoryx2: its publish-subscribe services on slices of bytes, one from the writer to all readers,
//! one from each reader back.
//!
//! As its documentation advises for what may not be lost: no overflow, and a publisher that waits where a buffer is full. A subscriber
//! has to be asked for what has come; it is asked without a pause, and where there are more processes than cores the core is offered in between.

#[path = "../../src/queue/loops.rs"]
mod loops;

use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::port::update_connections::UpdateConnections;
use iceoryx2::prelude::*;
use loops::{Ends, Seat};

/// As much memory as unisono's ring has: buffers of messages up to this size, and a few larger ones.
const SMALL_BYTES: usize = 16 << 10;
const SMALL_MESSAGES: usize = 256;
const LARGE_BYTES: usize = 1 << 20;
const LARGE_MESSAGES: usize = 4;
const TIMEOUT: Duration = Duration::from_secs(60);

/// A service for small messages and one for large ones.
struct Pair<Port> {
    small: Port,
    large: Port,
}

impl<Port> Pair<Port> {
    fn of(&self, bytes: usize) -> &Port {
        if bytes <= SMALL_BYTES { &self.small } else { &self.large }
    }
}

struct Services {
    publishers: Pair<Publisher<ipc::Service, [u8], ()>>,
    subscribers: Vec<Pair<Subscriber<ipc::Service, [u8], ()>>>,
    yields: bool,
}

fn main() -> anyhow::Result<()> {
    set_log_level(LogLevel::Error);
    let seat = Seat::take()?;
    let cores = std::env::var("BENCH_CPUS")?.split(',').count();
    let node = NodeBuilder::new().create::<ipc::Service>().map_err(|error| anyhow!("a node: {error:?}"))?;
    let service = |from: usize, bytes: usize, messages: usize| {
        let name = format!("unisono-bench/{}/{from}/{bytes}", seat.name);
        let readers = if from == 0 { seat.readers } else { 1 };
        node.service_builder(&name.as_str().try_into().map_err(|error| anyhow!("{name}: {error:?}"))?)
            .publish_subscribe::<[u8]>()
            .enable_safe_overflow(false)
            .subscriber_max_buffer_size(messages)
            .history_size(0)
            .max_publishers(1)
            .max_subscribers(readers)
            .open_or_create()
            .map_err(|error| anyhow!("service {name}: {error:?}"))
    };
    let publisher = |bytes, messages| {
        service(seat.rank, bytes, messages)?
            .publisher_builder()
            .initial_max_slice_len(bytes)
            .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
            .create()
            .map_err(|error| anyhow!("a publisher: {error:?}"))
    };
    let subscriber = |from, bytes, messages| {
        let builder = service(from, bytes, messages)?;
        builder.subscriber_builder().create().map_err(|error| anyhow!("a subscriber: {error:?}"))
    };
    let publishers = Pair {
        small: publisher(SMALL_BYTES, SMALL_MESSAGES)?,
        large: publisher(LARGE_BYTES, LARGE_MESSAGES)?,
    };
    let mut subscribers = Vec::new();
    for from in if seat.rank == 0 { 1..seat.readers + 1 } else { 0..1 } {
        subscribers.push(Pair {
            small: subscriber(from, SMALL_BYTES, SMALL_MESSAGES)?,
            large: subscriber(from, LARGE_BYTES, LARGE_MESSAGES)?,
        });
    }
    let mut services = Services { publishers, subscribers, yields: seat.readers + 1 > cores };
    services.meet(&seat)?;
    seat.serve(&mut services)
}

impl Services {
    /// What is sent before a subscriber is connected does not reach it: send until all have heard from all.
    fn meet(&mut self, seat: &Seat) -> anyhow::Result<()> {
        let begin = Instant::now();
        let expected = if seat.rank == 0 { seat.readers } else { 1 };
        for bytes in [SMALL_BYTES, LARGE_BYTES] {
            let mut reached = 0;
            let mut heard = vec![false; self.subscribers.len()];
            while reached < expected || heard.contains(&false) {
                ensure!(begin.elapsed() < TIMEOUT, "the others did not come");
                let publisher = self.publishers.of(bytes);
                publisher.update_connections().map_err(|error| anyhow!("connecting: {error:?}"))?;
                if reached < expected {
                    let sample =
                        publisher.loan_slice_uninit(1).map_err(|error| anyhow!("a loan: {error:?}"))?;
                    let sent = sample.write_from_slice(&[0]).send();
                    reached = sent.map_err(|error| anyhow!("sending: {error:?}"))?.max(reached);
                    std::thread::sleep(Duration::from_millis(5));
                }
                for (subscriber, heard) in self.subscribers.iter().zip(&mut heard) {
                    let received = subscriber.of(bytes).receive();
                    *heard |= received.map_err(|error| anyhow!("receiving: {error:?}"))?.is_some();
                }
            }
        }
        // Those greetings that came after the first are taken away by `receive`, which knows them by their length.
        Ok(())
    }

    /// The next message of this length, as `with` wants it.
    #[inline]
    fn next<T>(&mut self, from: usize, bytes: usize, mut with: impl FnMut(&[u8]) -> T) -> anyhow::Result<T> {
        let subscriber = self.subscribers[from].of(bytes);
        loop {
            match subscriber.receive().map_err(|error| anyhow!("receiving: {error:?}"))? {
                Some(sample) if sample.payload().len() == 1 => {} // A greeting.
                Some(sample) => {
                    let found = sample.payload().len();
                    ensure!(found == bytes, "a message of {found} bytes came instead of one of {bytes}");
                    return Ok(with(sample.payload()));
                }
                None if self.yields => std::thread::yield_now(),
                None => std::hint::spin_loop(),
            }
        }
    }
}

impl Ends for Services {
    #[inline]
    fn send(&mut self, message: &[u8]) -> anyhow::Result<()> {
        let publisher = self.publishers.of(message.len());
        let sample =
            publisher.loan_slice_uninit(message.len()).map_err(|error| anyhow!("a loan: {error:?}"))?;
        sample.write_from_slice(message).send().map_err(|error| anyhow!("sending: {error:?}"))?;
        Ok(())
    }

    #[inline]
    fn receive(&mut self, from: usize, into: &mut [u8]) -> anyhow::Result<()> {
        self.next(from, into.len(), |message| into.copy_from_slice(message))
    }

    #[inline]
    fn send_in_place(&mut self, bytes: usize, first: [u8; 8]) -> anyhow::Result<()> {
        let publisher = self.publishers.of(bytes);
        let mut sample = publisher.loan_slice_uninit(bytes).map_err(|error| anyhow!("a loan: {error:?}"))?;
        for (place, byte) in sample.payload_mut().iter_mut().zip(first) {
            place.write(byte);
        }
        // SAFETY: the first bytes are written above, if there are so many; the others lie in shared memory, which the system
        // has filled with zeros or an earlier message with its bytes, and any byte is a valid one.
        let sample = unsafe { sample.assume_init() };
        sample.send().map_err(|error| anyhow!("sending: {error:?}"))?;
        Ok(())
    }

    #[inline]
    fn receive_in_place(&mut self, from: usize, bytes: usize) -> anyhow::Result<[u8; 8]> {
        self.next(from, bytes, |message| message.first_chunk().copied())?
            .context("a message of at least 8 bytes")
    }

    fn cannot_rest(&self) -> Option<&'static str> {
        Some(
            "a receive that waits: a subscriber is asked again and again, or a second service tells of messages",
        )
    }
}
