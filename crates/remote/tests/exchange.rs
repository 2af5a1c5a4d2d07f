//! A publisher and its subscribers in one process: everything arrives, in order, and what goes wrong is told.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use unisono_remote::{
    End, Error, Found, Key, Leftovers, PART_BYTES, Presence, Publisher, PublisherConfig, Subscriber,
    SubscriberConfig, Why,
};

const NONCE: [u8; 16] = [7; 16];
const PATIENCE: Duration = Duration::from_secs(20);
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Whether this machine knows IPv6 at all; if not, that is said.
fn has_ipv6() -> bool {
    let has = std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    if !has {
        eprintln!("LEFT OUT: IPv6 is turned off on this machine");
    }
    has
}

fn key() -> Key {
    Key::from_bytes([1; 32])
}

fn publisher_for(readers: &[u64], leftovers: Leftovers) -> Publisher {
    let (key, nonce, readers) = (key(), NONCE, readers.to_vec());
    let config = PublisherConfig { key, nonce, rank: 3, readers, ip: LOCAL, leftovers };
    Publisher::bind(config).expect("the loopback is here")
}

fn open_with(publisher: &Publisher, key: Key, rank: u64) -> Result<Subscriber, Error> {
    let config = SubscriberConfig { address: publisher.address(), key, nonce: NONCE, rank };
    Subscriber::open(&config, Some(Instant::now() + PATIENCE))
}

fn open(publisher: &Publisher, rank: u64) -> Subscriber {
    open_with(publisher, key(), rank).expect("the publisher is here")
}

fn take(subscriber: &Subscriber) -> Vec<u8> {
    match subscriber.wait(Some(PATIENCE), || false) {
        Found::Message(message) => {
            subscriber.finish_one();
            message
        }
        other => panic!("{other:?} in place of a message"),
    }
}

fn end_of(subscriber: &Subscriber) -> End {
    match subscriber.wait(Some(PATIENCE), || false) {
        Found::End(end) => end,
        other => panic!("{other:?} in place of the end"),
    }
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) -> Duration {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
    start.elapsed()
}

fn message(number: u64, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (number as usize * 31 + at * 7 + at / 256) as u8).collect()
}

#[test]
fn every_reader_gets_every_message_whole_and_in_order() {
    let publisher = publisher_for(&[4, 9], Leftovers::Told);
    let readers = [open(&publisher, 4), open(&publisher, 9)];
    assert_eq!((readers[0].publisher_rank(), readers[0].publisher_pid()), (3, std::process::id()));
    let lengths = [0, 1, 100, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 40 << 20, 5];
    let lengths: Vec<usize> = lengths.into_iter().chain((0..3000).map(|number| number % 500)).collect();
    std::thread::scope(|scope| {
        for reader in &readers {
            let lengths = &lengths;
            scope.spawn(move || {
                for (number, bytes) in lengths.iter().enumerate() {
                    assert!(take(reader) == message(number as u64, *bytes), "message {number}");
                }
                assert_eq!(end_of(reader), End::Left);
            });
        }
        for (number, bytes) in lengths.iter().enumerate() {
            publisher
                .wait(Some(PATIENCE), |behind| (behind.bytes < 50 << 20).then_some(()))
                .expect("they read");
            publisher.send(message(number as u64, *bytes));
        }
        publisher.close(PATIENCE);
    });
}

#[test]
fn messages_are_kept_for_readers_that_come_late_and_return() {
    let publisher = publisher_for(&[0], Leftovers::Kept);
    (0..5).for_each(|number| publisher.send(message(number, 10)));
    let reader = open(&publisher, 0);
    (0..3).for_each(|number| assert_eq!(take(&reader), message(number, 10)));
    // Taken, and not finished.
    assert!(matches!(reader.wait(Some(PATIENCE), || false), Found::Message(_)));
    drop(reader);
    wait_until("it has left", || {
        publisher.readers()[0].presence == Presence::Gone { why: Why::Left, is_kept: true }
    });
    assert_eq!(publisher.readers()[0].lag_messages, 2);
    let returned = open(&publisher, 0);
    (3..5).for_each(|number| assert_eq!(take(&returned), message(number, 10)));
    wait_until("all is finished", || publisher.readers()[0].lag_bytes == 0);
}

#[test]
fn a_rank_is_claimed_once_and_an_unknown_one_never() {
    let publisher = publisher_for(&[0], Leftovers::Told);
    let first = open(&publisher, 0);
    let second = open_with(&publisher, key(), 0);
    assert!(
        matches!(second, Err(Error::Taken { rank: 0, pid, .. }) if pid == std::process::id()),
        "{second:?}"
    );
    let unknown = open_with(&publisher, key(), 1);
    assert!(matches!(unknown, Err(Error::Refused { .. })), "{unknown:?}");
    publisher.send(vec![5]);
    assert_eq!(take(&first), [5]);
    drop(first);
    wait_until("it has left", || matches!(publisher.readers()[0].presence, Presence::Gone { .. }));
    open(&publisher, 0);
}

