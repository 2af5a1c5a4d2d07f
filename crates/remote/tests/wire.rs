//! Whoever does not keep to the wire, on either side: it is told what was wrong, or not believed, and disturbs nobody else.
//!
//! The impostors here are written from the documentation, with sockets and HMAC alone.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use hmac::{Hmac, Mac};
use sha2::Sha256;
use unisono_remote::{
    End, Error, Found, Key, Leftovers, Presence, Publisher, PublisherConfig, Subscriber, SubscriberConfig,
    Why,
};

const NONCE: [u8; 16] = [7; 16];
const KEY: [u8; 32] = [1; 32];
const PATIENCE: Duration = Duration::from_secs(10);

fn tag(key: [u8; 32], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("any length is a key");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

fn header(kind: u8, nonce: [u8; 16], numbers: [u64; 4]) -> Vec<u8> {
    let mut bytes = b"unisono\x01".to_vec();
    bytes.push(kind);
    bytes.extend([0; 7]);
    bytes.extend(nonce);
    numbers.iter().for_each(|number| bytes.extend(number.to_le_bytes()));
    bytes
}

/// A publisher that says what it is told to.
struct Impostor {
    socket: zmq::Socket,
    address: SocketAddr,
    topic: Vec<u8>,
}

impl Impostor {
    fn new() -> Impostor {
        let socket = zmq::Context::new().socket(zmq::XPUB).expect("a socket");
        socket.set_rcvtimeo(PATIENCE.as_millis() as i32).expect("a time-out");
        socket.bind("tcp://127.0.0.1:*").expect("the loopback is here");
        let endpoint = socket.get_last_endpoint().expect("it is bound").expect("text");
        let address = endpoint.strip_prefix("tcp://").expect("tcp").parse().expect("an address");
        Impostor { socket, address, topic: Vec::new() }
    }

    /// The next word, without what is taken back.
    fn hear(&self) -> Vec<u8> {
        loop {
            let word = self.socket.recv_bytes(0).expect("it says something");
            if word[0] == 1 {
                return word[1..].to_vec();
            }
        }
    }

    fn say(&self, frames: &[&[u8]]) {
        let frames = [&[&self.topic[..]], frames].concat();
        self.socket.send_multipart(frames, 0).expect("it is there");
    }

    fn say_signed(&self, header: &[u8], payload: &[u8]) {
        self.say(&[header, payload, &tag(KEY, &[header, payload])]);
    }

    fn data(&self, part: u64, message: u64, payload: &[u8]) {
        self.say_signed(&header(5, NONCE, [part, message, 0, payload.len() as u64]), payload);
    }

    /// Answer what a reader says until it is in. If an answer was late it begins again, as another session.
    fn let_in(&mut self) {
        let challenge = [9; 16];
        loop {
            let word = self.hear();
            let session = word[9..25].to_vec();
            match word[8] {
                b'h' => {
                    self.topic = word;
                    self.say_signed(&header(1, NONCE, [0; 4]), &[&session[..], &challenge].concat());
                }
                b'j' => {
                    let (said, signed) = word.split_at(word.len() - 32);
                    assert_eq!(signed, tag(KEY, &[said, &NONCE, &challenge]));
                    let (rank, pid) = (3u64.to_le_bytes(), 4u32.to_le_bytes());
                    let welcome = [&session[..], &challenge, &rank, &pid, &[0; 16]].concat();
                    self.say_signed(&header(2, NONCE, [0; 4]), &welcome);
                }
                b'a' => return,
                _ => {}
            }
        }
    }

    /// Let a reader in as a publisher would, then do something wrong; gives what it takes that for.
    fn let_in_and(mut self, wrong: impl FnOnce(&Impostor)) -> End {
        let config =
            SubscriberConfig { address: self.address, key: Key::from_bytes(KEY), nonce: NONCE, rank: 0 };
        std::thread::scope(|scope| {
            let reader = scope.spawn(move || {
                let reader =
                    Subscriber::open(&config, Some(Instant::now() + PATIENCE)).expect("it is let in");
                loop {
                    match reader.wait(Some(PATIENCE), || false) {
                        Found::Message(message) => assert_eq!(message, b"right"),
                        Found::End(end) => break end,
                        other => panic!("{other:?}"),
                    }
                }
            });
            self.let_in();
            self.data(0, 0, b"right");
            wrong(&self);
            reader.join().expect("it ends")
        })
    }
}

#[test]
fn a_missing_or_repeated_number_is_told() {
    let end = Impostor::new().let_in_and(|publisher| publisher.data(2, 2, b"after the next"));
    assert_eq!(end, End::Lost { expected: 1, found: 2, parts: (1, 2) });
    let end = Impostor::new().let_in_and(|publisher| publisher.data(0, 0, b"once more"));
    assert_eq!(end, End::Lost { expected: 1, found: 0, parts: (1, 0) });
    // A part in the middle of a message is one of that message.
    let end = Impostor::new().let_in_and(|publisher| {
        publisher.say_signed(&header(5, NONCE, [1, 1, 0, 9]), b"one");
        publisher.say_signed(&header(5, NONCE, [3, 1, 6, 9]), b"six");
    });
    assert_eq!(end, End::Lost { expected: 1, found: 1, parts: (2, 3) });
    let end = Impostor::new().let_in_and(|publisher| {
        publisher.data(1, 1, b"right");
        publisher.say_signed(&header(6, NONCE, [5, 5, 0, 0]), &[]);
    });
    assert_eq!(
        end,
        End::Lost { expected: 2, found: 5, parts: (2, 5) },
        "an end that comes too early is one that lacks messages"
    );
}

#[test]
fn what_is_not_signed_is_not_believed() {
    let next = header(5, NONCE, [1, 1, 0, 5]);
    let unsigned = |publisher: &Impostor| publisher.say(&[&next, b"false", &[0; 32]]);
    assert_eq!(Impostor::new().let_in_and(unsigned), End::Unauthentic);
    let with_another_key = |publisher: &Impostor| {
        publisher.say(&[&next, b"false", &tag([2; 32], &[&next, b"false"])]);
    };
    assert_eq!(Impostor::new().let_in_and(with_another_key), End::Unauthentic);
    let of_another_queue = |publisher: &Impostor| {
        publisher.say_signed(&header(5, [8; 16], [1, 1, 0, 5]), b"false");
    };
    assert_eq!(Impostor::new().let_in_and(of_another_queue), End::Unauthentic);
    let changed = |publisher: &Impostor| publisher.say(&[&next, b"false", &tag(KEY, &[&next, b"right"])]);
    assert_eq!(Impostor::new().let_in_and(changed), End::Unauthentic);
}

#[test]
fn what_cannot_be_is_told_though_it_is_signed() {
    let broken = |wrong: &dyn Fn(&Impostor)| {
        let end = Impostor::new().let_in_and(wrong);
        assert!(matches!(end, End::Broken(_)), "{end:?}");
    };
    broken(&|publisher| publisher.say(&[b"three frames"]));
    broken(&|publisher| publisher.say(&[b"header", b"payload", b"tag", b"one more"]));
    broken(&|publisher| publisher.say(&[&[1; 64], b"no header", &[0; 32]]));
    broken(&|publisher| publisher.say_signed(&header(5, NONCE, [1, 1, 3, 8]), b"no beginning"));
    broken(&|publisher| publisher.say_signed(&header(5, NONCE, [1, 1, 0, 3]), b"longer than said"));
    broken(&|publisher| publisher.say_signed(&header(5, NONCE, [1, 1, 0, 9]), b""));
    broken(&|publisher| publisher.say_signed(&header(5, NONCE, [1, 1, 0, u64::MAX]), b"of endless length"));
}

fn publisher() -> Publisher {
    let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let key = Key::from_bytes(KEY);
    let config =
        PublisherConfig { key, nonce: NONCE, rank: 0, readers: vec![0, 1], ip, leftovers: Leftovers::Told };
    Publisher::bind(config).expect("the loopback is here")
}

fn stranger(publisher: &Publisher, context: &zmq::Context, kind: zmq::SocketType) -> zmq::Socket {
    let socket = context.socket(kind).expect("a socket");
    socket.set_linger(0).expect("an option");
    socket.set_rcvtimeo(PATIENCE.as_millis() as i32).expect("a time-out");
    socket.connect(&format!("tcp://{}", publisher.address())).expect("it is there");
    socket
}

fn read_by_a_reader(publisher: &Publisher, reader: &Subscriber, count: u8) {
    for number in 0..count {
        publisher.send(vec![number; 100]);
        let found = reader.wait(Some(PATIENCE), || false);
        assert!(matches!(&found, Found::Message(message) if message == &[number; 100]), "{found:?}");
        reader.finish_one();
    }
}

fn open(publisher: &Publisher, rank: u64) -> Result<Subscriber, Error> {
    let config =
        SubscriberConfig { address: publisher.address(), key: Key::from_bytes(KEY), nonce: NONCE, rank };
    Subscriber::open(&config, Some(Instant::now() + PATIENCE))
}

/// A stranger's hello, said again until it is answered, and the challenge that it gets.
fn challenged(socket: &zmq::Socket, session: [u8; 16]) -> Vec<u8> {
    let hello = [b"unisono1h", &session[..]].concat();
    socket.set_rcvtimeo(200).expect("a time-out");
    let said_again = std::iter::repeat_with(|| {
        socket.set_subscribe(&hello).expect("it is said");
        let answer = socket.recv_multipart(0);
        answer.inspect_err(|_| socket.set_unsubscribe(&hello).expect("it is taken back"))
    });
    let frames = said_again.take(50).find_map(Result::ok).expect("a challenge");
    socket.set_rcvtimeo(PATIENCE.as_millis() as i32).expect("a time-out");
    assert_eq!(frames[1][8], 1);
    assert_eq!(frames[3], tag(KEY, &[&frames[1], &frames[2]]));
    frames[2][16..].to_vec()
}

fn join(session: [u8; 16], rank: u64, challenge: &[u8], key: [u8; 32]) -> Vec<u8> {
    let word = [&b"unisono1j"[..], &session, &rank.to_le_bytes(), &77u32.to_le_bytes()].concat();
    let signature = tag(key, &[&word, &NONCE, challenge]);
    [word, signature].concat()
}

#[test]
fn strangers_who_come_and_go_disturb_nobody() {
    let publisher = publisher();
    let reader = open(&publisher, 0).expect("it has the key");
    std::thread::scope(|scope| {
        for seed in 0..3u8 {
            let publisher = &publisher;
            scope.spawn(move || {
                for round in 0..60u8 {
                    let context = zmq::Context::new();
                    let socket = stranger(publisher, &context, zmq::XSUB);
                    let hello = [&b"\x01unisono1h"[..], &[seed + 100; 15], &[round]].concat();
                    let words: [&[u8]; 7] =
                        [&hello, b"\x01", b"\x00", b"\x01unisono1", &hello, b"\x07not a word", &[1; 100]];
                    words.iter().for_each(|word| socket.send(*word, 0).expect("it is sent"));
                    if round % 3 == 0 {
                        socket.send(vec![1; 5000], 0).expect("it is sent"); // Longer than any word.
                    }
                    if round % 2 == 0 {
                        std::thread::sleep(Duration::from_millis(u64::from(round % 5)));
                    }
                }
            });
        }
        read_by_a_reader(&publisher, &reader, 250);
    });
    // Others still get in.
    let other = open(&publisher, 1).expect("it has the key");
    drop(reader);
    drop(other);
}

#[test]
fn a_join_counts_with_the_key_and_its_own_challenge_only() {
    let publisher = publisher();
    let context = zmq::Context::new();
    let thief = stranger(&publisher, &context, zmq::SUB);
    let challenge = challenged(&thief, [1; 16]);
    thief.set_subscribe(&join([1; 16], 0, &challenge, [2; 32])).expect("it is said");
    let other = stranger(&publisher, &context, zmq::SUB);
    let second = challenged(&other, [2; 16]);
    assert_ne!(challenge, second);
    // What was signed for another session, or is said in another's name, counts for nothing.
    other.set_subscribe(&join([2; 16], 0, &challenge, KEY)).expect("it is said");
    thief.set_rcvtimeo(200).expect("a time-out");
    other.set_rcvtimeo(200).expect("a time-out");
    assert!(thief.recv_multipart(0).is_err() && other.recv_multipart(0).is_err(), "nobody is welcome");
    assert!(publisher.readers().iter().all(|reader| reader.presence == Presence::Awaited));
    // A goodbye in the name of a reader that is there is not believed without its signature.
    let reader = open(&publisher, 0).expect("it has the key");
    other.set_subscribe(&[&b"unisono1b"[..], &[0; 16], &[0; 32]].concat()).expect("it is said");
    read_by_a_reader(&publisher, &reader, 20);
}

#[test]
fn a_reader_that_claims_to_have_what_was_not_sent_is_broken() {
    let publisher = publisher();
    let context = zmq::Context::new();
    let liar = stranger(&publisher, &context, zmq::SUB);
    let challenge = challenged(&liar, [3; 16]);
    liar.set_subscribe(&join([3; 16], 1, &challenge, KEY)).expect("it is said");
    assert_eq!(liar.recv_multipart(0).expect("it is welcome")[1][8], 2);
    publisher.send(b"one message".to_vec());
    let ack = |parts: u64, messages: u64| {
        let word = [&b"unisono1a"[..], &[3; 16], &parts.to_le_bytes(), &messages.to_le_bytes()].concat();
        let signature = tag(KEY, &[&word, &NONCE, &challenge]);
        liar.set_subscribe(&[word, signature].concat()).expect("it is said");
    };
    ack(0, 0);
    assert_eq!(liar.recv_multipart(0).expect("the message")[2], b"one message");
    ack(5, 5);
    let start = Instant::now();
    while publisher.readers()[1].presence != (Presence::Gone { why: Why::Broken, is_kept: false }) {
        assert!(start.elapsed() < PATIENCE, "{:?}", publisher.readers());
        std::thread::sleep(Duration::from_millis(1));
    }
}
