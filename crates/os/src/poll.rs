//! Waiting for several descriptors until a deadline, and a descriptor to be woken by.
//!
//! The watcher of a group sleeps here on its sockets and pidfds where the kernel cannot wait for words and
//! descriptors alike; other threads wake it through a [`Waker`]. The invariant: a wait ends at its deadline,
//! whatever signals come.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd};
use rustix::io::Errno;

use crate::OsError;

/// What a descriptor has to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// There is something to read or accept; for a pidfd: the process has ended.
    pub readable: bool,
    /// There is room to write. Only asked for by [`until_writable`].
    pub writable: bool,
    /// The other side is gone. There may still be something to read.
    pub hung_up: bool,
}

impl Readiness {
    /// Whether there is anything at all.
    pub fn any(self) -> bool {
        self.readable || self.writable || self.hung_up
    }
}

/// Sleep until one of the descriptors is readable or its other side is gone, or the deadline passes (`None`:
/// without end). The answer has one entry for each descriptor, in order; after the deadline all are empty.
///
/// # Errors
/// If a descriptor is not open, or memory runs out.
pub fn until_readable(
    descriptors: &[BorrowedFd<'_>],
    deadline: Option<Instant>,
) -> Result<Vec<Readiness>, OsError> {
    let mut polled: Vec<PollFd<'_>> =
        descriptors.iter().map(|descriptor| PollFd::from_borrowed_fd(*descriptor, PollFlags::IN)).collect();
    wait(&mut polled, deadline)?;
    Ok(polled.iter().map(|polled| readiness(polled.revents())).collect())
}

/// Sleep until the descriptor has room to write or its other side is gone, or the deadline passes.
///
/// # Errors
/// As [`until_readable`].
pub fn until_writable(descriptor: BorrowedFd<'_>, deadline: Option<Instant>) -> Result<Readiness, OsError> {
    let mut polled = [PollFd::from_borrowed_fd(descriptor, PollFlags::OUT)];
    wait(&mut polled, deadline)?;
    Ok(readiness(polled[0].revents()))
}

fn wait(polled: &mut [PollFd<'_>], deadline: Option<Instant>) -> Result<(), OsError> {
    loop {
        let remaining = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        match rustix::event::poll(polled, remaining.and_then(timespec).as_ref()) {
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(errno) => {
                return Err(OsError::from_errno("poll", errno, format!("{} descriptors", polled.len())));
            }
        }
    }
    if polled.iter().any(|polled| polled.revents().contains(PollFlags::NVAL)) {
        return Err(OsError::new("poll", libc::EBADF, "a descriptor is not open"));
    }
    Ok(())
}

fn readiness(found: PollFlags) -> Readiness {
    Readiness {
        readable: found.contains(PollFlags::IN),
        writable: found.contains(PollFlags::OUT),
        hung_up: found.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::RDHUP),
    }
}

/// A span as the kernel wants it; `None`, which is without end, if it is longer than the kernel can count.
fn timespec(span: Duration) -> Option<Timespec> {
    Some(Timespec { tv_sec: i64::try_from(span.as_secs()).ok()?, tv_nsec: span.subsec_nanos().into() })
}

/// A descriptor that becomes readable when somebody calls [`wake`](Waker::wake), until it is drained.
#[derive(Debug)]
pub struct Waker {
    event: OwnedFd,
}

impl Waker {
    /// A waker that nobody has woken yet.
    ///
    /// # Errors
    /// If descriptors run out.
    pub fn new() -> Result<Waker, OsError> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| OsError::from_errno("eventfd", errno, "waker"))?;
        Ok(Waker { event })
    }

    /// Wake whoever polls the descriptor, now or next. From any thread; never blocks.
    pub fn wake(&self) {
        // The one failure there is, a full counter, means that it is awake already.
        let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
    }

    /// Take all wake-ups so far; says whether there were any.
    pub fn drain(&self) -> bool {
        let mut count = [0_u8; 8];
        rustix::io::read(&self.event, &mut count).is_ok()
    }

    /// The descriptor to poll.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waker_wakes_once_drained_it_sleeps() {
        let waker = Waker::new().unwrap();
        let look = || until_readable(&[waker.descriptor()], Some(Instant::now())).unwrap()[0];
        assert!(!look().any() && !waker.drain());
        waker.wake();
        waker.wake();
        assert!(look().readable);
        assert!(waker.drain() && !waker.drain());
        assert!(!look().any());
    }

    #[test]
    fn a_waker_reaches_a_sleeping_thread() {
        let waker = Waker::new().unwrap();
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| until_readable(&[waker.descriptor()], None).unwrap());
            std::thread::sleep(Duration::from_millis(20));
            waker.wake();
            assert!(sleeper.join().unwrap()[0].readable);
        });
    }

    #[test]
    fn the_right_descriptor_is_named_and_hang_up_is_told() {
        let (silent, _kept) = rustix::pipe::pipe().unwrap();
        let (closed, writer) = rustix::pipe::pipe().unwrap();
        drop(writer);
        let found = until_readable(&[silent.as_fd(), closed.as_fd()], None).unwrap();
        assert!(!found[0].any());
        assert!(found[1].hung_up && !found[1].readable);
    }

    #[test]
    fn a_wait_ends_at_its_deadline() {
        let waker = Waker::new().unwrap();
        let deadline = Instant::now() + Duration::from_millis(30);
        let found = until_readable(&[waker.descriptor()], Some(deadline)).unwrap();
        assert!(!found[0].any() && Instant::now() >= deadline);
        assert!(until_writable(waker.descriptor(), Some(deadline)).unwrap().writable);
    }
}
