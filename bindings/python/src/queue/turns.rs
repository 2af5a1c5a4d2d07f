//! A side of a queue that calls and guards use in turn.
//!
//! The library's writer and reader are used by one call at a time, and a message or slot borrows them. Python has no
//! borrows: whoever uses a side takes it out, as a [`Loan`], and puts it back when it is done. The one invariant that
//! matters: **a side is out at most once**, so that a loan is the only way to it.
//!
//! The lock is held for moments, and only by who has the interpreter, so that a forked child finds it free. Who waits for a side
//! sleeps, without the interpreter, at a bell, which has a lock of its own; a forked child never touches it.

#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use pyo3::prelude::*;
use unisono::interrupt;

use super::waits::Patience;
use crate::signals;

/// A side of a queue, unless somebody has taken it out.
pub(super) struct Turns<T: Send> {
    place: Mutex<Place<T>>,
    bell: Bell,
    /// Where the side was made. In a forked child nobody puts back what its parent's threads had out.
    process: u32,
}

struct Place<T> {
    state: State<T>,
    /// How many threads want to hear of what becomes of it.
    waiting: usize,
}

/// Rung when a side was put back, became a guard's or was closed.
#[derive(Default)]
struct Bell {
    rings: Mutex<u64>,
    rung: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rings.lock() += 1;
        self.rung.notify_all();
    }

    fn count(&self) -> u64 {
        *self.rings.lock()
    }

    /// Sleep until it has been rung more than `heard` times, or the time is up.
    fn sleep(&self, heard: u64, until: Option<Instant>) {
        let mut rings = self.rings.lock();
        while *rings == heard {
            match until {
                None => self.rung.wait(&mut rings),
                Some(until) if self.rung.wait_until(&mut rings, until).timed_out() => return,
                Some(_) => {}
            }
        }
    }
}

enum State<T> {
    Free(Box<T>),
    /// Taken out for a call, or by a guard that may live on. Whether it is to be closed when it comes back.
    Out {
        for_guard: bool,
        is_to_close: bool,
    },
    Closed,
}

/// Why a side is not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unavailable {
    /// It was closed.
    Closed,
    /// A guard lives that borrows it.
    Held,
    /// Another thread's call took as long as this one may wait.
    Busy,
    /// This is a forked child, and the side was out when it was forked.
    Forked,
}

/// A side that was taken out; dropped, it is put back.
pub(super) struct Loan<T: Send> {
    side: NonNull<T>,
    of: Arc<Turns<T>>,
}

// SAFETY: a loan is the only way to its side, like a box.
unsafe impl<T: Send> Send for Loan<T> {}
// SAFETY: a shared loan gives nothing away: `get` needs it exclusively.
unsafe impl<T: Send> Sync for Loan<T> {}

impl<T: Send> Turns<T> {
    pub(super) fn new(side: T) -> Arc<Self> {
        let place = Mutex::new(Place { state: State::Free(Box::new(side)), waiting: 0 });
        Arc::new(Turns { place, bell: Bell::default(), process: std::process::id() })
    }

    /// Take the side out; waits, without the interpreter, while another thread's call has it. What that takes is taken off
    /// `patience`.
    #[inline]
    pub(super) fn take(
        self: &Arc<Self>,
        py: Python<'_>,
        patience: &mut Patience,
    ) -> PyResult<Result<Loan<T>, Unavailable>> {
        match self.try_take() {
            Err(Unavailable::Busy | Unavailable::Held) if self.process != std::process::id() => {
                Ok(Err(Unavailable::Forked))
            }
            Err(Unavailable::Busy) => self.take_later(py, patience),
            outcome => Ok(outcome),
        }
    }

    #[inline]
    fn try_take(self: &Arc<Self>) -> Result<Loan<T>, Unavailable> {
        let mut place = self.place.lock();
        match std::mem::replace(&mut place.state, State::Out { for_guard: false, is_to_close: false }) {
            State::Free(side) => Ok(Loan { side: NonNull::from(Box::leak(side)), of: Arc::clone(self) }),
            other => {
                let why = match other {
                    State::Out { is_to_close: false, for_guard: false } => Unavailable::Busy,
                    State::Out { is_to_close: false, for_guard: true } => Unavailable::Held,
                    _ => Unavailable::Closed,
                };
                place.state = other;
                Err(why)
            }
        }
    }

