//! Right or wrong: data that every rank can compute for every other, and the result that must come out.
//!
//! The values are small whole numbers, chosen so that every reduction of them is exact in every element type (but
//! for the average, which is rounded once, as the library promises). The one invariant that matters: values differ
//! between ranks, repetitions and places, so that a result from the wrong rank, an earlier call or another offset is
//! seen.

use half::{bf16, f16};
use unisono::{DType, ReduceOp};
use unisono_measure::Operation;

use super::operate::Buffers;
use super::protocol::Subject;

/// One checked call, as one rank sees it.
pub(crate) struct Case<'a> {
    pub(crate) subject: &'a Subject,
    pub(crate) rank: usize,
    pub(crate) ranks: usize,
    pub(crate) repetition: usize,
}

/// A result: a whole number, or one divided by the number of ranks.
#[derive(Clone, Copy)]
enum Value {
    Whole(i64),
    Divided(i64, usize),
}

impl Case<'_> {
    /// Write this rank's input.
    pub(crate) fn fill(&self, buffers: &mut Buffers) {
        let element = self.subject.dtype.size_bytes();
        for (index, bytes) in buffers.input().chunks_exact_mut(element).enumerate() {
            encode(self.subject.dtype, Value::Whole(self.input(self.rank, index)), bytes);
        }
    }

    /// How many elements of this rank's output are not what they must be.
    pub(crate) fn count_wrong(&self, buffers: &Buffers) -> u64 {
        let element = self.subject.dtype.size_bytes();
        let mut expected = [0; 8];
        let mut wrong = 0;
        for (index, found) in buffers.output().chunks_exact(element).enumerate() {
            let Some(value) = self.expected(index) else { continue };
            encode(self.subject.dtype, value, &mut expected[..element]);
            wrong += u64::from(found != &expected[..element]);
        }
        wrong
    }

    /// Element `index` of `rank`'s input.
    fn input(&self, rank: usize, index: usize) -> i64 {
        let mixed = (index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
        let mixed = mixed as usize + rank * 7 + self.repetition * 3;
        let value = match self.subject.reduce_op {
            // One rank's factor is 2: a product of many twos would leave the range of the small types.
            ReduceOp::Product if self.subject.operation.reduces() => {
                1 + usize::from(mixed % self.ranks == rank)
            }
            // The sum over all ranks stays below 128: exact in bf16, and within i8.
            ReduceOp::Sum | ReduceOp::Average => mixed % (127 / self.ranks + 1),
            _ => mixed % 128,
        };
        value as i64
    }

    /// What element `index` of this rank's output must be; `None` where nothing is said of it.
    fn expected(&self, index: usize) -> Option<Value> {
        let count = self.subject.shape(self.ranks).count;
        let is_root = self.rank == self.subject.root;
        let previous = (self.rank + self.ranks - 1) % self.ranks;
        let whole = |value| Some(Value::Whole(value));
        match self.subject.operation {
            Operation::AllReduce => Some(self.reduced(index)),
            Operation::Reduce => is_root.then(|| self.reduced(index)),
            Operation::ReduceScatter => Some(self.reduced(self.rank * count + index)),
            Operation::AllGather => whole(self.input(index / count, index % count)),
            Operation::Gather if !is_root => None,
            Operation::Gather => whole(self.input(index / count, index % count)),
            Operation::Broadcast => whole(self.input(self.subject.root, index)),
            Operation::Scatter => whole(self.input(self.subject.root, self.rank * count + index)),
            Operation::AllToAll => whole(self.input(index / count, self.rank * count + index % count)),
            Operation::SendRecv => whole(self.input(previous, index)),
            Operation::Barrier => None,
        }
    }

    /// The reduction of all ranks' element `index`.
    fn reduced(&self, index: usize) -> Value {
        let values = (0..self.ranks).map(|rank| self.input(rank, index));
        Value::Whole(match self.subject.reduce_op {
            ReduceOp::Sum => values.sum(),
            ReduceOp::Average => return Value::Divided(values.sum(), self.ranks),
            ReduceOp::Product => values.product(),
            ReduceOp::Min => values.min().unwrap_or(0),
            ReduceOp::Max => values.max().unwrap_or(0),
            ReduceOp::And => values.fold(-1, |all, value| all & value),
            ReduceOp::Or => values.fold(0, |all, value| all | value),
            ReduceOp::Xor => values.fold(0, |all, value| all ^ value),
        })
    }
}

