//! The writer's host thread: it lets readers in, hands out memory, and hears of those that leave or die.
//!
//! It sleeps in the kernel on its door, on those who have knocked and not yet said who they are, and on the lifelines of
//! those who are in. The one invariant that matters: **a rank is given to one process at a time**, by this thread alone,
//! and only to a process of the same user.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use unisono_os::socket::{Address, Connection, Listener};
use unisono_os::{pidfd, poll, process, robust};

use super::error::{Error, Result};
use super::guest::{Departure, Guest, Occupant, Why};
use super::hall::{Hall, MortalGuest};
use super::handle::Handle;
use super::memory::ReaderMemory;
use super::messages::{self, Admitted, Message, QueueSeen, Refusal};
use super::porch::Porch;
use crate::marker::Marker;
use crate::socket_file;

/// How soon a reader that did not listen (it is stopped, and its socket full) is told again.
const TELL_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// What the thread has to work with.
pub(super) struct Host {
    pub(super) hall: Arc<Hall>,
    pub(super) handle: Handle,
    pub(super) porch: Porch,
    /// The ring's memory, to be handed out.
    pub(super) data: OwnedFd,
    /// A pidfd on this process, where there are such.
    pub(super) own_pidfd: Option<OwnedFd>,
    pub(super) marker: Arc<Marker>,
    pub(super) crowded: bool,
}

/// Take the places at which readers look for this queue; what killed writers left there is taken away first.
pub(super) fn open_doors(handle: &Handle) -> Result<Vec<Listener>> {
    let open = |address: &Address| {
        if let Address::File(path) = address {
            path.parent().into_iter().for_each(socket_file::sweep);
        }
        Listener::bind(address)
            .map_err(|error| Error::Meeting { queue: handle.name(), problem: format!("listening: {error}") })
    };
    handle.local_addresses().iter().map(open).collect()
}

impl Host {
    /// The thread's life, until the hall says that it is to end.
    pub(super) fn run(mut self) {
        let mut somebody_does_not_listen = false;
        // Acquire: pairs with the release in the writer's drop.
        while !self.hall.host_is_to_end.load(Ordering::Acquire) {
            let all_are_told = self.hall.tell_all();
            if !all_are_told && !somebody_does_not_listen {
                tracing::warn!(
                    queue = self.handle.name(),
                    "a reader does not listen: large messages reach it late"
                );
            }
            somebody_does_not_listen = !all_are_told;
            let tells_at = (!all_are_told).then(|| Instant::now() + TELL_AGAIN_AFTER);
            let guests = self.hall.present();
            let patience = [self.porch.patience(), tells_at].into_iter().flatten().min();
            let ready = match self.wait_for_news(&guests, patience) {
                Ok(ready) => ready,
                Err(error) => {
                    tracing::error!(%error, "a queue cannot let readers in any more, and may notice deaths late");
                    return;
                }
            };
            if ready[0] {
                self.hall.host.drain();
            }
            let (porch, lifelines) = ready[1..].split_at(ready.len() - 1 - 2 * guests.len());
            for (guest, cut) in guests.iter().zip(lifelines.chunks(2)) {
                self.look_after(guest, cut);
            }
            for stranger in self.porch.look(porch) {
                self.hear(stranger);
            }
        }
    }

    /// Sleep until something happens; says for each descriptor whether: the hall's call, the porch's, two for each guest.
    fn wait_for_news(
        &self,
        guests: &[Arc<Guest>],
        until: Option<Instant>,
    ) -> std::result::Result<Vec<bool>, unisono_os::OsError> {
        let mut descriptors: Vec<BorrowedFd<'_>> = vec![self.hall.host.as_fd()];
        descriptors.extend(self.porch.descriptors());
        for guest in guests {
            let pidfd = guest.pidfd.as_ref().map_or(guest.connection.as_fd(), AsFd::as_fd);
            descriptors.extend([guest.connection.as_fd(), pidfd]);
        }
        let ready = poll::until_readable(&descriptors, until)?;
        Ok(ready.iter().map(|ready| ready.any()).collect())
    }

