//! Promise 1: every operation, on every element type, with every reduction, gives the bits of a plain loop.

use unisono::{Communicator, DType, ReduceOp};

use super::{Case, Checker, Draws, Form, Kind};

/// Lengths around everything that changes with them under [`small_parameters`](super::small_parameters): none, one, a
/// line, the switch from one step to two, the piece of a swap, one chunk and several.
pub(crate) fn lengths(dtype: DType) -> Vec<usize> {
    let elements = |bytes: usize| bytes / dtype.size_bytes();
    vec![
        0,
        1,
        7,
        61,
        elements(256) - 1,
        elements(256),
        elements(256) + 1,
        elements(512) + 1,
        1031,
        elements(9001),
    ]
}

/// Every operation on every type with every reduction at each of `lengths`. Root and form are drawn for each.
pub(crate) fn every_operation(comm: &Communicator, lengths: impl Fn(DType) -> Vec<usize>) {
    // As long as the longest of `lengths`.
    let checker = Checker::registering(comm, 1, 9100);
    let mut number = 0;
    for dtype in DType::ALL {
        for kind in Kind::ALL {
            for count in lengths(dtype) {
                for op in reductions(kind, dtype) {
                    let mut draws = Draws::new(&[1, number]);
                    let (root, form) = (draws.below(comm.world_size()), draws.pick(&Form::ALL));
                    checker.perform(number, Case { kind, dtype, op, count, root, form });
                    number += 1;
                }
            }
        }
    }
}

/// The reductions that make a case of their own.
fn reductions(kind: Kind, dtype: DType) -> Vec<ReduceOp> {
    let supported = ReduceOp::ALL.into_iter().filter(|op| op.supports(dtype));
    supported.take(if kind.reduces() { usize::MAX } else { 1 }).collect()
}

/// Each reduction on floats, at lengths that go in one step and in two.
pub(crate) fn float_reductions(comm: &Communicator) {
    let checker = Checker::registering(comm, 2, 4099 * 8);
    let mut number = 0;
    for dtype in DType::ALL.into_iter().filter(|dtype| dtype.is_float()) {
        for op in reductions(Kind::AllReduce, dtype) {
            for count in [1, 31, 500, 4099] {
                for kind in [
                    Kind::AllReduce,
                    Kind::Reduce,
                    Kind::ReduceScatter,
                    Kind::AllReduceRegistered,
                    Kind::ReduceScatterRegistered,
                ] {
                    let mut draws = Draws::new(&[2, number]);
                    let (root, form) = (draws.below(comm.world_size()), draws.pick(&Form::ALL));
                    checker.perform(number, Case { kind, dtype, op, count, root, form });
                    number += 1;
                }
            }
        }
    }
}

/// Every operation on registered memory, with every reduction, at a few lengths.
pub(crate) fn registered_operations(comm: &Communicator) {
    let checker = Checker::registering(comm, 7, 9100);
    let mut number = 0;
    for dtype in DType::ALL {
        for kind in Kind::ALL.into_iter().filter(|kind| kind.elsewhere().is_some()) {
            for count in [0, 1, 13, 300, 1031] {
                for op in reductions(kind, dtype) {
                    let root = Draws::new(&[7, number]).below(comm.world_size());
                    checker.perform(number, Case { kind, dtype, op, count, root, form: Form::SlicesInPlace });
                    number += 1;
                }
            }
        }
    }
}

/// A few operations above every switch of the default parameters: several chunks, pieces and turns of the window.
pub(crate) fn large_operations(comm: &Communicator, bytes: usize) {
    let checker = Checker::registering(comm, 3, bytes + 24);
    let mut draws = Draws::new(&[3]);
    for (number, kind) in Kind::ALL.into_iter().enumerate() {
        let dtype = draws.pick(&[DType::F32, DType::BF16, DType::F64]);
        // Where each rank has a block, the sum of them is large.
        let whole = matches!(
            kind.elsewhere().unwrap_or(kind),
            Kind::AllReduce | Kind::Reduce | Kind::Broadcast | Kind::Transfer
        );
        let count = bytes / dtype.size_bytes() / if whole { 1 } else { comm.world_size() } + 3;
        let root = draws.below(comm.world_size());
        let form = draws.pick(&Form::ALL);
        checker.perform(number as u64, Case { kind, dtype, op: ReduceOp::Sum, count, root, form });
    }
}
