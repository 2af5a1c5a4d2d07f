//! What the ranks of these tests do: meet, prove that they have met, say so; or say why not.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use unisono::{Communicator, Exchange, ReduceOp, Result};
use unisono_os::socket::Listener;

use crate::faults::{abstract_name, system, tell, told};
use crate::harness::{self, Builder, Ranks};

/// Ranks that meet, use what they have, and end, or give up after `patience` seconds.
pub(crate) fn meeting_of(world: usize, patience: &str) -> Builder {
    Ranks::of("meet", world).env("UNISONO_RENDEZVOUS_TIMEOUT", patience).env("UNISONO_TIMEOUT", "10")
}

/// Rank: meet as the environment says.
pub(crate) fn meet() {
    std::thread::sleep(Duration::from_millis(number("LATE_MS")));
    say_how_it_went(Communicator::from_env());
}

/// Rank: meet and stay until the test says go.
pub(crate) fn meet_and_stay() {
    let held = vec![1u8; number("HELD_BYTES") as usize];
    match Communicator::from_env() {
        Ok(comm) => {
            comm.barrier().expect("all are there");
            if std::env::var_os("WITH_CHILD").is_some() {
                harness::report("child", &system::fork_sleeping_child().to_string());
            }
            harness::report("met", &held.len().to_string());
            harness::wait_for_go();
            prove(&comm);
            harness::report("proved", "yes");
        }
        Err(error) => tell(&error),
    }
}

/// Rank: meet, and when the test says go, split into the first three and the others.
pub(crate) fn meet_and_split() {
    let comm = Communicator::from_env().expect("the ranks meet");
    harness::report("met", "yes");
    harness::wait_for_go();
    match comm.split(Some(comm.rank() as u64 / 3), 0) {
        Ok(part) => {
            // Under its limit there is little room for data.
            let mut sum = [1.0f32; 100];
            part.expect("every rank has a color")
                .all_reduce(&mut sum, ReduceOp::Sum)
                .expect("the sum of all");
            comm.barrier().expect("all are still there");
            harness::report("split", "yes");
        }
        Err(error) => tell(&error),
    }
}

/// Rank: meet, allocate more than there is, then less.
pub(crate) fn meet_and_register() {
    let comm = Communicator::from_env().expect("the ranks meet");
    tell(&comm.alloc::<u8>(number("TOO_MANY") as usize).expect_err("there is less"));
    let mut buffer = comm.alloc::<f32>(1 << 20).expect("this much there is");
    buffer.fill(1.0).expect("it is there");
    comm.all_reduce_registered(&mut buffer, ReduceOp::Sum).expect("all take part");
    assert_eq!(buffer.get((1 << 20) - 1).expect("it is there"), comm.world_size() as f32);
}

/// Rank: meet through an exchange that hands round what the test says, as the user that the test says.
pub(crate) fn meet_by_exchange() {
    if let Ok(user) = std::env::var("AS_USER") {
        system::become_user(user.parse().expect("a user's number"));
    }
    let exchange = Files {
        directory: std::env::var_os("EXCHANGE").map(PathBuf::from),
        rank: number("RANK") as usize,
        world: number("WORLD_SIZE") as usize,
        drawn: told("DRAWN").into_bytes(),
    };
    let builder = Communicator::builder().rank(exchange.rank).world_size(exchange.world).exchange(exchange);
    say_how_it_went(builder.connect());
}

/// An exchange through a directory; without one, what the test had decided on beforehand.
struct Files {
    directory: Option<PathBuf>,
    rank: usize,
    world: usize,
    drawn: Vec<u8>,
}

impl Exchange for Files {
    fn all_gather(&mut self, bytes: &[u8]) -> std::result::Result<Vec<Vec<u8>>, String> {
        if self.drawn == b"fail" {
            return Err("the exchange is out of order".to_string());
        }
        let Some(directory) = &self.directory else {
            let entries = if self.drawn == b"too few" { 1 } else { self.world };
            return Ok(vec![self.drawn.clone(); entries]);
        };
        let place = |rank: usize| directory.join(rank.to_string());
        let draft = directory.join(format!("draft-{}", self.rank));
        std::fs::write(&draft, bytes)
            .and_then(|()| std::fs::rename(&draft, place(self.rank)))
            .map_err(|e| e.to_string())?;
        let until = Instant::now() + Duration::from_secs(10);
        let read = |rank| loop {
            match std::fs::read(place(rank)) {
                Err(error) if Instant::now() >= until => return Err(error.to_string()),
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
                Ok(bytes) => return Ok(bytes),
            }
        };
        (0..self.world).map(read).collect()
    }
}

/// Rank: take the name that a group of this drawn name would meet under, as another user, and say nothing to anybody.
pub(crate) fn squat() {
    system::become_user(number("AS_USER") as u32);
    let name = abstract_name(told("DRAWN").as_bytes());
    let _listener = Listener::bind(&name).expect("the name is free");
    harness::report("squats", "yes");
    harness::wait_for_go();
}

/// A number that the test or a launcher put into the environment, or 0.
fn number(name: &str) -> u64 {
    std::env::var(name).map_or(0, |value| value.parse().expect("a number"))
}

fn say_how_it_went(met: Result<Communicator>) {
    match met {
        Ok(comm) => {
            prove(&comm);
            harness::report("met", &format!("{:?}", comm.parameters()));
        }
        Err(error) => tell(&error),
    }
}

/// One operation of every family, small and in several chunks, with the right results.
fn prove(comm: &Communicator) {
    let (rank, world) = (comm.rank(), comm.world_size());
    let expected = (world * (world + 1) / 2) as f32;
    for count in [1, 100, 300_000] {
        let mut sum = vec![rank as f32 + 1.0; count];
        comm.all_reduce(&mut sum, ReduceOp::Sum).expect("the sum of all");
        assert!(sum.iter().all(|found| *found == expected), "{count} elements: {:?}", &sum[..1]);
        let mut data = vec![if rank == world - 1 { 7u16 } else { 0 }; count];
        comm.broadcast(&mut data, world - 1).expect("the last rank's data");
        assert!(data.iter().all(|found| *found == 7), "{count} elements");
        let mut all = vec![0u64; count * world];
        comm.all_gather(&vec![rank as u64; count], &mut all).expect("all data");
        assert!(
            all.chunks(count)
                .enumerate()
                .all(|(from, block)| block.iter().all(|found| *found == from as u64))
        );
        if rank == 0 && world > 1 {
            comm.send(&vec![9u8; count], 1).expect("rank 1 receives");
        } else if rank == 1 {
            let mut received = vec![0u8; count];
            comm.recv(&mut received, 0).expect("rank 0 sends");
            assert!(received.iter().all(|found| *found == 9), "{count} elements");
        }
    }
    comm.barrier().expect("all are still there");
}