    /// One of a guest's lifelines says something: it is ready, or gone.
    fn look_after(&self, guest: &Arc<Guest>, cut: &[bool]) {
        if cut[0] {
            match messages::receive(&guest.connection, Some(Instant::now())) {
                Ok(Some((Message::Ready, _))) => self.is_ready(guest),
                Err(error) if error.is_timed_out() => {}
                Ok(None) => self.hall.has_gone(guest, Why::Died),
                // It may only say that it is ready.
                _ => self.hall.has_gone(guest, Why::Broken),
            }
        }
        if cut[1] && guest.pidfd.is_some() {
            self.hall.has_gone(guest, Why::Died);
        }
    }

    fn is_ready(&self, guest: &Guest) {
        crate::fault::reach("hearing");
        let is_complete = {
            let seats = self.hall.seats();
            guest.is_ready.store(true, Ordering::Release);
            self.hall.note_completeness(&seats)
        };
        if is_complete {
            self.hall.ring_readers();
        }
        self.hall.wake_writer();
    }

    /// A stranger has something to say: let it in, or turn it away with the reason.
    fn hear(&self, stranger: Connection) {
        let (version, nonce, rank, packet) = match messages::receive(&stranger, Some(Instant::now())) {
            Ok(Some((Message::Hello { version, nonce, rank }, packet))) => (version, nonce, rank, packet),
            Ok(Some((Message::Question, _))) => return self.tell_how_things_stand(&stranger),
            _ => return, // It left, or is no reader.
        };
        let checked = self.check(&stranger, version, nonce, rank, packet.descriptors);
        let refused = match checked {
            Ok(checked) => self.let_in(checked.guest(rank, stranger)).err(),
            Err(refusal) => Some((refusal, stranger)),
        };
        if let Some((refusal, stranger)) = refused {
            tracing::warn!(queue = self.handle.name(), rank, ?refusal, "a reader was turned away");
            // If it has gone by now, nobody needs the answer.
            let _ = messages::send(&stranger, &Message::Refused(refusal), &[], Some(Instant::now()));
        }
    }

    /// Whoever asks and does not listen goes without an answer.
    fn tell_how_things_stand(&self, stranger: &Connection) {
        let seen = Message::Seen(QueueSeen {
            name: self.handle.name(),
            writer_rank: self.handle.writer_rank() as u64,
            pid: process::pid(),
            messages: self.hall.stand().1,
            ring_bytes: self.hall.memory.ring_bytes(),
            readers: self.hall.statuses(),
        });
        let _ = messages::send(stranger, &seen, &[], Some(Instant::now()));
    }

    /// Whether a stranger may have the rank: who it is, what it brought, and that nobody else has it.
    fn check(
        &self,
        stranger: &Connection,
        version: u32,
        nonce: [u8; 16],
        rank: usize,
        descriptors: Vec<OwnedFd>,
    ) -> std::result::Result<Checked, Refusal> {
        let refuse = |problem: String| Err(Refusal::Other { problem });
        let other = |error: &dyn std::fmt::Display| Refusal::Other { problem: error.to_string() };
        let credentials = stranger.peer_credentials().map_err(|error| other(&error))?;
        if version != messages::VERSION {
            return refuse(format!("it speaks version {version}, the writer {}", messages::VERSION));
        }
        if nonce != self.handle.nonce() {
            return refuse("its handle is of another queue".to_string());
        }
        let mut descriptors = descriptors.into_iter();
        let Some(memory) = descriptors.next() else { return refuse("it came without memory".to_string()) };
        let memory = ReaderMemory::open(memory.as_fd(), self.handle.nonce_word())
            .map_err(|problem| Refusal::Other { problem })?;
        let pidfd = descriptors.next();
        if let Some(pidfd) = &pidfd {
            pidfd::verify(pidfd.as_fd()).map_err(|error| other(&error))?;
        }
        let seat = self.seat_for(rank)?;
        Ok(Checked { seat, pid: credentials.pid, memory, pidfd })
    }

