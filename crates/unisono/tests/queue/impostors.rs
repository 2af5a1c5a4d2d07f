//! Who comes as a reader and is none, and who answers as a writer and is none: each is told what is wrong or is believed no
//! more, and the other side goes on.
//!
//! What the two say to one another is said again here, so that a fake can say it. Messages are postcard; the order of
//! the variants is the format.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use unisono::queue::{Error, Handle, Reader, Result, Writer};
use unisono_os::socket::{Address, Connection, Listener, Received};
use unisono_os::{mapping, memfd, pidfd, robust};

use crate::common::{Dice, PATIENCE};
use crate::faults::system;

/// How long nobody waits for what does not come.
const SHORT: Duration = Duration::from_millis(300);
const RING: usize = 64 << 10;
const DEATH_WORDS: usize = 4096;

#[derive(Debug, Serialize, Deserialize)]
enum Message {
    Hello { version: u32, nonce: [u8; 16], rank: usize },
    Admitted { seat: usize, ring_bytes: u64, position: u64, messages: u64, has_pidfd: bool, crowded: bool },
    Refused(Refusal),
    Ready,
    Segment { number: u64, bytes: u64 },
}

#[derive(Debug, Serialize, Deserialize)]
enum Refusal {
    Taken { pid: u32 },
    Other { problem: String },
}

