//! Checks of send and recv.

#![allow(unsafe_code)]

use unisono::DType;

use super::{Task, typed};

impl Task<'_> {
    /// One message from the case's root to another rank that the case's number decides, which may be itself; the other
    /// ranks do nothing. Waits for no one but the other side, so that any order of cases has an end.
    pub(super) fn transfer(&self) {
        let (from, to) = (self.case.root, self.draws(7).below(self.world));
        if self.rank == from {
            self.send(to);
        }
        if self.rank == to {
            self.receive(from);
        }
    }

    fn send(&self, to: usize) {
        let (comm, dtype, count) = (self.comm, self.case.dtype, self.case.count);
        let message = self.data(self.rank, count);
        let data = self.holding(&message);
        self.ok(if self.is_raw() {
            // SAFETY: the buffer holds `count` elements, lives through the call, and is this thread's alone.
            unsafe { comm.raw().send(data.pointer(), count, dtype, to) }
        } else {
            typed!(dtype, T => comm.send(data.slice::<T>(), to))
        });
        self.expect(&data, &message);
    }

    fn receive(&self, from: usize) {
        let (comm, dtype, count) = (self.comm, self.case.dtype, self.case.count);
        let mut data = self.blank(count);
        self.ok(if self.is_raw() {
            // SAFETY: the buffer holds `count` elements, lives through the call, and is this thread's alone.
            unsafe { comm.raw().recv(data.pointer_mut(), count, dtype, from) }
        } else {
            typed!(dtype, T => comm.recv(data.slice_mut::<T>(), from))
        });
        self.expect(&data, &self.data(from, count));
    }
}
