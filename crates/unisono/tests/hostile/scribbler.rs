//! Somebody writes whatever it likes into all shared memory of a group while its ranks work.
//!
//! The last rank has a second thread that writes through `/proc/self/mem` to where its process maps the memory of all
//! ranks: what any process of the same user could do. Every rank must come out of every operation, with any result,
//! within its deadline and a little, and live.

use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use unisono::{Communicator, ReduceOp, Result};

use crate::faults::{self, fresh_name, note, told};
use crate::harness::{self, Ranks};

const PATIENCE: Duration = Duration::from_millis(150);
/// What an operation may take beyond its deadline: a busy machine, and a split's meeting, whose rank 0 has the last word
/// a second after the deadline.
const SLACK: Duration = Duration::from_secs(3);
/// How long a group works under attack.
const ROUND: Duration = Duration::from_millis(120);

/// A small generator of numbers that nobody can foresee: xorshift.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }
}

/// Where this process maps the memories of ranks: address and length of each.
fn memories() -> Vec<(u64, u64)> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("a process sees its own mappings");
    let memory = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let whole =
            fields.get(5)?.starts_with("/memfd:unisono") && fields[2].trim_start_matches('0').is_empty();
        let (start, end) = fields[0].split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        let (start, end) = (number(start)?, number(end)?);
        whole.then_some((start, end - start))
    };
    maps.lines().filter_map(memory).collect()
}

/// The first pages: who is who, arrival words, records, death words, cursors.
const WORDS: u64 = 3 * 4096;

/// Write into the memories, in the way that the seed says, until told to stop. Gives the number of writes.
fn scribble(seed: u64, stop: &AtomicBool) -> u64 {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let memories = memories();
    if memories.is_empty() {
        return 0; // The round was over before this thread began.
    }
    let own_memory =
        std::fs::OpenOptions::new().write(true).open("/proc/self/mem").expect("it can be written");
    let way = seed % 8;
    let telling = [0, 1, 2, u32::MAX, 1 << 30, 1 << 31, 3 << 30, (1 << 29) - 1, 1 << 29, 0x4000_0001];
    let mut writes = 0;
    // Sometimes at once, sometimes after the ranks have got somewhere.
    std::thread::sleep(Duration::from_micros(dice.below(20_000)));
    while !stop.load(Ordering::Relaxed) {
        let (start, length) = memories[dice.below(memories.len() as u64) as usize];
        let (from, bytes) = match way {
            0 => (0, 4096),                                 // the header
            1 => (4096, 4096),                              // the death words
            2 => (8192, 4096),                              // the cursors
            3 => (128, 128),                                // the arrival line
            4 if length > WORDS => (WORDS, length - WORDS), // the data, if there is any
            4..=6 => (0, WORDS.min(length)),                // all words
            _ => (0, length),                               // everything
        };
        let place = start + from + dice.below(bytes / 4) * 4;
        let noise: Vec<u8> = match way {
            6 => telling[dice.below(telling.len() as u64) as usize].to_le_bytes().to_vec(),
            7 => (0..(start + length - place).min(1 + dice.below(65_536)) / 8)
                .flat_map(|_| dice.roll().to_le_bytes())
                .collect(),
            _ => (dice.roll() as u32).to_le_bytes().to_vec(),
        };
        // The memory of a sub-group may be gone by now.
        writes += u64::from(own_memory.write_at(&noise, place).is_ok());
        if dice.below(64) == 0 {
            std::thread::sleep(Duration::from_micros(dice.below(300)));
        }
    }
    writes
}