fn say(connection: &Connection, message: &Message, descriptors: &[BorrowedFd<'_>]) {
    let bytes = postcard::to_stdvec(message).expect("it can be written");
    // Whoever has gone by now does not hear it.
    let _ = connection.send(&bytes, descriptors, Some(Instant::now() + PATIENCE));
}

fn hear(connection: &Connection) -> Option<(Message, Vec<OwnedFd>)> {
    match connection.receive(8192, Some(Instant::now() + PATIENCE)) {
        Ok(Received::Message(packet)) => {
            Some((postcard::from_bytes(&packet.bytes).expect("it is understood"), packet.descriptors))
        }
        _ => None,
    }
}

/// What tells a queue from all others, as its handle says it after two versions.
fn nonce_of(handle: &Handle) -> [u8; 16] {
    let (_version, nonce): (u32, [u8; 16]) = postcard::from_bytes(&handle.to_bytes()[4..]).expect("a handle");
    nonce
}

fn address_of(handle: &Handle) -> Address {
    let name: String = nonce_of(handle).iter().map(|byte| format!("{byte:02x}")).collect();
    Address::Abstract(format!("unisono-queue/{name}").into_bytes())
}

/// Memory of `bytes` bytes that begins with these words, sealed as both sides' is.
fn memory(bytes: usize, words: &[u64]) -> OwnedFd {
    let memory = memfd::create_sealed("unisono-fake", bytes).expect("memory");
    let file = File::from(memory);
    let content: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    file.write_all_at(&content, 0).expect("it is long enough");
    file.into()
}

/// Who it is, and from the next line but one on how far it has come.
fn page(magic: &[u8; 8], handle: &Handle, line: [u64; 3]) -> Vec<u64> {
    let nonce = u64::from_le_bytes(*nonce_of(handle).first_chunk().expect("sixteen bytes"));
    let mut words = vec![0; 16];
    words[..2].copy_from_slice(&[u64::from_le_bytes(*magic), nonce]);
    words.extend(line);
    words
}

fn in_pages(bytes: usize) -> usize {
    bytes.next_multiple_of(mapping::page_size())
}

fn reader_bytes() -> usize {
    in_pages(DEATH_WORDS + robust::STRIDE)
}

fn writer_bytes() -> usize {
    in_pages(DEATH_WORDS + robust::MOST_WORDS * robust::STRIDE) + RING
}

/// What could be cut off under everybody's feet.
fn unsealed(bytes: usize) -> OwnedFd {
    let file = File::from(system::memory_without_seals());
    file.set_len(bytes as u64).expect("it can grow");
    file.into()
}

/// A fake reader says hello with this and gets an answer.
fn knock(handle: &Handle, hello: &Message, descriptors: &[OwnedFd]) -> (Connection, Option<Message>) {
    let door = Connection::connect(&address_of(handle), Some(Instant::now() + PATIENCE)).expect("it is open");
    let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
    say(&door, hello, &descriptors);
    let answer = hear(&door).map(|(answer, _)| answer);
    (door, answer)
}

/// The version that the writer speaks, as it tells whoever speaks another.
fn version_of(handle: &Handle) -> u32 {
    let hello = Message::Hello { version: u32::MAX, nonce: nonce_of(handle), rank: 0 };
    match knock(handle, &hello, &[]).1 {
        Some(Message::Refused(Refusal::Other { problem })) if problem.contains("version") => {
            problem.rsplit(' ').next().and_then(|number| number.parse().ok()).expect("it says which")
        }
        other => panic!("it was answered {other:?}"),
    }
}

pub(crate) fn a_reader_that_is_none_is_told_why_and_the_next_comes_in() {
    let mut writer = Writer::builder().create().expect("a queue");
    let handle = writer.handle().clone();
    let (version, nonce) = (version_of(&handle), nonce_of(&handle));
    let hello = |version, nonce, rank| Message::Hello { version, nonce, rank };
    let right = || hello(version, nonce, 0);
    let proper = || memory(reader_bytes(), &page(b"uniqueR1", &handle, [0; 3]));
    let cases: Vec<(&str, Message, Vec<OwnedFd>)> = vec![
        ("version", hello(version + 1, nonce, 0), vec![proper()]),
        ("another queue", hello(version, [7; 16], 0), vec![proper()]),
        ("no reader of rank 9", hello(version, nonce, 9), vec![proper()]),
        ("no reader of rank", hello(version, nonce, usize::MAX), vec![proper()]),
        ("without memory", right(), vec![]),
        ("lacks the seals", right(), vec![unsealed(reader_bytes())]),
        ("bytes", right(), vec![memory(reader_bytes() / 2, &[])]),
        ("bytes", right(), vec![memory(reader_bytes() * 2, &[])]),
        ("not a reader's", right(), vec![memory(reader_bytes(), &[])]),
        ("not a reader's", right(), vec![memory(reader_bytes(), &page(b"uniqueW2", &handle, [0; 3]))]),
        ("", right(), vec![pidfd::open_self().expect("a pidfd"), proper()]),
        ("", right(), vec![proper(), memory(4096, &[])]),
    ];
    for (expected, hello, descriptors) in cases {
        match knock(&handle, &hello, &descriptors).1 {
            Some(Message::Refused(Refusal::Other { problem })) => {
                assert!(problem.contains(expected), "{expected:?} is not in: {problem}");
            }
            other => panic!("{expected:?}: it was answered {other:?}"),
        }
    }
    let mut reader = Reader::open(&handle, 0).expect("the rank is free");
    let taken = knock(&handle, &right(), &[proper()]).1;
    let own = std::process::id();
    assert!(matches!(taken, Some(Message::Refused(Refusal::Taken { pid })) if pid == own), "{taken:?}");
    writer.send(b"for the true one").expect("it is here");
    assert_eq!(reader.recv().expect("it is there").to_vec(), b"for the true one");
}

pub(crate) fn a_reader_that_breaks_the_rules_is_named_to_the_writer() {
    type Breaks = fn(&Connection);
    let rules: [Breaks; 4] = [
        |connection| say(connection, &Message::Segment { number: 1, bytes: 1 }, &[]),
        |connection| drop(connection.send(&[0xff; 1000], &[], None)),
        |connection| drop(connection.send(&[1; 100_000], &[], None)),
        |connection| say(connection, &Message::Refused(Refusal::Taken { pid: 1 }), &[]),
    ];
    for breaks in rules {
        let mut writer = Writer::builder().create().expect("a queue");
        let handle = writer.handle().clone();
        let hello = Message::Hello { version: version_of(&handle), nonce: nonce_of(&handle), rank: 0 };
        let own = memory(reader_bytes(), &page(b"uniqueR1", &handle, [u64::MAX; 3]));
        let (connection, admitted) = knock(&handle, &hello, &[own]);
        assert!(matches!(admitted, Some(Message::Admitted { .. })), "{admitted:?}");
        say(&connection, &Message::Ready, &[]);
        writer.wait_until_ready(PATIENCE).expect("it says so");
        writer.send(b"?").expect("it is here");
        breaks(&connection);
        let told = (0..).find_map(|_| {
            std::thread::sleep(Duration::from_millis(1));
            writer.send_within(b"?", PATIENCE).err()
        });
        let named = std::process::id();
        assert!(matches!(told, Some(Error::PeerBroken { rank: 0, pid, .. }) if pid == named), "{told:?}");
    }
}

/// A reader opens a queue of which the writer is the fake, which has so long to let it in, and receives.
fn meet(opening_takes: Duration, fake: impl FnOnce(&Connection, &Handle) + Send) -> Result<usize> {
    let writer = Writer::builder().create().expect("a queue");
    let handle = writer.handle().clone();
    drop(writer);
    // A process that another test starts holds a copy of the writer's socket from its fork to its exec.
    let end = Instant::now() + PATIENCE;
    let door = loop {
        match Listener::bind(&address_of(&handle)) {
            Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_millis(1)),
            bound => break bound.expect("the name is free again"),
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let connection = door.accept(Some(Instant::now() + PATIENCE)).expect("a reader comes");
            assert!(matches!(hear(&connection), Some((Message::Hello { rank: 0, .. }, _))));
            fake(&connection, &handle);
        });
        let start = Instant::now();
        let received = Reader::open_within(&handle, 0, opening_takes).and_then(|mut reader| {
            let received = reader.recv_within(SHORT);
            received.map(|message| message.to_vec().len())
        });
        assert!(start.elapsed() < PATIENCE / 4, "{received:?} after {:?}", start.elapsed());
        received
    })
}

