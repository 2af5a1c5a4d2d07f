//! What the queue's tests share: how a handle travels, and how a process tells its test how a call ended.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use unisono::queue::{Error, Handle, Reader, WaitedFor, Writer};

use crate::faults::{self, told};
use crate::harness::{self, Builder, Ranks};

/// How long a test waits for its processes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The writer and its readers: process 0 writes, process r reads as rank r - 1. The directory lives as long as the test.
pub(crate) fn processes(scenario: &str, readers: usize) -> (Builder, faults::Scratch) {
    let directory = faults::Scratch::new("queue");
    let builder = Ranks::of(scenario, readers + 1).env("HANDLE_IN", directory.path());
    (builder, directory)
}

/// Which of the processes this is.
pub(crate) fn own_number() -> usize {
    told("RANK").parse().expect("a number")
}

pub(crate) fn readers() -> usize {
    told("WORLD_SIZE").parse::<usize>().expect("a number") - 1
}

pub(crate) fn number(name: &str) -> usize {
    told(name).parse().expect("a number")
}

fn handle_file(name: &str) -> PathBuf {
    PathBuf::from(told("HANDLE_IN")).join(name)
}

/// Let the handle travel to the other processes.
pub(crate) fn publish_as(handle: &Handle, name: &str) {
    let (file, unfinished) = (handle_file(name), handle_file(&format!("{name}.new")));
    std::fs::write(&unfinished, handle.to_bytes()).expect("the directory is there");
    std::fs::rename(unfinished, file).expect("the directory is there");
}

pub(crate) fn publish(writer: &Writer) {
    publish_as(writer.handle(), "handle");
}

/// The handle, when it has arrived.
pub(crate) fn handle_of(name: &str) -> Handle {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Ok(bytes) = std::fs::read(handle_file(name)) {
            return Handle::from_bytes(&bytes).expect("it arrives as it was sent");
        }
        assert!(Instant::now() < until, "no handle came");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn open(rank: usize) -> Reader {
    Reader::open(&handle_of("handle"), rank).unwrap_or_else(|error| panic!("rank {rank} opens: {error}"))
}

/// On a process: tell the test how a call ended: when, the variant, the ranks that it names, their processes, the words.
pub(crate) fn tell(error: &Error) {
    let (kind, named): (&str, Vec<(usize, Option<u32>)>) = match error {
        Error::PeerDied { rank, pid, .. } => ("PeerDied", vec![(*rank, Some(*pid))]),
        Error::PeerLeft { rank, pid, .. } => ("PeerLeft", vec![(*rank, Some(*pid))]),
        Error::PeerBroken { rank, pid, .. } => ("PeerBroken", vec![(*rank, Some(*pid))]),
        Error::LinkLost { rank, pid, .. } => ("LinkLost", vec![(*rank, Some(*pid))]),
        Error::RankTaken { rank, pid } => ("RankTaken", vec![(*rank, Some(*pid))]),
        Error::Timeout { waited_for, .. } => ("Timeout", named_in(waited_for)),
        Error::Cancelled { .. } => ("Cancelled", vec![]),
        Error::ShutDown { .. } => ("ShutDown", vec![]),
        Error::Forked { .. } => ("Forked", vec![]),
        Error::Meeting { .. } => ("Meeting", vec![]),
        Error::UnknownRank { .. } => ("UnknownRank", vec![]),
        _ => ("Other", vec![]),
    };
    let at = unisono_os::clock::monotonic_nanoseconds();
    let names: Vec<String> = named.iter().map(|(rank, pid)| format!("{rank}/{}", pid.unwrap_or(0))).collect();
    let text = error.to_string().replace('\n', " ");
    harness::report("ended", &format!("{at};{kind};{};{text}", names.join(",")));
}

fn named_in(waited_for: &WaitedFor) -> Vec<(usize, Option<u32>)> {
    match waited_for {
        WaitedFor::Readers(readers) => readers.iter().map(|reader| (reader.rank, reader.pid)).collect(),
        WaitedFor::Writer { rank, pid, .. } => vec![(*rank, Some(*pid))],
        _ => vec![],
    }
}

/// How a process ended, as it told its test.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) at: u64,
    pub(crate) kind: String,
    /// Rank and process of each that is named.
    pub(crate) named: Vec<(usize, u32)>,
    pub(crate) text: String,
}

pub(crate) fn ended_in(line: &str) -> Ended {
    let mut parts = line.splitn(4, ';');
    let mut part = || parts.next().unwrap_or_default().to_string();
    let at = part().parse().expect("a time");
    let kind = part();
    let named = part()
        .split(',')
        .filter_map(|name| {
            let (rank, pid) = name.split_once('/')?;
            Some((rank.parse().ok()?, pid.parse().ok()?))
        })
        .collect();
    Ended { at, kind, named, text: part() }
}

/// A small generator of numbers: xorshift.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }
}
