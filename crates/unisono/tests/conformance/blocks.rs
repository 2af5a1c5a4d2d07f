//! Checks of the operations that move blocks and reduce nothing.

#![allow(unsafe_code)]

use unisono::DType;

use super::{Form, Task, typed};

/// Where each block begins, in elements, and after the last one the sum.
fn starts(counts: &[usize]) -> Vec<usize> {
    let mut start = 0;
    let ends = counts.iter().map(|count| {
        start += count;
        start
    });
    std::iter::once(0).chain(ends).collect()
}

impl Task<'_> {
    /// Everybody's first `counts[rank]` elements, end to end.
    fn gathered(&self, counts: &[usize]) -> Vec<u8> {
        counts.iter().enumerate().flat_map(|(rank, count)| self.data(rank, *count)).collect()
    }

    pub(super) fn all_gather(&self) {
        let (comm, dtype, count) = (self.comm, self.case.dtype, self.case.count);
        let own = self.data(self.rank, count);
        let (input, mut output) = (self.holding(&own), self.blank(count * self.world));
        let before = self.bytes(count * self.rank);
        if self.in_place() {
            output.bytes_mut()[before..][..own.len()].copy_from_slice(&own);
        }
        self.ok(match self.case.form {
            Form::Slices => typed!(dtype, T => comm.all_gather(input.slice::<T>(), output.slice_mut::<T>())),
            Form::SlicesInPlace => typed!(dtype, T => comm.all_gather_in_place(output.slice_mut::<T>())),
            // SAFETY: the input holds `count` elements and the output `count` for each rank; both live through the call
            // and are this thread's alone.
            Form::Raw => unsafe {
                comm.raw().all_gather(input.pointer(), output.pointer_mut(), count, dtype)
            },
            // SAFETY: as above, and this rank's block lies inside the output.
            Form::RawInPlace => unsafe {
                let data = output.pointer_mut();
                comm.raw().all_gather(data.add(before), data, count, dtype)
            },
        });
        self.expect(&output, &self.gathered(&vec![count; self.world]));
        self.expect(&input, &own);
    }

    pub(super) fn all_gather_v(&self) {
        let (comm, dtype) = (self.comm, self.case.dtype);
        let counts: Vec<usize> = (0..self.world).map(|rank| self.uneven(rank, 0)).collect();
        let starts = starts(&counts);
        let own = self.data(self.rank, counts[self.rank]);
        let (input, mut output) = (self.holding(&own), self.blank(starts[self.world]));
        self.ok(match self.case.form {
            Form::Slices | Form::SlicesInPlace => {
                typed!(dtype, T => comm.all_gather_v(input.slice::<T>(), output.slice_mut::<T>(), &counts))
            }
            // SAFETY: the input holds this rank's count and the output the sum; both live through the call and are this
            // thread's alone.
            Form::Raw => unsafe {
                comm.raw().all_gather_v(input.pointer(), output.pointer_mut(), &counts, dtype)
            },
            // SAFETY: as above, and this rank's block lies inside the output.
            Form::RawInPlace => unsafe {
                let before = self.bytes(starts[self.rank]);
                output.bytes_mut()[before..][..own.len()].copy_from_slice(&own);
                let data = output.pointer_mut();
                comm.raw().all_gather_v(data.add(before), data, &counts, dtype)
            },
        });
        self.expect(&output, &self.gathered(&counts));
        self.expect(&input, &own);
    }

    pub(super) fn all_gather_dim(&self) {
        let (comm, dtype) = (self.comm, self.case.dtype);
        let shape = self.shape();
        let along = self.draws(5).below(shape.len());
        let dim = along as isize - if self.draws(6).below(2) == 0 { 0 } else { shape.len() as isize };
        let count = shape.iter().product();
        let own = self.data(self.rank, count);
        let (input, mut output) = (self.holding(&own), self.blank(count * self.world));
        self.ok(if self.is_raw() {
            // SAFETY: the input holds the shape's elements and the output as many for each rank; both live through the
            // call and are this thread's alone.
            unsafe { comm.raw().all_gather_dim(input.pointer(), output.pointer_mut(), &shape, dim, dtype) }
        } else {
            typed!(dtype, T => comm.all_gather_dim(input.slice::<T>(), output.slice_mut::<T>(), &shape, dim))
        });
        let row = self.bytes(shape[along..].iter().product());
        let rows: usize = shape[..along].iter().product();
        let inputs: Vec<Vec<u8>> = (0..self.world).map(|rank| self.data(rank, count)).collect();
        let row_of = |index: usize| inputs.iter().flat_map(move |input| &input[index * row..][..row]);
        let expected: Vec<u8> = (0..rows).flat_map(row_of).copied().collect();
        self.expect(&output, &expected);
        self.expect(&input, &own);
    }

    /// A shape of one to four dimensions of about `count` elements.
    fn shape(&self) -> Vec<usize> {
        let count = self.case.count;
        let shapes: [&[usize]; 8] = [
            &[count],
            &[count, 1],
            &[3, count.div_ceil(3)],
            &[count.div_ceil(7), 7],
            &[2, 5, count.div_ceil(10)],
            &[count.div_ceil(6), 2, 3],
            &[2, count.div_ceil(4), 1, 2],
            &[1, count, 1],
        ];
        self.draws(4).pick(&shapes).to_vec()
    }

    pub(super) fn broadcast(&self) {
        let (comm, dtype, count, root) = (self.comm, self.case.dtype, self.case.count, self.case.root);
        let mut data = self.holding(&self.data(self.rank, count));
        self.ok(if self.is_raw() {
            // SAFETY: the buffer holds `count` elements, lives through the call, and is this thread's alone.
            unsafe { comm.raw().broadcast(data.pointer_mut(), count, dtype, root) }
        } else {
            typed!(dtype, T => comm.broadcast(data.slice_mut::<T>(), root))
        });
        self.expect(&data, &self.data(root, count));
    }

    pub(super) fn gather(&self) {
        let (comm, dtype, count, root) = (self.comm, self.case.dtype, self.case.count, self.case.root);
        let own = self.data(self.rank, count);
        let (input, mut output) = (self.holding(&own), self.blank(count * self.world));
        let untouched = output.bytes().to_vec();
        let before = self.bytes(count * self.rank);
        if self.case.form == Form::RawInPlace && self.at_root() {
            output.bytes_mut()[before..][..own.len()].copy_from_slice(&own);
        }
        self.ok(if self.is_raw() {
            let at_root = if self.at_root() { output.pointer_mut() } else { std::ptr::null_mut() };
            let input = match self.case.form {
                // SAFETY: the root's block lies inside the output.
                Form::RawInPlace if self.at_root() => unsafe { at_root.add(before).cast_const() },
                _ => input.pointer(),
            };
            // SAFETY: the input holds `count` elements and the output, which only the root has, `count` for each
            // rank; both live through the call and are this thread's alone.
            unsafe { comm.raw().gather(input, at_root, count, dtype, root) }
        } else {
            typed!(dtype, T => {
                comm.gather(input.slice::<T>(), self.at_root().then_some(output.slice_mut::<T>()), root)
            })
        });
        let all = || self.gathered(&vec![count; self.world]);
        self.expect(&output, &if self.at_root() { all() } else { untouched });
        self.expect(&input, &own);
    }

    pub(super) fn gather_v(&self) {
        let (comm, dtype, root) = (self.comm, self.case.dtype, self.case.root);
        let counts: Vec<usize> = (0..self.world).map(|rank| self.uneven(rank, 0)).collect();
        let own = self.data(self.rank, counts[self.rank]);
        let (input, mut output) = (self.holding(&own), self.blank(counts.iter().sum()));
        let untouched = output.bytes().to_vec();
        self.ok(if self.is_raw() {
            let at_root = if self.at_root() { output.pointer_mut() } else { std::ptr::null_mut() };
            let known: &[usize] = if self.at_root() { &counts } else { &[] };
            // SAFETY: the input holds this rank's count and the output, which only the root has, the sum; both live
            // through the call and are this thread's alone.
            unsafe { comm.raw().gather_v(input.pointer(), counts[self.rank], at_root, known, dtype, root) }
        } else {
            typed!(dtype, T => {
                let output = self.at_root().then_some((output.slice_mut::<T>(), &counts[..]));
                comm.gather_v(input.slice::<T>(), output, root)
            })
        });
        self.expect(&output, &if self.at_root() { self.gathered(&counts) } else { untouched });
        self.expect(&input, &own);
    }

    pub(super) fn scatter(&self) {
        let (comm, dtype, count, root) = (self.comm, self.case.dtype, self.case.count, self.case.root);
        let all = self.data(root, count * self.world);
        let (mut input, mut output) = (self.holding(&all), self.blank(count));
        let before = self.bytes(count * self.rank);
        let in_place = self.case.form == Form::RawInPlace && self.at_root();
        self.ok(if self.is_raw() {
            let at_root = if self.at_root() { input.pointer_mut() } else { std::ptr::null_mut() };
            // SAFETY: the root's block lies inside the input.
            let output = if in_place { unsafe { at_root.add(before) } } else { output.pointer_mut() };
            // SAFETY: the input, which only the root has, holds `count` elements for each rank and the output
            // `count`; both live through the call and are this thread's alone.
            unsafe { comm.raw().scatter(at_root, output, count, dtype, root) }
        } else {
            typed!(dtype, T => {
                comm.scatter(self.at_root().then_some(input.slice::<T>()), output.slice_mut::<T>(), root)
            })
        });
        if !in_place {
            self.expect(&output, &all[before..][..self.bytes(count)]);
        }
        self.expect(&input, &all);
    }

    pub(super) fn scatter_v(&self) {
        let (comm, dtype, root) = (self.comm, self.case.dtype, self.case.root);
        let counts: Vec<usize> = (0..self.world).map(|rank| self.uneven(0, rank)).collect();
        let starts = starts(&counts);
        let (own, before) = (counts[self.rank], self.bytes(starts[self.rank]));
        let all = self.data(root, starts[self.world]);
        let (input, mut output) = (self.holding(&all), self.blank(own));
        self.ok(if self.is_raw() {
            let at_root = if self.at_root() { input.pointer() } else { std::ptr::null() };
            let known: &[usize] = if self.at_root() { &counts } else { &[] };
            // SAFETY: the input, which only the root has, holds the sum of the counts and the output this rank's; both
            // live through the call and are this thread's alone.
            unsafe { comm.raw().scatter_v(at_root, known, output.pointer_mut(), own, dtype, root) }
        } else {
            typed!(dtype, T => {
                let input = self.at_root().then_some((input.slice::<T>(), &counts[..]));
                comm.scatter_v(input, output.slice_mut::<T>(), root)
            })
        });
        self.expect(&output, &all[before..][..self.bytes(own)]);
        self.expect(&input, &all);
    }

    pub(super) fn all_to_all(&self) {
        let (comm, dtype, count) = (self.comm, self.case.dtype, self.case.count);
        let own = self.data(self.rank, count * self.world);
        let (mut input, mut output) = (self.holding(&own), self.blank(count * self.world));
        self.ok(match self.case.form {
            Form::Slices => typed!(dtype, T => comm.all_to_all(input.slice::<T>(), output.slice_mut::<T>())),
            Form::SlicesInPlace => typed!(dtype, T => comm.all_to_all_in_place(input.slice_mut::<T>())),
            // SAFETY: both buffers hold `count` elements for each rank, live through the call, and are this thread's
            // alone.
            Form::Raw => unsafe {
                comm.raw().all_to_all(input.pointer(), output.pointer_mut(), count, dtype)
            },
            // SAFETY: the buffer holds `count` elements for each rank, lives through the call, and is this thread's
            // alone.
            Form::RawInPlace => unsafe {
                let data = input.pointer_mut();
                comm.raw().all_to_all(data, data, count, dtype)
            },
        });
        let block = |from: usize| {
            let all = self.data(from, count * self.world);
            all[self.bytes(count * self.rank)..][..self.bytes(count)].to_vec()
        };
        let expected: Vec<u8> = (0..self.world).flat_map(block).collect();
        if self.in_place() {
            self.expect(&input, &expected);
        } else {
            self.expect(&output, &expected);
            self.expect(&input, &own);
        }
    }

    pub(super) fn all_to_all_v(&self) {
        let (comm, dtype) = (self.comm, self.case.dtype);
        let sent_by = |from: usize| (0..self.world).map(|to| self.uneven(from, to)).collect::<Vec<usize>>();
        let send_counts = sent_by(self.rank);
        let recv_counts: Vec<usize> = (0..self.world).map(|from| self.uneven(from, self.rank)).collect();
        let own = self.data(self.rank, send_counts.iter().sum());
        let (input, mut output) = (self.holding(&own), self.blank(recv_counts.iter().sum()));
        self.ok(if self.is_raw() {
            let (from, to) = (input.pointer(), output.pointer_mut());
            // SAFETY: the input holds the sum of what is sent and the output of what is received; both live through the
            // call and are this thread's alone.
            unsafe { comm.raw().all_to_all_v(from, &send_counts, to, &recv_counts, dtype) }
        } else {
            typed!(dtype, T => {
                comm.all_to_all_v(input.slice::<T>(), &send_counts, output.slice_mut::<T>(), &recv_counts)
            })
        });
        let block = |from: usize| {
            let counts = sent_by(from);
            let starts = starts(&counts);
            let all = self.data(from, starts[self.world]);
            all[self.bytes(starts[self.rank])..self.bytes(starts[self.rank + 1])].to_vec()
        };
        let expected: Vec<u8> = (0..self.world).flat_map(block).collect();
        self.expect(&output, &expected);
        self.expect(&input, &own);
    }
}