#[test]
fn a_wrong_key_is_told_and_hears_nothing() {
    let publisher = publisher_for(&[0], Leftovers::Told);
    let start = Instant::now();
    let refused = open_with(&publisher, Key::from_bytes([2; 32]), 0);
    assert!(matches!(refused, Err(Error::WrongKey { .. })), "{refused:?}");
    assert!(start.elapsed() < Duration::from_secs(2), "at once: {:?}", start.elapsed());
    assert_eq!(publisher.readers()[0].presence, Presence::Awaited);
    // Whoever subscribes to everything, as any SUB socket can, gets nothing.
    let context = zmq::Context::new();
    let curious = context.socket(zmq::SUB).expect("a socket");
    curious.connect(&format!("tcp://{}", publisher.address())).expect("it is there");
    curious.set_subscribe(b"").expect("it says so");
    curious.set_rcvtimeo(300).expect("a time-out");
    let reader = open(&publisher, 0);
    publisher.send(b"for the reader alone".to_vec());
    assert_eq!(take(&reader), b"for the reader alone");
    assert_eq!(curious.recv_bytes(0), Err(zmq::Error::EAGAIN));
}

#[test]
fn nobody_and_another_address_are_told_with_the_systems_reason() {
    let gone = publisher_for(&[0], Leftovers::Told);
    let config = SubscriberConfig { address: gone.address(), key: key(), nonce: NONCE, rank: 0 };
    drop(gone);
    let start = Instant::now();
    let refused = Subscriber::open(&config, Some(Instant::now() + PATIENCE)).expect_err("nobody is there");
    assert!(refused.to_string().contains("Connection refused"), "{refused}");
    assert!(start.elapsed() < Duration::from_secs(2));
    let not_ours = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    let config = PublisherConfig {
        key: key(),
        nonce: NONCE,
        rank: 0,
        readers: vec![0],
        ip: not_ours,
        leftovers: Leftovers::Told,
    };
    let refused = Publisher::bind(config.clone()).expect_err("it is not ours");
    assert!(refused.to_string().contains("Cannot assign requested address"), "{refused}");
    if !has_ipv6() {
        return;
    }
    let publisher =
        Publisher::bind(PublisherConfig { ip: Ipv6Addr::LOCALHOST.into(), ..config }).expect("IPv6");
    let reader = open(&publisher, 0);
    publisher.send(vec![6]);
    assert_eq!(take(&reader), [6]);
    assert!(publisher.readers()[0].at.as_ref().is_some_and(|(_, at)| at.contains("::1")));
}

#[test]
fn a_sender_waits_for_the_slowest_and_news_are_told() {
    let publisher = publisher_for(&[0, 1], Leftovers::Told);
    let news = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&news);
    publisher.listen(move || {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let readers = [open(&publisher, 0), open(&publisher, 1)];
    let is_ready = |rank: usize| publisher.readers()[rank].presence == Presence::Present { is_ready: true };
    wait_until("both are ready", || is_ready(0) && is_ready(1));
    wait_until("the listener heard of it", || news.load(Ordering::Relaxed) >= 2);
    publisher.send(vec![1; 1000]);
    take(&readers[0]);
    let short = Duration::from_millis(100);
    assert!(publisher.wait(Some(short), |behind| (behind.messages == 0).then_some(())).is_none());
    wait_until("one has finished", || publisher.readers()[0].lag_bytes == 0);
    let [_, slow] = &publisher.readers()[..] else { panic!("two readers") };
    assert_eq!((slow.lag_messages, slow.lag_bytes), (1, 1000));
    assert!(readers[0].wait_until_complete_within(short));
    publisher.say_complete();
    assert!(!readers[1].wait_until_complete_within(PATIENCE));
}

trait Complete {
    /// Whether the time passes.
    fn wait_until_complete_within(&self, timeout: Duration) -> bool;
}

impl Complete for Subscriber {
    fn wait_until_complete_within(&self, timeout: Duration) -> bool {
        matches!(self.wait_until_complete(Some(timeout), || false), Found::Nothing)
    }
}

#[test]
fn a_reader_comes_in_while_others_are_busy() {
    let publisher = publisher_for(&[0, 1, 2, 3], Leftovers::Told);
    let is_over = AtomicU64::new(0);
    let mut slowest = Duration::ZERO;
    std::thread::scope(|scope| {
        let others: Vec<Subscriber> = (0..3).map(|rank| open(&publisher, rank)).collect();
        let (publisher, is_over) = (&publisher, &is_over);
        for reader in others {
            scope.spawn(move || {
                while is_over.load(Ordering::Relaxed) == 0 {
                    if let Found::Message(_) = reader.wait(Some(Duration::from_millis(10)), || false) {
                        reader.finish_one();
                    }
                }
            });
        }
        let newcomer = open(publisher, 3);
        scope.spawn(move || {
            while is_over.load(Ordering::Relaxed) == 0 {
                let room = |behind: unisono_remote::Unfinished| (behind.messages < 1000).then_some(());
                if publisher.wait(Some(Duration::from_millis(10)), room).is_some() {
                    publisher.send(vec![1; 64]);
                }
            }
        });
        drop(newcomer);
        for _ in 0..10 {
            wait_until("it has left", || matches!(publisher.readers()[3].presence, Presence::Gone { .. }));
            let start = Instant::now();
            let newcomer = open(publisher, 3);
            slowest = slowest.max(start.elapsed());
            take(&newcomer);
        }
        is_over.store(1, Ordering::Relaxed);
    });
    println!("came in after {slowest:?} at the latest");
    assert!(slowest < PATIENCE / 2, "{slowest:?}");
}
