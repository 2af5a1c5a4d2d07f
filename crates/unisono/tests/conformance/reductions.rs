//! Checks of the operations that reduce.

#![allow(unsafe_code)]

use unisono::DType;

use super::{Form, Task, oracle, typed};

impl Task<'_> {
    /// The reduction of all ranks' first `count` elements.
    pub(super) fn reduced(&self, count: usize) -> Vec<u8> {
        let inputs: Vec<Vec<u8>> = (0..self.world).map(|rank| self.data(rank, count)).collect();
        oracle::reduce(self.case.dtype, self.case.op, &inputs)
    }

    pub(super) fn all_reduce(&self) {
        let (comm, dtype, op, count) = (self.comm, self.case.dtype, self.case.op, self.case.count);
        let own = self.data(self.rank, count);
        let (mut input, mut output) = (self.holding(&own), self.blank(count));
        self.ok(match self.case.form {
            Form::Slices => {
                typed!(dtype, T => comm.all_reduce_into(input.slice::<T>(), output.slice_mut::<T>(), op))
            }
            Form::SlicesInPlace => typed!(dtype, T => comm.all_reduce(input.slice_mut::<T>(), op)),
            // SAFETY: both buffers hold `count` elements, live through the call, and are this thread's alone.
            Form::Raw => unsafe {
                comm.raw().all_reduce(input.pointer(), output.pointer_mut(), count, dtype, op)
            },
            // SAFETY: the buffer holds `count` elements, lives through the call, and is this thread's alone.
            Form::RawInPlace => unsafe {
                let data = input.pointer_mut();
                comm.raw().all_reduce(data, data, count, dtype, op)
            },
        });
        let expected = self.reduced(count);
        if self.in_place() {
            self.expect(&input, &expected);
        } else {
            self.expect(&output, &expected);
            self.expect(&input, &own);
        }
    }

    pub(super) fn reduce(&self) {
        let (comm, dtype, op, count, root) =
            (self.comm, self.case.dtype, self.case.op, self.case.count, self.case.root);
        let own = self.data(self.rank, count);
        let (mut input, mut output) = (self.holding(&own), self.blank(count));
        let untouched = output.bytes().to_vec();
        self.ok(match self.case.form {
            Form::Slices => typed!(dtype, T => {
                let output = self.at_root().then_some(output.slice_mut::<T>());
                comm.reduce_into(input.slice::<T>(), output, op, root)
            }),
            Form::SlicesInPlace => typed!(dtype, T => comm.reduce(input.slice_mut::<T>(), op, root)),
            // SAFETY: both buffers hold `count` elements, live through the call, and are this thread's alone; where
            // this rank is not the root the output may be null.
            Form::Raw => unsafe {
                let output = if self.at_root() { output.pointer_mut() } else { std::ptr::null_mut() };
                comm.raw().reduce(input.pointer(), output, count, dtype, op, root)
            },
            // SAFETY: the buffer holds `count` elements, lives through the call, and is this thread's alone.
            Form::RawInPlace => unsafe {
                let data = input.pointer_mut();
                comm.raw().reduce(data, data, count, dtype, op, root)
            },
        });
        let result = if self.at_root() { Some(self.reduced(count)) } else { None };
        if self.in_place() {
            self.expect(&input, result.as_ref().unwrap_or(&own));
        } else {
            self.expect(&output, result.as_ref().unwrap_or(&untouched));
            self.expect(&input, &own);
        }
    }

    pub(super) fn reduce_scatter(&self) {
        let (comm, dtype, op, count) = (self.comm, self.case.dtype, self.case.op, self.case.count);
        let own = self.data(self.rank, count * self.world);
        let (mut input, mut output) = (self.holding(&own), self.blank(count));
        self.ok(match self.case.form {
            Form::Slices => {
                typed!(dtype, T => comm.reduce_scatter(input.slice::<T>(), output.slice_mut::<T>(), op))
            }
            Form::SlicesInPlace => {
                typed!(dtype, T => comm.reduce_scatter_in_place(input.slice_mut::<T>(), op))
            }
            // SAFETY: the input holds `count` elements for each rank and the output `count`; both live through the call
            // and are this thread's alone.
            Form::Raw => unsafe {
                comm.raw().reduce_scatter(input.pointer(), output.pointer_mut(), count, dtype, op)
            },
            // SAFETY: as above, and this rank's block lies inside the input.
            Form::RawInPlace => unsafe {
                let data = input.pointer_mut();
                comm.raw().reduce_scatter(data, data.add(self.bytes(count * self.rank)), count, dtype, op)
            },
        });
        let block = self.bytes(count * self.rank)..self.bytes(count * (self.rank + 1));
        let expected = &self.reduced(count * self.world)[block.clone()];
        if self.in_place() {
            let mut changed = own;
            changed[block].copy_from_slice(expected);
            self.expect(&input, &changed);
        } else {
            self.expect(&output, expected);
            self.expect(&input, &own);
        }
    }

    pub(super) fn reduce_scatter_v(&self) {
        let (comm, dtype, op) = (self.comm, self.case.dtype, self.case.op);
        let counts: Vec<usize> = (0..self.world).map(|rank| self.uneven(0, rank)).collect();
        let total = counts.iter().sum();
        let own = self.data(self.rank, total);
        let (mut input, mut output) = (self.holding(&own), self.blank(counts[self.rank]));
        let before = self.bytes(counts[..self.rank].iter().sum());
        self.ok(match self.case.form {
            Form::Slices | Form::SlicesInPlace => typed!(dtype, T => {
                comm.reduce_scatter_v(input.slice::<T>(), output.slice_mut::<T>(), &counts, op)
            }),
            // SAFETY: the input holds the sum of `counts` and the output this rank's count; both live through the call
            // and are this thread's alone.
            Form::Raw => unsafe {
                comm.raw().reduce_scatter_v(input.pointer(), output.pointer_mut(), &counts, dtype, op)
            },
            // SAFETY: as above, and this rank's block lies inside the input.
            Form::RawInPlace => unsafe {
                let data = input.pointer_mut();
                comm.raw().reduce_scatter_v(data, data.add(before), &counts, dtype, op)
            },
        });
        let block = before..before + self.bytes(counts[self.rank]);
        let expected = &self.reduced(total)[block.clone()];
        if self.case.form == Form::RawInPlace {
            let mut changed = own;
            changed[block].copy_from_slice(expected);
            self.expect(&input, &changed);
        } else {
            self.expect(&output, expected);
            self.expect(&input, &own);
        }
    }
}
