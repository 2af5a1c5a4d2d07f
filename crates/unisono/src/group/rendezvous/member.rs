//! Every other rank's part: find rank 0, say who one is, hand over the own memory, take the set.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use unisono_os::socket::{Connection, Message as Packet, SocketError};

use super::messages::{self, Message, Welcome};
use super::{Invitation, Met, NotMet, Own, Roster};
use crate::error::{Error, Result};

const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// A rank's part of [`super::meet`].
pub(super) fn join(
    invitation: &Invitation,
    before_handing_out: &mut dyn FnMut(BorrowedFd<'_>) -> Result<()>,
) -> Result<Met, NotMet> {
    let leader = take_seat(invitation).map_err(NotMet::before_all_came)?;
    let say = |message: &Message, descriptors: &[BorrowedFd<'_>]| {
        messages::send(&leader, message, descriptors, invitation.deadline)
    };
    let welcome = expect(invitation, &leader, |message, _| match message {
        Message::Welcome(welcome) => Some(welcome),
        _ => None,
    })?;
    match take_part(invitation, &leader, &welcome, before_handing_out) {
        Ok((own, memories, roster)) => Ok(Met {
            welcome,
            own,
            memories,
            pids: roster.pids,
            pidfds: roster.pidfds,
            connections: vec![(0, leader)],
            door: None,
        }),
        Err(error) => {
            // Rank 0 tells the others; if it has gone, they know.
            let _ = say(&Message::Failed { problem: error.to_string() }, &[]);
            Err(error.into())
        }
    }
}

fn take_part(
    invitation: &Invitation,
    leader: &Connection,
    welcome: &Welcome,
    before_handing_out: &mut dyn FnMut(BorrowedFd<'_>) -> Result<()>,
) -> Result<(Own, Vec<crate::group::shared_memory::SharedMemory>, Roster)> {
    let own = invitation.make_own(welcome, before_handing_out)?;
    let mut handed = vec![own.memory.as_fd()];
    handed.extend(own.pidfd.as_ref().map(AsFd::as_fd));
    messages::send(leader, &Message::Memory, &handed, invitation.deadline)
        .map_err(invitation.socket_error("rank 0"))?;
    let world = invitation.world;
    let mut roster = expect(invitation, leader, |message, descriptors| match message {
        Message::Roster { pids, has_pidfd } => unpack(world, pids, &has_pidfd, descriptors),
        _ => None,
    })?;
    roster.check_pidfds();
    let memories = invitation.map_all(welcome, &own, &roster)?;
    messages::send(leader, &Message::Ready, &[], invitation.deadline)
        .map_err(invitation.socket_error("rank 0"))?;
    expect(invitation, leader, |message, _| matches!(message, Message::Go).then_some(()))?;
    Ok((own, memories, roster))
}

/// All memories, then the pidfds of those that have one.
fn unpack(world: usize, pids: Vec<u32>, has_pidfd: &[bool], descriptors: Vec<OwnedFd>) -> Option<Roster> {
    let with_pidfd = has_pidfd.iter().filter(|has| **has).count();
    if pids.len() != world || has_pidfd.len() != world || descriptors.len() != world + with_pidfd {
        return None;
    }
    let mut descriptors = descriptors.into_iter();
    let memories = descriptors.by_ref().take(world).collect();
    let pidfds = has_pidfd.iter().map(|has| if *has { descriptors.next() } else { None }).collect();
    Some(Roster { pids, memories, pidfds })
}

/// Find rank 0 and be heard by it. A rank 0 that was killed and is still dying listens, but hears nobody: whoever
/// knocked there goes on looking for its successor.
fn take_seat(invitation: &Invitation) -> Result<Connection> {
    loop {
        let leader = find_leader(invitation)?;
        let hello = Message::Hello(invitation.hello());
        let received = match messages::send(&leader, &hello, &[], invitation.deadline) {
            Ok(()) => invitation.receive(&leader, "rank 0", verdict_by(invitation))?,
            Err(SocketError::Closed) => None,
            Err(error) => return Err(invitation.socket_error("rank 0")(error)),
        };
        let is_late = invitation.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if received.is_some() || is_late {
            understood(invitation, received, |message, _| matches!(message, Message::Seated).then_some(()))?;
            return Ok(leader);
        }
        std::thread::sleep(FIRST_PAUSE);
    }
}

/// Knock at the abstract socket and at the socket file in turn until rank 0 opens.
fn find_leader(invitation: &Invitation) -> Result<Connection> {
    let places = [invitation.meeting.abstract_address(), invitation.meeting.file_address()];
    let mut pause = FIRST_PAUSE;
    loop {
        for place in &places {
            // Who stands in line at a full listener is to look up, too.
            match Connection::connect(place, invitation.next_look(invitation.deadline)) {
                Ok(leader) => return check_user(invitation, leader),
                Err(SocketError::NobodyListens { .. } | SocketError::TimedOut { .. }) => {}
                Err(SocketError::Os(error)) if error.is_not_found() => {}
                Err(error) => return Err(invitation.socket_error("looking for rank 0")(error)),
            }
        }
        if invitation.deadline.is_some_and(|deadline| Instant::now() + pause >= deadline) {
            return Err(Error::Rendezvous {
                group: invitation.meeting.label.clone(),
                problem: format!(
                    "rank 0 never came (nobody listens at {} or {}): was it started, with the same address, port, group \
                     name, run id and world size, by the same user?",
                    places[0], places[1]
                ),
                missing: vec![0],
            });
        }
        invitation.check_goes_on()?;
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Only a process of the same user is rank 0.
fn check_user(invitation: &Invitation, leader: Connection) -> Result<Connection> {
    let mine = unisono_os::process::uid();
    let theirs = leader.peer_credentials().map_err(invitation.socket_error("asking who rank 0 is"))?;
    if theirs.uid == mine {
        return Ok(leader);
    }
    Err(invitation.error(format!(
        "process {} of user {} listens under this group's name, but only user {mine} may be rank 0",
        theirs.pid, theirs.uid
    )))
}

/// The message that has to come from rank 0 now, as `understand` takes it.
fn expect<T>(
    invitation: &Invitation,
    leader: &Connection,
    understand: impl FnOnce(Message, Vec<OwnedFd>) -> Option<T>,
) -> Result<T> {
    let received = invitation.receive(leader, "rank 0", verdict_by(invitation))?;
    understood(invitation, received, understand)
}

/// Rank 0 keeps the deadline for all: its verdict names the missing ranks, so it is given a moment more.
fn verdict_by(invitation: &Invitation) -> Option<Instant> {
    invitation.deadline.and_then(|deadline| deadline.checked_add(Duration::from_secs(1)))
}

/// What rank 0 said, as `understand` takes it; or why it goes no further.
fn understood<T>(
    invitation: &Invitation,
    received: Option<(Message, Packet)>,
    understand: impl FnOnce(Message, Vec<OwnedFd>) -> Option<T>,
) -> Result<T> {
    let (problem, missing) = match received {
        None => ("rank 0 left before the group was complete".to_string(), vec![]),
        Some((Message::Refused { problem, missing }, _)) => (problem, missing),
        Some((Message::Failed { problem }, _)) => (format!("rank 0 {problem}"), vec![]),
        Some((message, packet)) => {
            let text = format!("rank 0 sent something else: {message:?}");
            match understand(message, packet.descriptors) {
                Some(understood) => return Ok(understood),
                None => (text, vec![]),
            }
        }
    };
    Err(Error::Rendezvous { group: invitation.meeting.label.clone(), problem, missing })
}
