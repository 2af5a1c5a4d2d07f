//! What ranks say to one another when they meet, said again so that a fake can say it, and the ranks that it meets.
//!
//! Messages are postcard; the order of the variants is the format.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use unisono::{Communicator, Exchange, Parameters, ReduceOp};
use unisono_os::mapping::{Access, Mapping};
use unisono_os::memfd;
use unisono_os::socket::{Connection, Received};

use crate::faults::{abstract_name, tell, told};
use crate::harness::{self, Builder, Ranks};

pub(crate) const VERSION: u32 = 3;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) version: u32,
    pub(crate) rank: usize,
    pub(crate) world: usize,
    pub(crate) pid: u32,
    pub(crate) cpus: Vec<usize>,
    pub(crate) quota: Option<f64>,
    pub(crate) headroom: u64,
    pub(crate) limited_by: String,
    pub(crate) limited_in: Option<u64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Welcome {
    pub(crate) nonce: u64,
    pub(crate) parameters: Parameters,
    pub(crate) crowded: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    Hello(Hello),
    Seated,
    Welcome(Welcome),
    Refused { problem: String, missing: Vec<usize> },
    Memory,
    Roster { pids: Vec<u32>, has_pidfd: Vec<bool> },
    Ready,
    Go,
    Failed { problem: String },
}

/// A hello as an honest rank says it.
pub(crate) fn hello(rank: usize, world: usize) -> Hello {
    let limited_by = "nothing".to_string();
    let pid = std::process::id();
    Hello {
        version: VERSION,
        rank,
        world,
        pid,
        cpus: vec![0],
        quota: None,
        headroom: u64::MAX,
        limited_by,
        limited_in: None,
    }
}

pub(crate) fn soon() -> Option<Instant> {
    Some(Instant::now() + Duration::from_secs(10))
}

/// Say something. Nobody may be there any more.
pub(crate) fn say(to: &Connection, message: &Message, descriptors: &[BorrowedFd<'_>]) {
    let bytes = postcard::to_stdvec(message).expect("a message can be written");
    let _ = to.send(&bytes, descriptors, soon());
}

/// The next message, with its descriptors; `None` if the other side has gone.
pub(crate) fn hear(from: &Connection) -> Option<(Message, Vec<OwnedFd>)> {
    match from.receive(64 * 1024, soon()).expect("the rank speaks or goes") {
        Received::Closed => None,
        Received::Message(packet) => Some((
            postcard::from_bytes(&packet.bytes).expect("ranks speak as this test does"),
            packet.descriptors,
        )),
    }
}

/// Knock at rank 0's door as soon as there is one.
pub(crate) fn knock(drawn: &str) -> Connection {
    Connection::connect_when_listening(&abstract_name(drawn.as_bytes()), soon()).expect("rank 0 listens")
}

/// The size of a rank's memory with the parameters that the ranks of these tests have, learned from a real one.
pub(crate) fn memory_bytes(world: usize, parameters: &Parameters) -> usize {
    Communicator::in_process_with(world, parameters).expect("threads can meet")[0].memory_bytes()
}

/// Memory with the header of a rank, as the library writes it: what it is, of which group, how large, whose.
pub(crate) fn memory_with(header: [u64; 4], bytes: usize) -> OwnedFd {
    let memory = memfd::create_sealed("unisono", bytes).expect("memory");
    let mapping = Mapping::shared(memory.as_fd(), 0, bytes, Access::ReadWrite).expect("it can be mapped");
    for (index, word) in header.into_iter().enumerate() {
        let place = mapping.atomic_u64(index * 8).expect("it lies inside");
        place.store(word, std::sync::atomic::Ordering::Relaxed);
    }
    memory
}

/// The header of `rank`'s memory.
pub(crate) fn header(nonce: u64, bytes: usize, rank: usize, world: usize) -> [u64; 4] {
    [u64::from_le_bytes(*b"unisono1"), nonce, bytes as u64, rank as u64 | (world as u64) << 32]
}

/// Real ranks that meet under a name that the test has drawn.
pub(crate) fn under(drawn: &str, world: usize, patience: &str) -> Builder {
    Ranks::of("meet_under_drawn_name", world)
        .env("DRAWN", drawn)
        .env("UNISONO_RENDEZVOUS_TIMEOUT", patience)
        .env("UNISONO_TIMEOUT", "1")
}

struct Drawn(usize);

impl Exchange for Drawn {
    fn all_gather(&mut self, _bytes: &[u8]) -> Result<Vec<Vec<u8>>, String> {
        Ok(vec![told("DRAWN").into_bytes(); self.0])
    }
}

/// Rank: meet under the drawn name and work a little, or say why not.
pub(crate) fn meet_under_drawn_name() {
    let number = |name| told(name).parse::<usize>().expect("a number");
    let (rank, world) = (number("RANK"), number("WORLD_SIZE"));
    let met = Communicator::builder().rank(rank).world_size(world).exchange(Drawn(world)).connect();
    let worked = met.and_then(|comm| {
        harness::report("met", &world.to_string());
        comm.all_reduce(&mut [1.0f32; 100], ReduceOp::Sum)?;
        if std::env::var_os("STAY").is_some() {
            comm.with_timeout(Some(Duration::from_secs(20))).recv(&mut [0u8], (rank + 1) % world)?;
        }
        Ok(())
    });
    if let Err(error) = worked {
        tell(&error);
    }
}