    #[cold]
    fn take_later(
        self: &Arc<Self>,
        py: Python<'_>,
        patience: &mut Patience,
    ) -> PyResult<Result<Loan<T>, Unavailable>> {
        signals::make_ready(py)?;
        let since = Instant::now();
        let deadline = patience.left().and_then(|left| since.checked_add(left));
        self.place.lock().waiting += 1;
        let taken = loop {
            // Counted before it is looked: what happens afterwards is heard.
            let heard = self.bell.count();
            match self.try_take() {
                Err(Unavailable::Busy) if deadline.is_none_or(|deadline| Instant::now() < deadline) => {}
                outcome => break Ok(outcome),
            }
            let question = signals::is_asked().then(|| Instant::now() + interrupt::ASK_EVERY);
            let until = [deadline, question].into_iter().flatten().min();
            py.detach(|| self.bell.sleep(heard, until));
            if let Err(raised) = py.check_signals() {
                break Err(raised);
            }
        };
        self.place.lock().waiting -= 1;
        patience.spend(since.elapsed());
        taken
    }

    /// Let nobody take it any more, who waits for it included. Gives the side, to be dropped without the interpreter; one that is
    /// out is closed when it comes back.
    pub(super) fn close(&self) -> Option<Box<T>> {
        let mut place = self.place.lock();
        let is_wanted = place.waiting > 0;
        let side = match std::mem::replace(&mut place.state, State::Closed) {
            State::Free(side) => Some(side),
            State::Out { for_guard, .. } => {
                place.state = State::Out { for_guard, is_to_close: true };
                None
            }
            State::Closed => None,
        };
        drop(place);
        self.ring_if(is_wanted);
        side
    }

    fn put_back(&self, side: Box<T>) {
        let mut place = self.place.lock();
        let is_wanted = place.waiting > 0;
        let closed = if matches!(place.state, State::Out { is_to_close: true, .. }) {
            place.state = State::Closed;
            Some(side)
        } else {
            place.state = State::Free(side);
            None
        };
        drop(place);
        self.ring_if(is_wanted);
        closed.into_iter().for_each(drop_detached);
    }

    /// Wake those who wait for the side. Those who waited when a process was forked are not in the child.
    fn ring_if(&self, is_wanted: bool) {
        if is_wanted && self.process == std::process::id() {
            self.bell.ring();
        }
    }
}

impl<T: Send> Drop for Turns<T> {
    fn drop(&mut self) {
        self.close().into_iter().for_each(drop_detached);
    }
}

/// Saying goodbye may take a while.
fn drop_detached<T: Send>(side: Box<T>) {
    let mut side = Some(side);
    Python::try_attach(|py| py.detach(|| drop(side.take())));
}

impl<T: Send> Loan<T> {
    #[inline]
    pub(super) fn get(&mut self) -> &mut T {
        // SAFETY: the side was leaked from its box when it was taken out, and this loan is the only way to it.
        unsafe { self.side.as_mut() }
    }

    /// The side for a guard that borrows it.
    ///
    /// # Safety
    /// What borrows it is gone before this loan is used again or dropped.
    #[inline]
    pub(super) unsafe fn lend<'a>(&mut self) -> &'a mut T {
        // SAFETY: as in `get`; the caller sees to the borrow's end.
        unsafe { self.side.as_mut() }
    }

    /// From now on whoever asks is told that a guard has it, and so is who waits for it.
    pub(super) fn keep_for_guard(&self) {
        let mut place = self.of.place.lock();
        let is_wanted = place.waiting > 0;
        if let State::Out { for_guard, .. } = &mut place.state {
            *for_guard = true;
        }
        drop(place);
        self.of.ring_if(is_wanted);
    }
}

impl<T: Send> Drop for Loan<T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: it was leaked from a box in `try_take`, and nobody else has it.
        let side = unsafe { Box::from_raw(self.side.as_ptr()) };
        self.of.put_back(side);
    }
}
