//! Promise 1 in numbers worked out by hand, so that the plain loop of [`oracle`](super::oracle) is not the only judge;
//! and the same bits where a rank's thread rounds otherwise.

#![allow(unsafe_code)]

use half::{bf16, f16};
use unisono::{Communicator, Element, ReduceOp};

/// Reduce one value per rank of three, in one step and in two, and compare the bits.
fn check<T: Element + std::fmt::Debug>(comm: &Communicator, op: ReduceOp, values: [T; 3], expected: T) {
    for count in [1, 3000] {
        let mut data = vec![values[comm.rank()]; count];
        comm.all_reduce(&mut data, op).expect("all ranks call it");
        let bytes = |value: &T| {
            // SAFETY: an element is a plain number: all its bytes may be read.
            unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast::<u8>(), size_of::<T>()) }
                .to_vec()
        };
        let wrong = data.iter().position(|result| bytes(result) != bytes(&expected));
        assert_eq!(
            wrong,
            None,
            "{op} of {values:?} is {expected:?}, not {:?}",
            wrong.map(|index| data[index])
        );
    }
}

/// Three ranks, numbers for which the order, the accumulator or the sign of zero matters.
pub(crate) fn reductions_worked_out_by_hand(comm: &Communicator) {
    use ReduceOp::{Average, Max, Min, Product, Sum};
    let infinity = f32::INFINITY;
    let nan = f32::from_bits(0x7fc0_0000);
    let other_nan = f32::from_bits(0xffa1_2345);

    // From rank 0 upward: 1e8 + 1 is 1e8 in f32.
    check(comm, Sum, [1e8f32, 1.0, -1e8], 0.0);
    check(comm, Sum, [1e8f32, -1e8, 1.0], 1.0);
    check(comm, Sum, [1e16f64, 1.0, -1e16], 0.0);
    // f16 and bf16 accumulate in f32 and round once.
    let halves = |values: [f32; 3]| values.map(f16::from_f32);
    let brains = |values: [f32; 3]| values.map(bf16::from_f32);
    check(comm, Sum, halves([2048.0, 1.0, 1.0]), f16::from_f32(2050.0));
    check(comm, Sum, halves([65504.0, 65504.0, -65504.0]), f16::from_f32(65504.0));
    check(comm, Average, halves([65504.0, 65504.0, 65504.0]), f16::from_f32(65504.0));
    check(comm, Sum, brains([1.0, 0.003_906_25, 0.003_906_25]), bf16::from_bits(0x3f81));
    // Half way between two numbers the even one is nearest.
    check(comm, Sum, halves([2048.0, 1.0, 0.0]), f16::from_f32(2048.0));
    check(comm, Sum, halves([2048.0, 3.0, 0.0]), f16::from_f32(2052.0));
    // Subnormal numbers are numbers.
    check(comm, Product, [f32::from_bits(27 << 23), f32::from_bits(87 << 23), 1.0], f32::from_bits(1 << 9));
    check(comm, Sum, [f32::from_bits(1), f32::from_bits(1), 0.0], f32::from_bits(2));
    check(comm, Sum, [bf16::from_bits(1), bf16::from_bits(2), bf16::from_bits(0)], bf16::from_bits(3));
    // NaN wins and is canonical; -0 is less than +0.
    check(comm, Sum, [infinity, -infinity, 1.0], nan);
    check(comm, Max, [1.0, other_nan, infinity], nan);
    check(comm, Min, [other_nan, 1.0, -infinity], nan);
    check(comm, Min, [0.0f32, -0.0, 0.0], -0.0);
    check(comm, Max, [-0.0f32, 0.0, -0.0], 0.0);
    check(comm, Sum, [-0.0f64, -0.0, -0.0], -0.0);
    // Integers wrap, and divide toward zero.
    check(comm, Sum, [127i8, 1, 0], -128);
    check(comm, Product, [1u64 << 63, 2, 1], 0);
    check(comm, Average, [-5i8, -5, -1], -3);
    check(comm, Average, [200u8, 100, 0], 14);
    check(comm, Min, [u64::MAX, 1, 2], 1);
    check(comm, Min, [i64::MIN, 1, 2], i64::MIN);
}

/// The register that says how this thread's floating-point operations round and whether they flush subnormals.
#[cfg(target_arch = "x86_64")]
mod float_control {
    use std::arch::asm;

    /// Rounding down, subnormals flushed to zero and read as zero.
    pub(super) const UNUSUAL: u64 = 0x1f80 | 1 << 13 | 1 << 15 | 1 << 6;

    pub(super) fn read() -> u64 {
        let mut register = 0u32;
        // SAFETY: stores 4 bytes to a variable of 4 bytes. (Sticky exception flags, bits 0 to 5, are left out below.)
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut register, options(nostack)) };
        u64::from(register & !0x3f)
    }

    pub(super) fn write(value: u64) {
        let register = value as u32;
        // SAFETY: loads a value whose reserved bits are 0; all exceptions stay masked. Only this thread is affected,
        // and the caller does no arithmetic on floats before it restores the former value.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const register, options(nostack)) };
    }
}

#[cfg(target_arch = "aarch64")]
mod float_control {
    use std::arch::asm;

    /// Rounding down, subnormals flushed to zero.
    pub(super) const UNUSUAL: u64 = 0b10 << 22 | 1 << 24;

    pub(super) fn read() -> u64 {
        let register: u64;
        // SAFETY: reads a register that every program may read.
        unsafe { asm!("mrs {}, fpcr", out(reg) register, options(nomem, nostack)) };
        register
    }

    pub(super) fn write(value: u64) {
        // SAFETY: sets rounding and flushing of this thread alone; the caller does no arithmetic on floats before it
        // restores the former value.
        unsafe { asm!("msr fpcr, {}", in(reg) value, options(nomem, nostack)) };
    }
}

/// One rank's thread rounds down and flushes subnormals: the bits are the same, and afterwards it does so still.
pub(crate) fn a_thread_that_rounds_otherwise_gives_the_same_bits(comm: &Communicator) {
    for unusual in 0..comm.world_size() {
        for count in [9, 4000] {
            // 1/3 + 1/3 rounds up to nearest; the least subnormal must stay.
            let pattern = [1.0f32 / 3.0, f32::from_bits(1), 0.1];
            let mut data: Vec<f32> = pattern.iter().copied().cycle().take(count).collect();
            let expected: Vec<u32> = data
                .iter()
                .map(|value| (1..comm.world_size()).fold(*value, |sum, _| sum + *value).to_bits())
                .collect();
            let before = float_control::read();
            if comm.rank() == unusual {
                float_control::write(float_control::UNUSUAL);
            }
            let inside = float_control::read();
            let result = comm.all_reduce(&mut data, ReduceOp::Sum);
            let after = float_control::read();
            float_control::write(before);
            result.expect("all ranks call it");
            assert_eq!(after, inside, "the thread's own settings are restored");
            let found: Vec<u32> = data.iter().map(|value| value.to_bits()).collect();
            assert_eq!(found, expected, "rank {unusual} rounds otherwise");
        }
    }
}
