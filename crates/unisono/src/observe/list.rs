//! Finding the queues and communicators of this user, and putting together what is said of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use unisono_os::process;
use unisono_os::socket::{Address, listening};

use super::ask::{Answer, ask};
use super::facts::{
    CommunicatorFacts, LastCall, Listing, Process, ProcessFacts, QueueFacts, RankFacts, RankState,
    ReaderFacts, Silent,
};
use crate::call::Operation;
use crate::error::{Error, Result};
use crate::group::inquiry::{self, GroupSeen, RankSeen};
use crate::parameters::MAX_WORLD_SIZE;
use crate::queue;
use crate::queue::messages::QueueSeen;
use crate::socket_file::{self, Kind};

/// How long those who are asked may take, all of them together.
const PATIENCE: Duration = Duration::from_millis(500);
/// How many entries of a directory are looked at.
const MOST_ENTRIES: usize = 16_384;

/// The queues and communicators of this user in this network namespace, and those whose socket files lie in `directory` (what
/// `UNISONO_DIR` says, in most cases). Communicators whose ranks are threads of one process are not found.
///
/// It takes half a second at most, longer than a moment only if a process does not answer. Whoever is asked is not held up: the watcher
/// of a rank or the host of a queue answers, a thread that sleeps otherwise.
///
/// ```
/// let writer = unisono::queue::Writer::builder().readers(2).create()?;
/// let listing = unisono::observe::list(None)?;
/// let name = writer.handle().name();
/// let seen = listing.queues.iter().find(|queue| queue.name == name).expect("it is there");
/// assert_eq!((seen.messages, seen.readers.len()), (0, 2));
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// If the system does not show its sockets, or the directory cannot be read.
pub fn list(directory: Option<&Path>) -> Result<Listing> {
    let uid = process::uid();
    let files = match directory {
        Some(directory) => socket_files(directory)?,
        None => Vec::new(),
    };
    let places = |prefix, kind| places(prefix, kind, &files);
    let (queues, ranks) = (places(queue::PREFIX, Kind::Queue)?, places(inquiry::PREFIX, Kind::Rank)?);
    // Both at once: whoever does not answer is waited for once.
    let deadline = Instant::now() + PATIENCE;
    let (queues, ranks) = std::thread::scope(|scope| {
        let queues = scope.spawn(|| ask(queues, uid, &queue::messages::Message::Question, deadline));
        let ranks = ask(ranks, uid, &inquiry::question(), deadline);
        (queues.join().unwrap_or_default(), ranks)
    });
    let mut listing = Listing::default();
    queues.into_iter().for_each(|answer| add_queue(&mut listing, answer));
    add_groups(&mut listing, ranks);
    listing.queues.sort_by(|one, other| one.name.cmp(&other.name));
    listing.communicators.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(listing)
}

/// Where those of a kind listen, each once: a file only where there is no name.
fn places(prefix: &str, kind: Kind, files: &[(Kind, String, Address)]) -> Result<Vec<Address>> {
    let names = listening(prefix).map_err(Error::os("looking for sockets"))?;
    let of_kind = files.iter().filter(|(of, name, _)| {
        *of == kind && !names.iter().any(|listed| listed.strip_prefix(prefix) == Some(name))
    });
    let files: Vec<Address> = of_kind.map(|(.., address)| address.clone()).collect();
    Ok(names.into_iter().map(|name| Address::Abstract(name.into_bytes())).chain(files).collect())
}

fn socket_files(directory: &Path) -> Result<Vec<(Kind, String, Address)>> {
    let unreadable = |error: std::io::Error| {
        let context = directory.display().to_string();
        Error::os("looking for socket files")(unisono_os::OsError::from_io("readdir", &error, context))
    };
    let entries = std::fs::read_dir(directory).map_err(unreadable)?.take(MOST_ENTRIES).filter_map(Result::ok);
    let meant = entries.filter_map(|entry| {
        let file = entry.file_name();
        let (kind, name) = socket_file::meant_by(&file)?;
        Some((kind, name.to_string(), Address::File(entry.path())))
    });
    Ok(meant.collect())
}

/// Somebody who did not say what was asked for; `None` if it has just ended, as anybody may.
fn silent<Message>(answer: &Answer<Message>) -> Option<Silent> {
    let process = ProcessFacts::of(answer.credentials.pid, true);
    let problem = match &answer.problem {
        // Whoever made the socket is not there, and still somebody keeps it open.
        Some(_) if process.state == Process::Ended => {
            "has ended, and a process forked from it keeps its socket open".to_string()
        }
        Some(problem) => problem.clone(),
        None if process.state == Process::Ended => return None,
        None => "did not answer what was asked: is it another version of unisono?".to_string(),
    };
    Some(Silent { address: answer.address.to_string(), process, problem })
}

fn add_queue(listing: &mut Listing, answer: Answer<queue::messages::Message>) {
    use crate::queue::messages::Message;
    let seen = answer.messages.iter().find_map(|message| match message {
        Message::Seen(seen) => Some(seen),
        _ => None,
    });
    match seen {
        Some(seen) => listing.queues.push(queue_facts(seen, answer.credentials.pid)),
        None => listing.silent.extend(silent(&answer)),
    }
}

