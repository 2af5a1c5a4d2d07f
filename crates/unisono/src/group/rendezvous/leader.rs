//! Rank 0's part: wait for all, agree, collect the memories, hand out the set, give the word to start.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use unisono_os::poll;
use unisono_os::socket::Connection;

use super::alongside::Reserving;
use super::door::{Door, refuse};
use super::messages::{self, Hello, Message, Welcome};
use super::{Invitation, Met, NotMet, Own, Purpose, Roster};
use crate::error::{Error, Result};

/// How many connections may be silent at a time.
const MOST_STRANGERS: usize = 128;
/// How many refusals a time-out tells of.
const MOST_REFUSALS: usize = 16;

/// What to do where memory does not suffice for a group.
const LESS_STAGING: &str =
    "raise the limit, or lower UNISONO_CHUNK_BYTES, UNISONO_SWAP_BYTES and UNISONO_WINDOW_BYTES";

/// A rank that has come.
struct Guest {
    connection: Connection,
    hello: Hello,
}

/// Those who have come so far.
struct Gathering<'i> {
    invitation: &'i Invitation,
    door: Door,
    /// By rank; rank 0 is this process and stays empty.
    guests: Vec<Option<Guest>>,
    /// Connections that have not said who they are.
    strangers: Vec<Connection>,
    /// Who was turned away and why, for the time-out's message.
    refusals: Vec<String>,
}