/// Write a value as an element of the type: divided in f32 for the half types (f64 for f64) and rounded once,
/// toward zero for integers.
fn encode(dtype: DType, value: Value, to: &mut [u8]) {
    let single = match value {
        Value::Whole(whole) => whole as f32,
        Value::Divided(sum, by) => sum as f32 / by as f32,
    };
    let double = match value {
        Value::Whole(whole) => whole as f64,
        Value::Divided(sum, by) => sum as f64 / by as f64,
    };
    let whole = match value {
        Value::Whole(whole) => whole,
        Value::Divided(sum, by) => sum / by as i64,
    };
    match dtype {
        DType::F32 => to.copy_from_slice(&single.to_ne_bytes()),
        DType::F64 => to.copy_from_slice(&double.to_ne_bytes()),
        DType::F16 => to.copy_from_slice(&f16::from_f32(single).to_ne_bytes()),
        DType::BF16 => to.copy_from_slice(&bf16::from_f32(single).to_ne_bytes()),
        // The values fit every type, so the conversions cut nothing off.
        DType::I8 | DType::U8 => to.copy_from_slice(&(whole as u8).to_ne_bytes()),
        DType::I16 | DType::U16 => to.copy_from_slice(&(whole as u16).to_ne_bytes()),
        DType::I32 | DType::U32 => to.copy_from_slice(&(whole as u32).to_ne_bytes()),
        DType::I64 | DType::U64 => to.copy_from_slice(&(whole as u64).to_ne_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(operation: Operation, dtype: DType, reduce_op: ReduceOp) -> Subject {
        Subject {
            operation,
            dtype,
            reduce_op,
            root: 1,
            bytes: 4096,
            out_of_place: true,
            registered: false,
            traffic: false,
        }
    }

    /// What the library would do for an all-gather, by plain copies.
    fn gathered(subject: &Subject, ranks: usize) -> Buffers {
        let mut whole = Vec::new();
        for rank in 0..ranks {
            let mut buffers = Buffers::new(&subject.shape(ranks), subject.dtype, false);
            Case { subject, rank, ranks, repetition: 0 }.fill(&mut buffers);
            whole.extend_from_slice(buffers.input());
        }
        let mut result = Buffers::new(&subject.shape(ranks), subject.dtype, false);
        result.output_mut().copy_from_slice(&whole);
        result
    }

    #[test]
    fn a_right_result_is_found_right_and_every_wrong_element_is_counted() {
        let subject = subject(Operation::AllGather, DType::F32, ReduceOp::Sum);
        let case = Case { subject: &subject, rank: 0, ranks: 4, repetition: 0 };
        let mut result = gathered(&subject, 4);
        assert_eq!(case.count_wrong(&result), 0);
        result.output_mut()[0..8].fill(0xff);
        assert_eq!(case.count_wrong(&result), 2);
        let later = Case { repetition: 1, ..case };
        assert!(later.count_wrong(&result) > 900, "results of an earlier call would pass");
    }

    #[test]
    fn every_sum_is_exact_in_every_type() {
        for ranks in [1, 2, 3, 64] {
            for dtype in DType::ALL {
                let subject = subject(Operation::AllReduce, dtype, ReduceOp::Sum);
                let case = Case { subject: &subject, rank: 0, ranks, repetition: 2 };
                for index in 0..500 {
                    let Value::Whole(sum) = case.reduced(index) else { panic!("a sum is whole") };
                    assert!((0..128).contains(&sum), "{sum} of {ranks} ranks");
                }
            }
        }
    }

    #[test]
    fn an_average_is_rounded_as_the_library_promises() {
        let mut bytes = [0; 4];
        encode(DType::I32, Value::Divided(-7, 2), &mut bytes);
        assert_eq!(i32::from_ne_bytes(bytes), -3);
        encode(DType::F32, Value::Divided(1, 3), &mut bytes);
        assert_eq!(f32::from_ne_bytes(bytes), 1.0 / 3.0);
    }
}