/// One operation, of a kind that all ranks agree on.
fn operate(comm: &Communicator, kind: u64) -> Result<()> {
    let (rank, world) = (comm.rank(), comm.world_size());
    let root = kind as usize % world;
    let (next, last) = ((rank + 1) % world, (rank + world - 1) % world);
    match kind % 18 {
        0 => comm.all_reduce(&mut [1.0f32; 50], ReduceOp::Sum),
        1 => comm.all_reduce(&mut vec![1.0f32; 60_000], ReduceOp::Average),
        2 => comm.reduce(&mut vec![1i64; 20_000], ReduceOp::Max, root),
        3 => comm.broadcast(&mut vec![1u8; 300_000], root),
        4 => comm.all_gather(&[1u16; 30], &mut vec![0u16; 30 * world]),
        5 => comm.all_gather_dim(&[1.0f64; 24], &mut vec![0.0f64; 24 * world], &[2, 3, 4], 1),
        6 => comm.gather(&[1u8; 99], (rank == root).then_some(&mut vec![0u8; 99 * world][..]), root),
        7 => comm.scatter((rank == root).then_some(&vec![0u8; 99 * world][..]), &mut [1u8; 99], root),
        8 => comm.all_to_all(&vec![3i32; 40 * world], &mut vec![0i32; 40 * world]),
        9 => comm.reduce_scatter(&vec![1.0f32; 777 * world], &mut [0.0f32; 777], ReduceOp::Sum),
        10 => comm.send(&[5u64; 40], next).and_then(|()| comm.recv(&mut [0u64; 40], last)),
        11 if rank == 0 => comm.send(&vec![5u8; 400_000], 1),
        11 if rank == 1 => comm.recv(&mut vec![5u8; 400_000], 0),
        11 => Ok(()),
        12 => {
            let counts: Vec<usize> = (0..world).map(|rank| rank * 100).collect();
            let total = counts.iter().sum();
            comm.gather_v(
                &vec![1u8; counts[rank]],
                (rank == root).then_some((&mut vec![0u8; total][..], &counts[..])),
                root,
            )
        }
        13 => {
            let counts = vec![70; world];
            comm.all_to_all_v(&vec![1u8; 70 * world], &counts, &mut vec![0u8; 70 * world], &counts)
        }
        14 => {
            let counts = vec![7; world];
            comm.scatter_v(
                (rank == root).then_some((&vec![0u8; 7 * world][..], &counts[..])),
                &mut [0u8; 7],
                root,
            )
        }
        15 => {
            comm.split(Some(rank as u64 % 2), 0).and_then(|part| part.map_or(Ok(()), |part| part.barrier()))
        }
        16 => {
            let mut data = comm.alloc::<f32>(20_000)?;
            comm.all_reduce_registered(&mut data, ReduceOp::Sum)?;
            comm.all_gather_registered(data.slice(..world * 6000)?)?;
            comm.broadcast_registered(data.slice(7..)?, root)
        }
        _ => comm.barrier(),
    }
}

/// Rank: meet, work under attack until an error or the end of the round, and again, until the time is up.
pub(crate) fn work_while_somebody_scribbles() {
    let number = |name| told(name).parse::<u64>().expect("a number");
    let (rank, world) = (number("RANK") as usize, number("WORLD_SIZE") as usize);
    let (run, rounds) = (told("RUN"), number("ROUNDS"));
    let (mut done, mut failed, written) = (0, 0, AtomicU64::new(0));
    let mut longest = Duration::ZERO;
    for seed in 0..rounds {
        let comm = Communicator::builder()
            .rank(rank)
            .world_size(world)
            .run_id(&format!("{run}-{seed}"))
            .rendezvous_timeout(Duration::from_secs(30))
            .timeout(Some(PATIENCE))
            .connect()
            .expect("nobody disturbs the meeting");
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            if rank == world - 1 {
                scope.spawn(|| written.fetch_add(scribble(seed, &stop), Ordering::Relaxed));
            }
            let mut dice = Dice(seed * 1000 + 1);
            let begin = Instant::now();
            while begin.elapsed() < ROUND {
                let (kind, start) = (dice.roll(), Instant::now());
                let result = operate(&comm, kind);
                let took = start.elapsed();
                assert!(took < PATIENCE * 2 + SLACK, "operation {} took {took:?}: {result:?}", kind % 18);
                longest = longest.max(took);
                done += 1;
                let _ = format!("{:?}", comm.peers()); // What others wrote about themselves is read here.
                if let Err(error) = result {
                    assert!(!error.to_string().is_empty());
                    failed += 1;
                    if comm.barrier().is_err() {
                        break; // It was terminal.
                    }
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
    harness::report(
        "done",
        &format!(
            "{done} operations, {failed} errors, {} writes, longest operation {longest:.0?}",
            written.into_inner()
        ),
    );
}

pub(crate) fn ranks_survive_whatever_is_written_into_their_shared_memory() {
    for (world, rounds) in [(2, 64), (3, 96)] {
        let start = Instant::now();
        let outcomes = Ranks::of("work_while_somebody_scribbles", world)
            .env("RUN", &fresh_name("scribbled"))
            .env("ROUNDS", &rounds.to_string())
            .env("UNISONO_CHUNK_BYTES", "64KiB")
            .env("UNISONO_SWAP_BYTES", "16KiB")
            .env("UNISONO_PUSH_BYTES", "1KiB")
            .start()
            .all_succeed(Duration::from_secs(100));
        let told: Vec<String> =
            outcomes.iter().flat_map(|outcome| faults::reported(outcome, "done")).collect();
        note(&format!(
            "{rounds} groups of {world} under attack in {:.0?}: {}",
            start.elapsed(),
            told.join("; ")
        ));
    }
}