fn admit(connection: &Connection, ring_bytes: u64, position: u64, memory: &[OwnedFd]) {
    let admitted = Message::Admitted {
        seat: usize::MAX,
        ring_bytes,
        position,
        messages: 9,
        has_pidfd: false,
        crowded: false,
    };
    say(connection, &admitted, &memory.iter().map(AsFd::as_fd).collect::<Vec<_>>());
    // It stays until the reader has gone.
    while hear(connection).is_some() {}
}

pub(crate) fn a_writer_that_is_none_is_told_from_one() {
    let ring = RING as u64;
    type Fake = Box<dyn FnOnce(&Connection, &Handle) + Send>;
    let cases: Vec<(&str, Fake)> = vec![
        ("gone", Box::new(|_, _| {})),
        ("timed out", Box::new(|_, _| std::thread::sleep(SHORT * 2))),
        ("cannot be understood", Box::new(|connection, _| drop(connection.send(&[0xff; 1000], &[], None)))),
        ("longer", Box::new(|connection, _| drop(connection.send(&[1; 100_000], &[], None)))),
        ("answered Ready", Box::new(|connection, _| say(connection, &Message::Ready, &[]))),
        ("no memory", Box::new(move |connection, _| admit(connection, ring, 0, &[]))),
        (
            "a ring of 3000",
            Box::new(|connection, _| admit(connection, 3000, 0, &[memory(writer_bytes(), &[])])),
        ),
        (
            "a ring of",
            Box::new(|connection, _| admit(connection, 1 << 50, 0, &[memory(writer_bytes(), &[])])),
        ),
        ("a ring of", Box::new(|connection, _| admit(connection, 8, 0, &[memory(writer_bytes(), &[])]))),
        (
            "bytes",
            Box::new(move |connection, _| admit(connection, 2 * ring, 0, &[memory(writer_bytes(), &[])])),
        ),
        (
            "lacks the seals",
            Box::new(move |connection, _| admit(connection, ring, 0, &[unsealed(writer_bytes())])),
        ),
        (
            "not this queue's",
            Box::new(move |connection, _| admit(connection, ring, 0, &[memory(writer_bytes(), &[])])),
        ),
    ];
    for (expected, fake) in cases {
        let opening_takes = if expected == "timed out" { SHORT } else { PATIENCE / 6 };
        let told = meet(opening_takes, fake).expect_err("it is no writer");
        assert!(matches!(told, Error::Meeting { .. }), "{expected:?}: {told:?}");
        assert!(told.to_string().contains(expected), "{expected:?} is not in: {told}");
    }
}

pub(crate) fn a_writer_whose_words_make_no_sense_leads_nobody_astray() {
    let mut dice = Dice::new(5);
    let odd = [0, 7, 8, 24, RING as u64, RING as u64 + 8, 1 << 40, u64::MAX - 7, u64::MAX];
    for round in 0..60 {
        let [first, position] = [0, 1].map(|_| odd[dice.below(odd.len() as u64) as usize]);
        let head = [first, first.wrapping_add(dice.below(3) * 24), dice.roll()][round % 3];
        // What stands in the ring: nothing, whole records and noise.
        let record = [0, 1 << 56 | 16, 2 << 56 | 16, 1 << 56 | (1 << 40), dice.roll()][round % 5];
        let received = meet(PATIENCE / 6, move |connection, handle| {
            let mut words = page(b"uniqueW2", handle, [head, 0, 0]);
            words.resize((writer_bytes() - RING) / 8, 0);
            words.extend([record; RING / 8]);
            admit(connection, RING as u64, position, &[memory(writer_bytes(), &words)]);
        });
        match received {
            Ok(bytes) => assert!(bytes <= RING),
            Err(error) => assert!(
                matches!(error, Error::PeerBroken { .. } | Error::Timeout { .. } | Error::PeerDied { .. }),
                "{error:?}"
            ),
        }
    }
}
