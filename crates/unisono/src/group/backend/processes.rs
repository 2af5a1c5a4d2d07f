//! Ranks that are processes: memories are sealed memfds, handed over a socket; deaths are heard of through the kernel.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Backend, Registered, Registration, Subgroup, draw_names};
use crate::call::{Call, Operation};
use crate::error::Result;
use crate::group::inquiry::Desk;
use crate::group::layout::DEATH_WORDS;
use crate::group::members::Members;
use crate::group::rendezvous::name::{DRAWN_BYTES, Meeting};
use crate::group::rendezvous::{self, Invitation, Met, Purpose};
use crate::group::watch::{GroupName, Lifeline, Liveness};
use crate::group::{Assembled, Group};
use crate::marker::Marker;
use crate::observe;

/// The other processes, as a group of this process knows them.
#[derive(Debug)]
pub(crate) struct Neighbours {
    liveness: Arc<Liveness>,
    /// Each member's rank in the founding group, by which [`Liveness`] knows it.
    founding_ranks: Vec<usize>,
    founders: usize,
    meeting: Meeting,
}

/// Meet the other processes of a new group.
pub(crate) fn assemble(invitation: Invitation) -> Result<Assembled> {
    let world = invitation.world;
    let mut marker = None;
    let mut met = rendezvous::meet(&invitation, |memory| {
        marker = Some(Marker::start(memory, DEATH_WORDS, world)?);
        Ok(())
    })?;
    observe::report(&met, invitation.rank, world);
    let door = met.door.take();
    let lifelines = lifelines(&mut met, invitation.rank);
    let members =
        Arc::new(Members::new(invitation.rank, met.pids.clone(), std::mem::take(&mut met.memories)));
    let marker = match marker {
        Some(marker) => marker,
        None => Marker::start(met.own.memory.as_fd(), DEATH_WORDS, world)?,
    };
    let name = name_of(&invitation.meeting.label, &met);
    // Who cannot listen for deaths must not take part: the others learn that it has left.
    let liveness = Desk::open(invitation.meeting.directory())
        .and_then(|desk| Liveness::start(marker, Arc::clone(&members), name, lifelines, door, desk))
        .inspect_err(|_| members.leave())?;
    let neighbours = Neighbours {
        liveness,
        founding_ranks: (0..world).collect(),
        founders: world,
        meeting: invitation.meeting.clone(),
    };
    Ok(assembled(invitation.meeting.label, met, members, neighbours))
}

fn name_of(label: &str, met: &Met) -> GroupName {
    GroupName { name: label.to_string(), nonce: met.welcome.nonce }
}

fn assembled(name: String, met: Met, members: Arc<Members>, neighbours: Neighbours) -> Assembled {
    Assembled {
        name,
        parameters: met.welcome.parameters,
        layout: met.own.layout,
        members,
        crowded: met.welcome.crowded,
        backend: Backend::Processes(neighbours),
    }
}

/// How to hear of each peer's death: its pidfd, and its socket where there is a direct one.
fn lifelines(met: &mut Met, own: usize) -> Vec<Lifeline> {
    let mut sockets: Vec<_> = (0..met.pids.len()).map(|_| None).collect();
    for (rank, connection) in met.connections.drain(..) {
        sockets[rank] = Some(connection);
    }
    let pidfds = met.pidfds.drain(..);
    let lines = pidfds.zip(sockets).enumerate().filter(|(rank, _)| *rank != own);
    lines.map(|(rank, (pidfd, socket))| Lifeline { rank, pidfd, socket }).collect()
}

impl Neighbours {
    /// Meet again in smaller groups: the first member of each draws a name and tells it through the parent.
    pub(crate) fn split(
        &self,
        parent: &Group,
        subgroup: Option<&Subgroup>,
        timeout: Option<Duration>,
    ) -> Result<Option<Assembled>> {
        let leads = subgroup.is_some_and(|subgroup| subgroup.rank == 0);
        let call = Call::new(Operation::Split).shaped([DRAWN_BYTES]);
        let names = draw_names(parent, call, leads, timeout)?;
        let Some(subgroup) = subgroup else { return Ok(None) };

        let label = format!("{} / split {} color {}", parent.name, subgroup.split, subgroup.color);
        let invitation = Invitation {
            purpose: Purpose::Group,
            rank: subgroup.rank,
            world: subgroup.members.len(),
            meeting: self.meeting_under(&names[subgroup.members[0]], label.clone()),
            deadline: timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
            parameters: parent.parameters.clone(),
            parent: Some(Arc::clone(&parent.members)),
            alongside: Some(subgroup.alongside.clone()),
        };
        let mut met = rendezvous::meet(&invitation, |_| Ok(()))?;
        observe::report(&met, self.founding_ranks[parent.members.rank], subgroup.members.len());
        let memories = std::mem::take(&mut met.memories);
        let pids = subgroup.members.iter().map(|member| parent.members.pid(*member)).collect();
        let members = Arc::new(Members::new(subgroup.rank, pids, memories));
        let neighbours = self.neighbours_of(subgroup, invitation.meeting);
        self.liveness.also_tell(&members, name_of(&label, &met), neighbours.ranks_by_founder());
        // What is crowded stays crowded: the parent's other ranks want their cores, too.
        met.welcome.crowded |= parent.crowded;
        Ok(Some(assembled(label, met, members, neighbours)))
    }

    /// Make this rank's part of a registration and map those of the others: all ranks meet again, under a name that they
    /// have agreed on, and hand memory round as a new group does.
    pub(crate) fn register(
        &self,
        parent: &Group,
        registration: Registration,
        timeout: Option<Duration>,
    ) -> Registered {
        let Registration { name, call, bytes } = registration;
        let invitation = Invitation {
            purpose: Purpose::Registration(bytes),
            rank: parent.members.rank,
            world: parent.members.world,
            meeting: self.meeting_under(&name, format!("{} / {call}", parent.name)),
            deadline: timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
            parameters: parent.parameters.clone(),
            parent: Some(Arc::clone(&parent.members)),
            alongside: None,
        };
        match rendezvous::meet(&invitation, |_| Ok(())) {
            Ok(met) => Registered::Made(met.memories),
            // What has stopped the parent explains more than what came of it.
            Err(not_met) if not_met.others_wait && !parent.members.is_stopped() => {
                Registered::CouldNotCome(*not_met.error)
            }
            Err(not_met) => Registered::Failed(*not_met.error),
        }
    }

    /// A meeting of ranks of this group, in the same kind of place.
    fn meeting_under(&self, name: &[u8], label: String) -> Meeting {
        Meeting::drawn(name, self.meeting.directory().map(ToOwned::to_owned)).with_label(label)
    }

    /// Give the group's name free, if this rank holds it.
    pub(crate) fn close_door(&self, rank: usize) {
        if rank == 0 && self.founding_ranks.len() == self.founders {
            self.liveness.close_door();
        }
    }

    fn neighbours_of(&self, subgroup: &Subgroup, meeting: Meeting) -> Neighbours {
        Neighbours {
            liveness: Arc::clone(&self.liveness),
            founding_ranks: subgroup.members.iter().map(|member| self.founding_ranks[*member]).collect(),
            founders: self.founders,
            meeting,
        }
    }

    /// For each process of the founding group, its rank in this one.
    fn ranks_by_founder(&self) -> Vec<Option<usize>> {
        let mut ranks = vec![None; self.founders];
        for (rank, founder) in self.founding_ranks.iter().enumerate() {
            ranks[*founder] = Some(rank);
        }
        ranks
    }
}