    /// The seat of this rank, if it is free. Whoever died in it may not have been noticed yet.
    fn seat_for(&self, rank: usize) -> std::result::Result<usize, Refusal> {
        let (seat, taken) = {
            let seats = self.hall.seats();
            let Some(seat) = seats.iter().position(|seat| seat.rank == rank) else {
                return Err(Refusal::Other { problem: format!("there is no reader of rank {rank}") });
            };
            let taken = if let Occupant::Present(guest) = &seats[seat].occupant {
                Some(Arc::clone(guest))
            } else {
                None
            };
            (seat, taken)
        };
        let Some(guest) = taken else { return Ok(seat) };
        let mark = robust::state(guest.memory.death_word().load(Ordering::Acquire));
        let has_ended =
            guest.pidfd.as_ref().is_some_and(|pidfd| pidfd::has_exited(pidfd.as_fd()).unwrap_or(false));
        if has_ended || mark == robust::WordState::Dead || guest.memory.page().has_left() {
            self.hall.has_gone(&guest, Why::Died);
            return Ok(seat);
        }
        Err(Refusal::Taken { pid: guest.pid })
    }

    /// Give the guest its first position and hand it the memory, before anything else can be said to it.
    fn let_in(&self, mut guest: Guest) -> std::result::Result<(), (Refusal, Connection)> {
        let mut seats = self.hall.seats();
        let Some(seat) = seats.get_mut(guest.seat) else { return Ok(()) };
        self.hall.announce();
        let (position, messages) = match &seat.occupant {
            Occupant::Awaited => (0, 0),
            Occupant::Gone(Departure { resume: Some(resume), .. }) => *resume,
            // After the announcement: the writer does not go beyond this without having seen the guest.
            _ => self.hall.stand(),
        };
        let tail = &guest.memory.page().tail;
        tail.messages.store(messages, Ordering::Relaxed);
        tail.position.publish(position);
        (guest.began_at, guest.believed) = (position, AtomicU64::new(position));
        let admitted = Message::Admitted(Admitted {
            seat: guest.seat,
            ring_bytes: self.hall.memory.ring_bytes(),
            position,
            messages,
            has_pidfd: self.own_pidfd.is_some(),
            crowded: self.crowded,
        });
        let mut descriptors = vec![self.data.as_fd()];
        descriptors.extend(self.own_pidfd.as_ref().map(AsFd::as_fd));
        crate::fault::reach("admitting");
        if let Err(error) = messages::send(&guest.connection, &admitted, &descriptors, Some(Instant::now())) {
            return Err((Refusal::Other { problem: error.to_string() }, guest.connection));
        }
        self.hall.settle(seat, position);
        guest.before = seat.occupant.clone();
        let guest = Arc::new(guest);
        seat.occupant = Occupant::Present(Arc::clone(&guest));
        drop(seats);
        crate::fault::reach("let in");
        let hall = Arc::downgrade(&self.hall);
        self.marker.listen_for(Arc::new(MortalGuest { guest: Arc::clone(&guest), hall }));
        self.hall.wake_writer();
        Ok(()) // It is told of the homes before the next sleep.
    }
}

/// What was found out about a stranger that may come in.
struct Checked {
    seat: usize,
    pid: u32,
    memory: ReaderMemory,
    pidfd: Option<OwnedFd>,
}

impl Checked {
    fn guest(self, rank: usize, connection: Connection) -> Guest {
        let Checked { seat, pid, memory, pidfd } = self;
        let (is_ready, began_at, believed) = (AtomicBool::new(false), 0, AtomicU64::new(0));
        let (before, told) = (Occupant::Awaited, Mutex::default());
        Guest { seat, rank, pid, memory, connection, pidfd, is_ready, began_at, believed, told, before }
    }
}
