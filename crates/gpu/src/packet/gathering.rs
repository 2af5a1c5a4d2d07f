//! Every rank tells all others some bytes: over tcp, by way of rank 0.
//!
//! A rank that comes is sent a challenge and signs with the id's secret what it says; what rank 0 answers is signed over the rank's own
//! challenge. The invariant: **nothing is believed that is not signed, and nobody waits past the deadline**; who is missing is named.
//! Whoever comes is heard by a thread of its own, so that one who says nothing keeps nobody else.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::error::PacketError;
use super::unique_id::UniqueId;

const CHALLENGE_BYTES: usize = 16;
const TAG_BYTES: usize = 32;
/// Rank, world, length, and the own challenge.
const HEADER_BYTES: usize = 12 + CHALLENGE_BYTES;
/// What a rank may say at most, and ranks.
const MOST_BYTES: usize = 4096;
const MOST_RANKS: usize = 64;
/// How many are heard at a time.
const HEARD_AT_ONCE: usize = 64;
/// Somebody who says nothing is heard so long.
const ONE_AT_MOST: Duration = Duration::from_secs(2);
/// How often rank 0 looks who has come.
const LOOKS_EVERY: Duration = Duration::from_millis(2);

type Challenge = [u8; CHALLENGE_BYTES];

/// What every rank said, in order of rank. All call it with the same id, each with its rank; all say as many bytes.
///
/// # Errors
///
/// [`PacketError::Gathering`]: who has not come by the deadline, or what went wrong; [`PacketError::UniqueId`].
pub fn gather(
    id: &UniqueId,
    rank: usize,
    world: usize,
    said: &[u8],
    deadline: Instant,
) -> Result<Vec<Vec<u8>>, PacketError> {
    if !(1..=MOST_RANKS).contains(&world) || rank >= world || said.len() > MOST_BYTES {
        let problem =
            format!("rank {rank} of {world} with {} bytes is more than can be gathered", said.len());
        return Err(PacketError::Gathering { problem });
    }
    if rank == 0 { host(id, world, said, deadline) } else { come(id, rank, world, said, deadline) }
}

/// Rank 0's side.
fn host(id: &UniqueId, world: usize, said: &[u8], deadline: Instant) -> Result<Vec<Vec<u8>>, PacketError> {
    let listener = id.take_listener()?;
    let mut guests: Vec<Option<Guest>> = (0..world).map(|_| None).collect();
    let failed = |problem: String| PacketError::Gathering { problem };
    listener.set_nonblocking(true).map_err(|error| failed(error.to_string()))?;
    let mut at_the_door: Vec<JoinHandle<std::io::Result<Guest>>> = Vec::new();
    loop {
        while let Some(done) = at_the_door.iter().position(JoinHandle::is_finished) {
            // Whoever is not one of ours is sent away; the ranks go on waiting for one another.
            let Ok(Ok(guest)) = at_the_door.swap_remove(done).join() else { continue };
            let place = &mut guests[guest.rank];
            if place.is_some() {
                return Err(failed(format!("two ranks say that they are rank {}", guest.rank)));
            }
            *place = Some(guest);
        }
        let missing: Vec<_> = (1..world).filter(|rank| guests[*rank].is_none()).collect();
        if missing.is_empty() {
            break;
        }
        // Whoever knocks without end does not keep the ranks.
        if Instant::now() >= deadline {
            return Err(failed(format!("ranks {missing:?} of {world} have not come to {}", id.address())));
        }
        let has_room = at_the_door.len() < HEARD_AT_ONCE;
        let stream = if has_room { next_guest(&listener) } else { Ok(None) };
        match stream.map_err(|error| failed(error.to_string()))? {
            None => std::thread::sleep(LOOKS_EVERY),
            Some(stream) => {
                let (id, length) = (id.clone(), said.len());
                let hear = move || {
                    unisono_os::thread::mask_all_signals();
                    Guest::admit(stream, &id, world, length, deadline)
                };
                let thread = std::thread::Builder::new().name("unisono-guest".to_owned()).spawn(hear);
                at_the_door.push(thread.map_err(|error| failed(format!("no thread for a guest: {error}")))?);
            }
        }
    }
    let mut table = vec![said.to_vec()];
    table.extend(guests.iter().flatten().map(|guest| guest.said.clone()));
    let answer = table.concat();
    for guest in guests.iter_mut().flatten() {
        let tag = tag(id, &[b"all", &guest.challenge, &answer]);
        let told = guest.stream.write_all(&answer).and_then(|()| guest.stream.write_all(&tag));
        told.map_err(|error| failed(format!("telling rank {}: {error}", guest.rank)))?;
    }
    Ok(table)
}

