//! Every kernel against a plain loop: all types, operations and instruction sets, bit for bit.

#![allow(unsafe_code)]

mod common;

use common::memory::Guarded;
use common::numbers::{Random, elements};
use common::oracle::reduced;
use proptest::prelude::*;
use unisono_kernels::{DType, Isa, ReduceOp, Reducer, Strided};

/// One call: how many of everything, and where.
#[derive(Debug, Clone)]
struct Call {
    sources: usize,
    destinations: usize,
    /// The source that is the first destination too.
    in_place: Option<usize>,
    count: usize,
    seed: u64,
}

/// Every defined reduction on every instruction set of this machine.
fn reducers() -> impl Iterator<Item = Reducer> {
    let isas = Isa::available();
    DType::ALL.into_iter().flat_map(move |dtype| {
        let isas = isas.clone();
        ReduceOp::ALL.into_iter().filter(move |op| op.supports(dtype)).flat_map(move |op| {
            isas.clone().into_iter().map(move |isa| Reducer::with_isa(dtype, op, isa).expect("supported"))
        })
    })
}

/// Makes the call with numbers from its seed and compares with the oracle. The misalignments are random, but
/// for `misalignment`, by which all are shifted.
fn check(reducer: Reducer, call: &Call, misalignment: usize) {
    let mut random = Random(call.seed);
    let inputs: Vec<Vec<u8>> =
        (0..call.sources).map(|_| elements(reducer.dtype(), call.count, &mut random)).collect();
    let expected = reduced(reducer.dtype(), reducer.op(), &inputs, call.count);

    let mut shift = || misalignment + if call.seed.is_multiple_of(2) { 0 } else { random.below(64) };
    let mut sources: Vec<Guarded> = inputs.iter().map(|input| Guarded::new(input, shift())).collect();
    let fresh = call.destinations - usize::from(call.in_place.is_some());
    let mut destinations: Vec<Guarded> =
        (0..fresh).map(|_| Guarded::new(&vec![0x5a; expected.len()], shift())).collect();

    let mut destination_pointers: Vec<*mut u8> = Vec::new();
    destination_pointers.extend(call.in_place.map(|index| sources[index].pointer()));
    destination_pointers.extend(destinations.iter_mut().map(Guarded::pointer));
    let source_pointers: Vec<*const u8> = sources.iter_mut().map(|s| s.pointer().cast_const()).collect();
    // SAFETY: every buffer has `count` elements; none overlap but the destination that is a source.
    unsafe { reducer.reduce(&destination_pointers, &source_pointers, call.count) };

    for (index, source) in sources.iter().enumerate() {
        let wanted = if call.in_place == Some(index) { &expected } else { &inputs[index] };
        compare(reducer, call, &format!("source {index}"), source, wanted);
    }
    for (index, destination) in destinations.iter().enumerate() {
        compare(reducer, call, &format!("destination {index}"), destination, &expected);
    }
}

fn compare(reducer: Reducer, call: &Call, name: &str, found: &Guarded, wanted: &[u8]) {
    found.assert_guards_untouched();
    let size = reducer.dtype().size_bytes();
    let differs = found.contents().chunks(size).zip(wanted.chunks(size)).position(|(f, w)| f != w);
    if let Some(at) = differs {
        let bytes = at * size..(at + 1) * size;
        panic!(
            "{reducer:?} {call:?}: {name}, element {at}: found {:02x?}, wanted {:02x?}",
            &found.contents()[bytes.clone()],
            &wanted[bytes],
        );
    }
}