/// Numbers of processes mean something here only if the one who told them goes by the number that it believes to have.
fn queue_facts(seen: &QueueSeen, pid: u32) -> QueueFacts {
    let is_visible = seen.pid == pid;
    let reader = |reader: &queue::ReaderStatus| ReaderFacts {
        rank: reader.rank,
        presence: reader.presence,
        // The writer knows its readers by the numbers that the kernel gave them in its namespace.
        process: reader.pid.map(|pid| ProcessFacts::of(pid, is_visible && reader.address.is_none())),
        address: reader.address.as_deref().map(plain),
        lag_messages: reader.lag_messages,
        lag_bytes: reader.lag_bytes,
        last_step: reader.last_step,
    };
    QueueFacts {
        name: plain(&seen.name),
        writer_rank: seen.writer_rank,
        writer: ProcessFacts::of(pid, true),
        messages: seen.messages,
        ring_bytes: seen.ring_bytes,
        used_bytes: seen.readers.iter().map(|reader| reader.lag_bytes).max().unwrap_or(0),
        readers: seen.readers.iter().map(reader).collect(),
    }
}

fn add_groups(listing: &mut Listing, answers: Vec<Answer<inquiry::Message>>) {
    // By the group's number: what each of its ranks sees, and the number by which the system knows the process.
    let mut told: BTreeMap<u64, Vec<(u32, GroupSeen)>> = BTreeMap::new();
    for answer in answers {
        let mut has_answered = answer.problem.is_none();
        for message in &answer.messages {
            match message {
                inquiry::Message::Group(seen) if is_sound(seen) => {
                    told.entry(seen.nonce).or_default().push((answer.credentials.pid, seen.clone()));
                }
                _ => has_answered = false,
            }
        }
        if !has_answered {
            listing.silent.extend(silent(&answer));
        }
    }
    listing.communicators.extend(told.values().filter_map(|seen| communicator_facts(seen)));
    // Who does not answer and is a rank of a group that others tell of is known already.
    let known: Vec<u32> = listing
        .communicators
        .iter()
        .flat_map(|communicator| &communicator.ranks)
        .filter(|rank| rank.process.state != Process::Unknown)
        .map(|rank| rank.process.pid)
        .collect();
    listing.silent.retain(|silent| !known.contains(&silent.process.pid));
}

fn is_sound(seen: &GroupSeen) -> bool {
    (1..=MAX_WORLD_SIZE).contains(&seen.ranks.len()) && seen.rank < seen.ranks.len()
}

/// One group, of which all of these tell.
fn communicator_facts(told: &[(u32, GroupSeen)]) -> Option<CommunicatorFacts> {
    let (_, first) = told.first()?;
    let told: Vec<_> = told.iter().filter(|(_, seen)| seen.ranks.len() == first.ranks.len()).collect();
    // One whose own number is the system's knows the others' by numbers that mean something here, too.
    let is_visible = told.iter().any(|(pid, seen)| *pid == seen.ranks[seen.rank].pid);
    let rank_facts = |rank: usize| {
        let seen: Vec<&RankSeen> = told.iter().map(|(_, seen)| &seen.ranks[rank]).collect();
        let own = told.iter().find(|(_, seen)| seen.rank == rank);
        let state = if seen.iter().any(|seen| seen.left) {
            RankState::Left
        } else if seen.iter().any(|seen| !seen.alive) {
            RankState::Dead
        } else {
            RankState::Alive
        };
        let process = match own {
            Some((pid, _)) => ProcessFacts::of(*pid, true),
            None => ProcessFacts::of(first.ranks[rank].pid, is_visible),
        };
        let last = seen.iter().find_map(|seen| seen.last.as_ref()).and_then(|last| {
            let call = last.call()?;
            let (number, finished) = (last.number, last.finished);
            Some(LastCall { number, operation: call.operation.name(), call: call.to_string(), finished })
        });
        let last_step =
            seen.iter().find_map(|seen| seen.last_step).or_else(|| step_of_the_others(first, rank));
        RankFacts { rank, state, answers: own.is_some(), process, last, last_step }
    };
    Some(CommunicatorFacts {
        name: plain(&first.name),
        world_size: first.ranks.len(),
        stopped: told.iter().any(|(_, seen)| seen.stopped),
        ranks: (0..first.ranks.len()).map(rank_facts).collect(),
    })
}

/// A rank that never waits for long is the one that the others wait for: they have begun to when it took its last step, or soon after.
fn step_of_the_others(seen: &GroupSeen, rank: usize) -> Option<Duration> {
    let collective = |seen: &RankSeen| {
        let last = seen.last.as_ref()?;
        let is_transfer = matches!(last.call()?.operation, Operation::Send | Operation::Recv);
        (!is_transfer).then_some(last.number)
    };
    let own = collective(&seen.ranks[rank])?;
    let waiting = seen.ranks.iter().filter(|other| collective(other).is_some_and(|number| number >= own));
    waiting.filter_map(|other| other.last_step).max()
}

/// A text that another process gave, safe to print.
fn plain(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}