/// Who has come, if anybody has.
fn next_guest(listener: &TcpListener) -> std::io::Result<Option<TcpStream>> {
    use ErrorKind::{ConnectionAborted, Interrupted, WouldBlock};
    match listener.accept() {
        Ok((stream, _)) => stream.set_nonblocking(false).map(|()| Some(stream)),
        // Or somebody knocked and went away.
        Err(error) if matches!(error.kind(), ConnectionAborted | WouldBlock | Interrupted) => Ok(None),
        Err(error) => Err(error),
    }
}

#[derive(Debug)]
struct Guest {
    stream: TcpStream,
    rank: usize,
    challenge: Challenge,
    said: Vec<u8>,
}

impl Guest {
    /// Hears who has come; an error for whoever is not one of ours.
    fn admit(
        mut stream: TcpStream,
        id: &UniqueId,
        world: usize,
        length: usize,
        deadline: Instant,
    ) -> std::io::Result<Self> {
        let stranger = || std::io::Error::from(ErrorKind::PermissionDenied);
        let deadline = deadline.min(Instant::now() + ONE_AT_MOST);
        limit(&stream, deadline)?;
        let challenge: Challenge = unisono_os::random::bytes()?;
        stream.write_all(&challenge)?;
        let mut header = [0; HEADER_BYTES];
        read_by(&mut stream, &mut header, deadline)?;
        let field =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let [rank, of, bytes] = [field(0), field(4), field(8)].map(|field| field as usize);
        if of != world || bytes != length || !(1..world).contains(&rank) {
            return Err(stranger());
        }
        let mut said = vec![0; length];
        let mut found = [0; TAG_BYTES];
        read_by(&mut stream, &mut said, deadline)?;
        read_by(&mut stream, &mut found, deadline)?;
        if !is_tag(id, &[b"one", &challenge, &header, &said], &found) {
            return Err(stranger());
        }
        let mut own = [0; CHALLENGE_BYTES];
        own.copy_from_slice(&header[12..]);
        Ok(Self { stream, rank, challenge: own, said })
    }
}

/// The other ranks' side.
fn come(
    id: &UniqueId,
    rank: usize,
    world: usize,
    said: &[u8],
    deadline: Instant,
) -> Result<Vec<Vec<u8>>, PacketError> {
    let at = id.address();
    let failed = |problem: String| PacketError::Gathering { problem };
    let unheard = |error: std::io::Error| {
        failed(format!(
            "rank 0 at {at} did not tell all ranks ({error}): did it give up, or wait for others, or has it another number of \
             ranks than {world}?"
        ))
    };
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let mut stream = TcpStream::connect_timeout(&at, left)
        .map_err(|error| failed(format!("rank 0 cannot be reached at {at}: {error}")))?;
    let mut say = || -> std::io::Result<(Challenge, Vec<u8>, [u8; TAG_BYTES])> {
        limit(&stream, deadline)?;
        let own: Challenge = unisono_os::random::bytes()?;
        let mut challenge = [0; CHALLENGE_BYTES];
        read_by(&mut stream, &mut challenge, deadline)?;
        let mut header: Vec<u8> =
            [rank, world, said.len()].iter().flat_map(|field| (*field as u32).to_le_bytes()).collect();
        header.extend(own);
        let tag = tag(id, &[b"one", &challenge, &header, said]);
        stream.write_all(&[&header, said, &tag[..]].concat())?;
        let mut answer = vec![0; world * said.len()];
        let mut found = [0; TAG_BYTES];
        read_by(&mut stream, &mut answer, deadline)?;
        read_by(&mut stream, &mut found, deadline)?;
        Ok((own, answer, found))
    };
    let (own, answer, found) = say().map_err(unheard)?;
    if !is_tag(id, &[b"all", &own, &answer], &found) {
        return Err(failed(format!("what answers at {at} has not the id's secret")));
    }
    if said.is_empty() {
        return Ok(vec![Vec::new(); world]);
    }
    Ok(answer.chunks_exact(said.len()).map(<[u8]>::to_vec).collect())
}

