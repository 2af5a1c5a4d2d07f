//! Right or wrong: data that every rank can compute for every other, and the result that must come out.
//!
//! The one invariant that matters: the values are those of `bench/callers/caller.h`, small whole numbers whose sums are
//! exact in every element type, different between ranks, repetitions and places.

use unisono::DType;
use unisono_measure::Operation;

use crate::wire::Work;

/// Write a rank's input.
pub(super) fn fill(work: &Work, input: &mut [u8], seed: u64, rank: usize) {
    for (index, element) in input.chunks_exact_mut(work.dtype.size_bytes()).enumerate() {
        encode(work.dtype, value(seed, rank, index), element);
    }
}

/// How many elements are not what they must be.
pub(super) fn count_wrong(work: &Work, output: &[u8], seed: u64, ranks: usize) -> u64 {
    let mut wrong = 0;
    let mut expected = [0; 4];
    for (index, found) in output.chunks_exact(work.dtype.size_bytes()).enumerate() {
        let sum = match work.operation {
            Operation::AllGather => value(seed, index / work.count, index % work.count),
            _ => (0..ranks).map(|rank| value(seed, rank, index)).sum(),
        };
        encode(work.dtype, sum, &mut expected[..found.len()]);
        wrong += u64::from(expected[..found.len()] != *found);
    }
    wrong
}

fn value(seed: u64, rank: usize, index: usize) -> u16 {
    ((index as u64 * 7 + rank as u64 * 13 + seed * 5) % 61) as u16
}

/// Small whole numbers need no rounding: a bf16 is the first half of the f32.
fn encode(dtype: DType, value: u16, element: &mut [u8]) {
    let bits = f32::from(value).to_bits();
    match dtype {
        DType::BF16 => element.copy_from_slice(&((bits >> 16) as u16).to_ne_bytes()),
        _ => element.copy_from_slice(&bits.to_ne_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_wrong_element_is_counted() {
        for dtype in [DType::F32, DType::BF16] {
            let work = Work { operation: Operation::AllGather, dtype, count: 10 };
            let mut output = vec![0; 2 * work.bytes()];
            let (first, second) = output.split_at_mut(work.bytes());
            fill(&work, first, 3, 0);
            fill(&work, second, 3, 1);
            assert_eq!(count_wrong(&work, &output, 3, 2), 0);
            assert_ne!(count_wrong(&work, &output, 4, 2), 0, "data of another call");
            output[work.bytes() + 1] ^= 0xff;
            assert_eq!(count_wrong(&work, &output, 3, 2), 1);
        }
    }
}