/// Rank 0's part of [`super::meet`].
pub(super) fn lead(
    invitation: &Invitation,
    before_handing_out: &mut dyn FnMut(BorrowedFd<'_>) -> Result<()>,
) -> Result<Met, NotMet> {
    let door = Door::open(invitation).map_err(NotMet::before_all_came)?;
    let guests = (0..invitation.world).map(|_| None).collect();
    let mut gathering = Gathering { invitation, door, guests, strangers: Vec::new(), refusals: Vec::new() };
    match gathering.lead(before_handing_out) {
        Ok((welcome, own, memories, roster)) => {
            let connections = gathering
                .guests
                .into_iter()
                .enumerate()
                .filter_map(|(rank, guest)| Some((rank, guest?.connection)));
            Ok(Met {
                welcome,
                own,
                memories,
                pids: roster.pids,
                pidfds: roster.pidfds,
                connections: connections.collect(),
                door: Some(gathering.door),
            })
        }
        Err(error) => {
            gathering.tell_everybody(&error);
            let all_came = gathering.others().all(|rank| gathering.guests[rank].is_some());
            Err(if all_came { NotMet::from(error) } else { NotMet::before_all_came(error) })
        }
    }
}

type Led = (Welcome, Own, Vec<crate::group::shared_memory::SharedMemory>, Roster);

impl Gathering<'_> {
    fn lead(&mut self, before_handing_out: &mut dyn FnMut(BorrowedFd<'_>) -> Result<()>) -> Result<Led> {
        self.gather()?;
        let full = format!("the group is complete: rank 0 is process {}", unisono_os::process::pid());
        self.door.close_file(full);
        let welcome = self.agree()?;
        for rank in self.others() {
            self.send(rank, &Message::Welcome(welcome.clone()), &[])?;
        }
        let own = self.invitation.make_own(&welcome, before_handing_out)?;
        let mut roster = self.collect(&own)?;
        self.hand_out(&own, &roster)?;
        roster.check_pidfds();
        let memories = self.invitation.map_all(&welcome, &own, &roster)?;
        for rank in self.others() {
            self.expect(rank, |message, _| matches!(message, Message::Ready).then_some(()))?;
        }
        for rank in self.others() {
            self.send(rank, &Message::Go, &[])?;
        }
        Ok((welcome, own, memories, roster))
    }

    /// Wait until every rank has said hello.
    fn gather(&mut self) -> Result<()> {
        while self.guests.iter().skip(1).any(Option::is_none) {
            if self.invitation.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(self.somebody_is_missing());
            }
            let wake = [self.invitation.deadline, self.door.due()].into_iter().flatten().min();
            self.wait_for_news(self.invitation.next_look(wake))?;
            self.invitation.check_goes_on()?;
            if let Err(error) = self.door.make_file_if_due() {
                tracing::debug!(%error, "ranks in other network namespaces cannot come: no socket file");
            }
        }
        Ok(())
    }

    /// Sleep until somebody knocks, speaks or leaves; deal with it.
    fn wait_for_news(&mut self, deadline: Option<Instant>) -> Result<()> {
        let seated: Vec<usize> = (1..self.guests.len()).filter(|rank| self.guests[*rank].is_some()).collect();
        let mut descriptors = self.door.descriptors();
        let doors = descriptors.len();
        descriptors.extend(self.strangers.iter().map(AsFd::as_fd));
        descriptors.extend(self.guests.iter().flatten().map(|guest| guest.connection.as_fd()));
        let ready = poll::until_readable(&descriptors, deadline).map_err(Error::os("waiting for ranks"))?;
        let (strangers, guests) = ready[doors..].split_at(self.strangers.len());
        // A seated rank has nothing to say yet: readable means that it has gone, and its seat is free again.
        for (rank, ready) in seated.into_iter().zip(guests) {
            if ready.any()
                && let Some(guest) = self.guests[rank].take()
            {
                self.remember_refusal(format!("rank {rank} (pid {}) came and left", guest.hello.pid));
            }
        }
        let speak: Vec<bool> = strangers.iter().map(|ready| ready.any()).collect();
        let mut speak = speak.into_iter();
        let (speakers, silent): (Vec<_>, Vec<_>) =
            self.strangers.drain(..).partition(|_| speak.next().unwrap_or(false));
        self.strangers = silent;
        for stranger in speakers {
            self.hear(stranger)?;
        }
        let come = self.door.let_in().map_err(self.invitation.socket_error("letting ranks in"))?;
        self.strangers.extend(come);
        // Who says nothing makes room for others; a rank speaks at once, and comes again if it was unlucky.
        let too_many = self.strangers.len().saturating_sub(MOST_STRANGERS);
        self.strangers.drain(..too_many);
        Ok(())
    }

    /// A stranger has something to say: seat it, or turn it away with the reason.
    fn hear(&mut self, stranger: Connection) -> Result<()> {
        let hello = match messages::receive(&stranger, Some(Instant::now())) {
            Ok(Some((Message::Hello(hello), _))) => hello,
            Ok(Some((Message::Failed { problem }, _))) => {
                let text = format!("a process was refused: it {problem}");
                refuse(&stranger, &text, &[]);
                self.remember_refusal(text);
                return Ok(());
            }
            _ => return Ok(()), // It left, or knocked to see who is here.
        };
        let world = self.invitation.world;
        let mine = unisono_os::process::uid();
        let credentials =
            stranger.peer_credentials().map_err(self.invitation.socket_error("asking who came"))?;
        let problem = if credentials.uid != mine {
            Some(format!("it belongs to user {}, but the group to user {mine}", credentials.uid))
        } else if hello.version != messages::VERSION {
            Some(format!("it speaks version {}, rank 0 version {}", hello.version, messages::VERSION))
        } else if hello.world != world {
            Some(format!("it wants a world of {} ranks, rank 0 one of {world}", hello.world))
        } else if hello.rank >= world {
            Some(format!("rank {} does not exist in a world of {world}", hello.rank))
        } else if hello.rank == 0 {
            Some(format!("rank 0 is process {}", unisono_os::process::pid()))
        } else {
            let taken = self.guests[hello.rank].as_ref();
            taken.map(|guest| format!("rank {} is process {} already", hello.rank, guest.hello.pid))
        };
        let Some(problem) = problem else {
            let rank = hello.rank;
            // If it has gone by now, that is seen at the next look.
            let _ = messages::send(&stranger, &Message::Seated, &[], Some(Instant::now()));
            self.guests[rank] = Some(Guest { connection: stranger, hello });
            return Ok(());
        };
        let text = format!(
            "process {} wanted to be rank {} and was refused: {problem}",
            credentials.pid, hello.rank
        );
        tracing::warn!("{}: {text}", self.invitation.meeting.label);
        refuse(&stranger, &text, &[]);
        // Ranks that disagree about their number can never be complete.
        if hello.world != world && credentials.uid == mine && hello.version == messages::VERSION {
            return Err(self.invitation.error(text));
        }
        self.remember_refusal(text);
        Ok(())
    }

    /// For the time-out's message, which nobody wants to be a book.
    fn remember_refusal(&mut self, text: String) {
        if self.refusals.len() < MOST_REFUSALS {
            self.refusals.push(text);
        }
    }

    fn somebody_is_missing(&self) -> Error {
        let missing: Vec<usize> =
            (1..self.guests.len()).filter(|rank| self.guests[*rank].is_none()).collect();
        let came: Vec<String> = self
            .guests
            .iter()
            .flatten()
            .map(|guest| format!("{} (pid {})", guest.hello.rank, guest.hello.pid))
            .collect();
        let came = if came.is_empty() { "none".to_string() } else { came.join(", ") };
        let refused = match self.refusals.as_slice() {
            [] => String::new(),
            refusals => format!("; {}", refusals.join("; ")),
        };
        Error::Rendezvous {
            group: self.invitation.meeting.label.clone(),
            problem: format!("ranks {missing:?} never came (those that did: {came}){refused}"),
            missing,
        }
    }

    /// What all ranks go by, from what each said about itself.
    fn agree(&self) -> Result<Welcome> {
        let mine = self.invitation.hello();
        let hellos: Vec<&Hello> =
            std::iter::once(&mine).chain(self.guests.iter().flatten().map(|guest| &guest.hello)).collect();
        self.check_headroom(&hellos)?;
        let nonce = unisono_os::random::bytes::<8>().map_err(Error::os("drawing a random number"))?;
        Ok(Welcome {
            nonce: u64::from_le_bytes(nonce),
            parameters: self.invitation.parameters.clone(),
            crowded: is_crowded(&hellos),
        })
    }

    /// Above a cgroup's limit the kernel kills instead of failing, so the sum of what all ranks will reserve is compared
    /// first with what may be had; ranks under the same limit share it.
    fn check_headroom(&self, hellos: &[&Hello]) -> Result<()> {
        let all: Vec<Reserving> = match &self.invitation.alongside {
            Some(alongside) => alongside.all.clone(),
            None => hellos.iter().map(|hello| Reserving::of(hello)).collect(),
        };
        let purpose = self.invitation.purpose;
        for hello in hellos {
            let limit = Reserving::of(hello).limit;
            let sharing: Vec<usize> =
                all.iter().filter(|rank| rank.limit == limit).map(|rank| rank.world).collect();
            let mut needed = 0u64;
            for world in &sharing {
                let memory = purpose.layout(*world, &self.invitation.parameters)?;
                needed = needed.saturating_add(memory.total() as u64);
            }
            if needed > hello.headroom {
                let (what, advice) = match purpose {
                    Purpose::Group => ("staging", LESS_STAGING),
                    Purpose::Registration(_) => ("registered memory", "raise the limit, or allocate less"),
                };
                return Err(Error::OutOfMemory {
                    what: format!("the {what} of {} ranks", sharing.len()),
                    needed,
                    available: hello.headroom,
                    limited_by: hello.limited_by.clone(),
                    advice,
                });
            }
        }
        Ok(())
    }

    /// Every rank's memory and process.
    fn collect(&self, own: &Own) -> Result<Roster> {
        let copy = |descriptor: &OwnedFd| descriptor.try_clone().map_err(|error| self.cannot_copy(&error));
        let mut roster = Roster {
            pids: vec![unisono_os::process::pid()],
            memories: vec![copy(&own.memory)?],
            pidfds: vec![own.pidfd.as_ref().map(copy).transpose()?],
        };
        for rank in self.others() {
            let mut descriptors = self.expect(rank, |message, descriptors| {
                (matches!(message, Message::Memory) && matches!(descriptors.len(), 1 | 2))
                    .then_some(descriptors)
            })?;
            let pidfd = if descriptors.len() == 2 { descriptors.pop() } else { None };
            roster.pids.push(self.pid(rank, pidfd.as_ref()));
            roster.pidfds.push(pidfd);
            roster.memories.extend(descriptors);
        }
        Ok(roster)
    }

    /// The process number of a rank, as this process sees it where it can.
    fn pid(&self, rank: usize, pidfd: Option<&OwnedFd>) -> u32 {
        let seen = pidfd.and_then(|pidfd| unisono_os::pidfd::process_number(pidfd.as_fd()));
        seen.or_else(|| self.guests[rank].as_ref().map(|guest| guest.hello.pid)).unwrap_or(0)
    }

    fn hand_out(&self, own: &Own, roster: &Roster) -> Result<()> {
        let has_pidfd = roster.pidfds.iter().map(Option::is_some).collect();
        let message = Message::Roster { pids: roster.pids.clone(), has_pidfd };
        let mut descriptors = vec![own.memory.as_fd()];
        descriptors.extend(roster.memories[1..].iter().map(AsFd::as_fd));
        descriptors.extend(roster.pidfds.iter().flatten().map(AsFd::as_fd));
        self.others().try_for_each(|rank| self.send(rank, &message, &descriptors))
    }

    fn others(&self) -> std::ops::Range<usize> {
        1..self.invitation.world
    }

    fn guest(&self, rank: usize) -> Result<&Guest> {
        self.guests[rank].as_ref().ok_or_else(|| self.invitation.error(format!("rank {rank} has left")))
    }

    fn send(&self, rank: usize, message: &Message, descriptors: &[BorrowedFd<'_>]) -> Result<()> {
        let whom = format!("rank {rank}");
        messages::send(&self.guest(rank)?.connection, message, descriptors, self.invitation.deadline)
            .map_err(self.invitation.socket_error(&whom))
    }

    /// The message that has to come from `rank` now, as `understand` takes it.
    fn expect<T>(
        &self,
        rank: usize,
        understand: impl FnOnce(Message, Vec<OwnedFd>) -> Option<T>,
    ) -> Result<T> {
        let guest = self.guest(rank)?;
        let whom = format!("rank {rank} (pid {})", guest.hello.pid);
        let received = self.invitation.receive(&guest.connection, &whom, self.invitation.deadline)?;
        let problem = match received {
            None => "left before the group was complete".to_string(),
            Some((Message::Failed { problem }, _)) => problem,
            Some((message, packet)) => {
                let text = format!("sent something else: {message:?}");
                match understand(message, packet.descriptors) {
                    Some(understood) => return Ok(understood),
                    None => text,
                }
            }
        };
        Err(self.invitation.error(format!("{whom}: {problem}")))
    }

    /// An error on rank 0 is an error on all.
    fn tell_everybody(&self, error: &Error) {
        let (problem, missing) = match error {
            Error::Rendezvous { problem, missing, .. } => (problem.clone(), missing.clone()),
            other => (format!("rank 0 could not go on: {other}"), Vec::new()),
        };
        for guest in self.guests.iter().flatten() {
            refuse(&guest.connection, &problem, &missing);
        }
        for stranger in &self.strangers {
            refuse(stranger, &problem, &missing);
        }
    }

    fn cannot_copy(&self, error: &std::io::Error) -> Error {
        self.invitation.error(format!("copying a descriptor: {error}"))
    }
}

/// Whether ranks outnumber the cores they may use, or two of them share one.
fn is_crowded(hellos: &[&Hello]) -> bool {
    let mut cores: Vec<usize> = hellos.iter().flat_map(|hello| hello.cpus.iter().copied()).collect();
    cores.sort_unstable();
    cores.dedup();
    let ranks = hellos.len();
    let quota = hellos.iter().filter_map(|hello| hello.quota).fold(f64::INFINITY, f64::min);
    let mut pinned: Vec<usize> =
        hellos.iter().filter(|hello| hello.cpus.len() == 1).map(|hello| hello.cpus[0]).collect();
    pinned.sort_unstable();
    let shared = pinned.windows(2).any(|pair| pair[0] == pair[1]);
    ranks > cores.len() || ranks as f64 > quota || shared
}