fn limit(stream: &TcpStream, deadline: Instant) -> std::io::Result<()> {
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    stream.set_read_timeout(Some(left))?;
    stream.set_write_timeout(Some(left))
}

/// As `read_exact`, but over by the deadline also where every byte comes just in time.
fn read_by(stream: &mut TcpStream, mut into: &mut [u8], deadline: Instant) -> std::io::Result<()> {
    while !into.is_empty() {
        if Instant::now() >= deadline {
            return Err(ErrorKind::TimedOut.into());
        }
        limit(stream, deadline)?;
        match stream.read(into) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => into = &mut into[count..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn mac(id: &UniqueId, parts: &[&[u8]]) -> Hmac<Sha256> {
    // HMAC fills shorter keys up to the block with zeros; done here, there is no length that could be refused.
    let mut block = [0; 64];
    block[..32].copy_from_slice(&id.secret());
    let mut mac = <Hmac<Sha256> as hmac::digest::KeyInit>::new(&block.into());
    parts.iter().for_each(|part| mac.update(part));
    mac
}

fn tag(id: &UniqueId, parts: &[&[u8]]) -> [u8; TAG_BYTES] {
    mac(id, parts).finalize().into_bytes().into()
}

/// In a time that does not depend on the tag.
fn is_tag(id: &UniqueId, parts: &[&[u8]], tag: &[u8; TAG_BYTES]) -> bool {
    mac(id, parts).verify_slice(tag).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    fn new_id() -> UniqueId {
        UniqueId::generate([127, 0, 0, 1].into()).unwrap()
    }

    #[test]
    fn every_rank_hears_what_all_say_and_strangers_are_sent_away() {
        let id = new_id();
        // Many who say nothing, and one who has another secret.
        let silent: Vec<_> = (0..10).map(|_| TcpStream::connect(id.address()).unwrap()).collect();
        let start = Instant::now();
        let mut other = id.to_bytes();
        other[20] ^= 1;
        let other = UniqueId::from_bytes(&other).unwrap();
        std::thread::scope(|scope| {
            let stranger = scope.spawn(|| gather(&other, 1, 4, &[9, 9], soon()));
            let ranks: Vec<_> = (0..4_u8)
                .map(|rank| {
                    let id = &id;
                    scope.spawn(move || gather(id, usize::from(rank), 4, &[rank, 7], soon()))
                })
                .collect();
            for rank in ranks {
                assert_eq!(rank.join().unwrap(), Ok(vec![vec![0, 7], vec![1, 7], vec![2, 7], vec![3, 7]]));
            }
            // Not one after the other.
            assert!(start.elapsed() < 5 * ONE_AT_MOST, "{:?}", start.elapsed());
            assert!(matches!(stranger.join().unwrap(), Err(PacketError::Gathering { .. })));
        });
        drop(silent);
    }

    #[test]
    fn who_sends_a_byte_now_and_then_keeps_nobody_past_the_deadline() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let mut slow = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let is_over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            // For as long as anybody listens.
            let is_over = &is_over;
            scope.spawn(move || {
                while !is_over.load(std::sync::atomic::Ordering::Acquire) && slow.write_all(b"x").is_ok() {
                    std::thread::sleep(Duration::from_millis(10));
                }
            });
            let read = read_by(&mut stream, &mut [0; 1 << 20], Instant::now() + Duration::from_millis(200));
            is_over.store(true, std::sync::atomic::Ordering::Release);
            assert!(
                read.is_err_and(|error| matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock))
            );
        });
    }

    #[test]
    fn who_has_not_come_is_named() {
        let id = new_id();
        let deadline = Instant::now() + Duration::from_millis(300);
        std::thread::scope(|scope| {
            let one = scope.spawn(|| gather(&id, 1, 4, b"x", deadline));
            let Err(PacketError::Gathering { problem }) = gather(&id, 0, 4, b"x", deadline) else {
                panic!("nobody came")
            };
            assert!(problem.contains("ranks [2, 3] of 4"), "{problem}");
            assert!(matches!(one.join().unwrap(), Err(PacketError::Gathering { .. })));
        });
    }
}