fn calls() -> impl Strategy<Value = Call> {
    let sources = prop_oneof![3 => Just(2_usize), 4 => 1..=16_usize, 1 => Just(64)];
    let count = prop_oneof![2 => 0..=40_usize, 2 => 0..=330_usize];
    (sources, 1..=4_usize, any::<Option<prop::sample::Index>>(), count, any::<u64>()).prop_map(
        |(sources, destinations, in_place, count, seed)| Call {
            sources,
            destinations,
            in_place: in_place.map(|index| index.index(sources)),
            count,
            seed,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_reduction_equals_a_plain_loop(call in calls()) {
        for reducer in reducers() {
            check(reducer, &call, 0);
        }
    }
}

#[test]
fn every_length_up_to_two_blocks_equals_a_plain_loop() {
    for reducer in reducers().filter(|reducer| matches!(reducer.op(), ReduceOp::Sum | ReduceOp::Max)) {
        let two_blocks = 2 * 4 * 64 / reducer.dtype().size_bytes();
        for count in 0..=two_blocks + 3 {
            let in_place = (count % 3 == 0).then_some(count % 2);
            let call = Call { sources: 2, destinations: 1 + count % 2, in_place, count, seed: count as u64 };
            check(reducer, &call, 0);
        }
    }
}

#[test]
fn every_misalignment_equals_a_plain_loop() {
    for reducer in reducers() {
        for misalignment in 0..64 {
            let count = 300 / reducer.dtype().size_bytes();
            let call = Call { sources: 2, destinations: 1, in_place: None, count, seed: misalignment as u64 };
            check(reducer, &call, misalignment);
        }
    }
}

#[test]
fn every_number_of_sources_works_in_place_on_each_of_them() {
    for reducer in reducers() {
        for sources in (1..=16).chain([64, 130]) {
            let in_place = Some(sources / 2);
            let call =
                Call { sources, destinations: 1 + sources % 4, in_place, count: 75, seed: sources as u64 };
            check(reducer, &call, 0);
        }
    }
    let reducer = Reducer::new(DType::BF16, ReduceOp::Sum).expect("supported");
    for in_place in 0..8 {
        let call = Call { sources: 8, destinations: 2, in_place: Some(in_place), count: 200, seed: 9 };
        check(reducer, &call, 0);
    }
}

/// One source exercises the widening and the rounding of 16-bit floats on all of their values.
#[test]
fn every_16_bit_float_survives_and_every_nan_becomes_canonical() {
    let every: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_ne_bytes).collect();
    for reducer in reducers().filter(|r| matches!(r.dtype(), DType::F16 | DType::BF16)) {
        let expected = reduced(reducer.dtype(), reducer.op(), std::slice::from_ref(&every), 1 << 16);
        let mut buffer = every.clone();
        let pointer = buffer.as_mut_ptr();
        // SAFETY: the buffer has 2^16 elements; the destination is the source.
        unsafe { reducer.reduce(&[pointer], &[pointer.cast_const()], 1 << 16) };
        assert!(buffer == expected, "{reducer:?}");
    }
}

/// Sums with a tiny number next to each value reach the ties and the ranges where rounding goes wrong.
#[test]
fn every_16_bit_float_is_rounded_once_to_nearest_even() {
    let every: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_ne_bytes).collect();
    for reducer in reducers().filter(|r| matches!(r.dtype(), DType::F16 | DType::BF16)) {
        for distance in [1_u16, 0x0400, 0x0080, 0x2c00, 0x8001] {
            let near: Vec<u8> =
                (0..=u16::MAX).flat_map(|bits| bits.wrapping_sub(distance).to_ne_bytes()).collect();
            let inputs = [every.clone(), near.clone(), near];
            let expected = reduced(reducer.dtype(), reducer.op(), &inputs, 1 << 16);
            let mut result = vec![0_u8; every.len()];
            let sources = [inputs[0].as_ptr(), inputs[1].as_ptr(), inputs[2].as_ptr()];
            // SAFETY: all buffers have 2^16 elements and do not overlap.
            unsafe { reducer.reduce(&[result.as_mut_ptr()], &sources, 1 << 16) };
            assert!(result == expected, "{reducer:?} at distance {distance:#x}");
        }
    }
}

#[test]
fn rows_are_reduced_as_if_one_by_one() {
    let (row_count, rows) = (37, 5);
    for reducer in reducers() {
        let row_bytes = row_count * reducer.dtype().size_bytes();
        for padding in [0, 24] {
            let stride = row_bytes + padding;
            let mut random = Random(11);
            let inputs: Vec<Vec<u8>> =
                (0..3).map(|_| elements(DType::U8, stride * rows, &mut random)).collect();
            let mut result = vec![0x5a_u8; (row_bytes + 8) * rows];
            let sources: Vec<_> = inputs.iter().map(|i| Strided { pointer: i.as_ptr(), stride }).collect();
            let destination = Strided { pointer: result.as_mut_ptr(), stride: row_bytes + 8 };
            // SAFETY: every buffer has `rows` rows at its stride and they do not overlap.
            unsafe { reducer.reduce_rows(&[destination], &sources, row_count, rows) };
            for (row, found) in result.chunks(row_bytes + 8).enumerate() {
                let of_row: Vec<Vec<u8>> =
                    inputs.iter().map(|i| i[row * stride..row * stride + row_bytes].to_vec()).collect();
                let expected = reduced(reducer.dtype(), reducer.op(), &of_row, row_count);
                assert_eq!(&found[..row_bytes], &expected, "{reducer:?} row {row}");
                assert_eq!(&found[row_bytes..], &[0x5a; 8], "{reducer:?} gap behind row {row}");
            }
        }
    }
}

#[test]
fn bitwise_reductions_of_floats_are_refused_by_name() {
    for dtype in DType::ALL.into_iter().filter(|dtype| dtype.is_float()) {
        for op in [ReduceOp::And, ReduceOp::Or, ReduceOp::Xor] {
            let refusal = Reducer::new(dtype, op).expect_err("not defined");
            assert_eq!((refusal.dtype, refusal.op), (dtype, op));
            assert!(refusal.to_string().contains(dtype.name()) && refusal.to_string().contains(op.name()));
        }
    }
}
