//! The collectives as a benchmark sees them: how long the buffers are for a size, and what bandwidth means.
//!
//! Sizes, counts and factors are those of nccl-tests (its PERFORMANCE.md), so that numbers can be compared with
//! what users already have. The one invariant that matters: *size* is the larger of the two buffers that one
//! rank (the root, where there is one) holds, so for an all-gather it is the whole result, not a rank's share.

use std::fmt;
use std::str::FromStr;

/// An operation that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Every rank gets the reduction of all ranks' data.
    AllReduce,
    /// Every rank gets all ranks' data.
    AllGather,
    /// Every rank gets its share of the reduction.
    ReduceScatter,
    /// Every rank gets the root's data.
    Broadcast,
    /// The root gets the reduction.
    Reduce,
    /// The root gets all ranks' data.
    Gather,
    /// Every rank gets its share of the root's data.
    Scatter,
    /// Every rank gets from every rank the share meant for it.
    AllToAll,
    /// Nobody goes on before all have come.
    Barrier,
    /// Every rank sends to the next one and receives from the one before.
    SendRecv,
}

/// Not the name of an operation. The message lists the names there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownOperation {
    /// What was given.
    pub given: String,
}

impl fmt::Display for UnknownOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = Operation::ALL.iter().map(|operation| operation.name()).collect();
        write!(f, "{:?} is no operation: use one of {}", self.given, names.join(", "))
    }
}

impl std::error::Error for UnknownOperation {}

/// The buffers of an operation, in elements, and its size as reports state it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The count handed to the operation: elements of a rank's share, or of the whole where there are none.
    pub count: usize,
    /// Elements of the input buffer.
    pub input: usize,
    /// Elements of the output buffer.
    pub output: usize,
    /// The larger of the two, in bytes.
    pub bytes: usize,
}

impl Operation {
    /// All operations.
    pub const ALL: [Operation; 10] = [
        Operation::AllReduce,
        Operation::AllGather,
        Operation::ReduceScatter,
        Operation::Broadcast,
        Operation::Reduce,
        Operation::Gather,
        Operation::Scatter,
        Operation::AllToAll,
        Operation::Barrier,
        Operation::SendRecv,
    ];

    /// The name in commands and reports, such as `all-reduce`.
    pub fn name(self) -> &'static str {
        match self {
            Operation::AllReduce => "all-reduce",
            Operation::AllGather => "all-gather",
            Operation::ReduceScatter => "reduce-scatter",
            Operation::Broadcast => "broadcast",
            Operation::Reduce => "reduce",
            Operation::Gather => "gather",
            Operation::Scatter => "scatter",
            Operation::AllToAll => "all-to-all",
            Operation::Barrier => "barrier",
            Operation::SendRecv => "send-recv",
        }
    }

    /// Whether values are reduced, so that a reduce operation is part of the call.
    pub fn reduces(self) -> bool {
        matches!(self, Operation::AllReduce | Operation::ReduceScatter | Operation::Reduce)
    }

    /// The buffers for a size of about `bytes`: rounded down to whole elements, equally many for each rank where
    /// the data is divided, but never fewer than one. A barrier has none.
    pub fn shape(self, bytes: usize, ranks: usize, element_bytes: usize) -> Shape {
        let elements = (bytes / element_bytes.max(1)).max(1);
        let share = (elements / ranks.max(1)).max(1);
        let (count, input, output) = match self {
            Operation::Barrier => (0, 0, 0),
            Operation::AllReduce | Operation::Broadcast | Operation::Reduce | Operation::SendRecv => {
                (elements, elements, elements)
            }
            Operation::AllGather | Operation::Gather => (share, share, share * ranks),
            Operation::ReduceScatter | Operation::Scatter => (share, share * ranks, share),
            Operation::AllToAll => (share, share * ranks, share * ranks),
        };
        Shape { count, input, output, bytes: input.max(output) * element_bytes }
    }

    /// What the algorithm bandwidth is multiplied by to get the bus bandwidth: the share of the size that has to
    /// pass each rank's link whatever the algorithm, so that the value does not depend on the number of ranks.
    pub fn bus_factor(self, ranks: usize) -> f64 {
        let ranks = ranks.max(1) as f64;
        match self {
            Operation::AllReduce => 2.0 * (ranks - 1.0) / ranks,
            Operation::AllGather
            | Operation::ReduceScatter
            | Operation::AllToAll
            | Operation::Gather
            | Operation::Scatter => (ranks - 1.0) / ranks,
            Operation::Broadcast | Operation::Reduce | Operation::SendRecv => 1.0,
            Operation::Barrier => 0.0,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Operation {
    type Err = UnknownOperation;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Operation::ALL.into_iter().find(|operation| operation.name() == name);
        found.ok_or_else(|| UnknownOperation { given: name.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_operation() {
        for operation in Operation::ALL {
            assert_eq!(operation.name().parse(), Ok(operation));
        }
        let error = "allreduce".parse::<Operation>().unwrap_err().to_string();
        assert!(error.contains("all-reduce, all-gather"), "{error}");
    }

    #[test]
    fn bus_factors_are_those_of_nccl_tests() {
        for (operation, factor) in [
            (Operation::AllReduce, 1.5),
            (Operation::AllGather, 0.75),
            (Operation::ReduceScatter, 0.75),
            (Operation::AllToAll, 0.75),
            (Operation::Gather, 0.75),
            (Operation::Scatter, 0.75),
            (Operation::Broadcast, 1.0),
            (Operation::Reduce, 1.0),
            (Operation::SendRecv, 1.0),
            (Operation::Barrier, 0.0),
        ] {
            assert_eq!(operation.bus_factor(4), factor, "{operation}");
        }
        assert_eq!(Operation::AllReduce.bus_factor(1), 0.0);
    }

    #[test]
    fn the_size_is_that_of_the_larger_buffer() {
        let shape = |operation: Operation| operation.shape(16384, 4, 4);
        assert_eq!(
            shape(Operation::AllReduce),
            Shape { count: 4096, input: 4096, output: 4096, bytes: 16384 }
        );
        assert_eq!(
            shape(Operation::AllGather),
            Shape { count: 1024, input: 1024, output: 4096, bytes: 16384 }
        );
        assert_eq!(shape(Operation::Scatter), Shape { count: 1024, input: 4096, output: 1024, bytes: 16384 });
        assert_eq!(
            shape(Operation::AllToAll),
            Shape { count: 1024, input: 4096, output: 4096, bytes: 16384 }
        );
        assert_eq!(shape(Operation::Barrier), Shape { count: 0, input: 0, output: 0, bytes: 0 });
    }

    #[test]
    fn a_size_that_does_not_divide_is_rounded_to_what_is_moved() {
        assert_eq!(Operation::AllGather.shape(100, 3, 8).bytes, 96);
        assert_eq!(Operation::AllGather.shape(1, 3, 8), Shape { count: 1, input: 1, output: 3, bytes: 24 });
        assert_eq!(Operation::AllReduce.shape(7, 2, 4).bytes, 4);
    }
}
