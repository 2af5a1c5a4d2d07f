//! The caller's rounding mode and subnormal flags change no bit of a result, and are back afterwards.
#![cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#![allow(unsafe_code)]

mod common;

use std::arch::asm;

use common::memory::Guarded;
use common::numbers::{Random, elements};
use common::oracle::reduced;
use unisono_kernels::{DType, Isa, ReduceOp, Reducer, Strided};

#[cfg(target_arch = "x86_64")]
mod modes {
    use super::asm;

    /// Flush-to-zero with denormals-are-zero, then each rounding mode, then a bit of everything, and one with
    /// exceptions unmasked that our arithmetic must not raise as traps.
    pub(crate) const ODD: [u32; 6] = [0x9fc0, 0x3f80, 0x5f80, 0x7f80, 0xffc0, 0x1000];
    /// The sticky exception flags are not part of the promise.
    pub(crate) const CONTROL: u32 = !0x3f;

    pub(crate) fn read() -> u32 {
        let mut register = 0_u32;
        // SAFETY: stores four bytes to a local of four bytes.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut register) };
        register
    }

    pub(crate) fn write(register: u32) {
        // SAFETY: loads four bytes from a local; only defined bits are set by the tests.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const register) };
    }
}

#[cfg(target_arch = "aarch64")]
mod modes {
    use super::asm;

    /// Flush-to-zero, each rounding mode, default NaN, and all together.
    pub(crate) const ODD: [u64; 6] =
        [1 << 24, 1 << 22, 2 << 22, 3 << 22, 1 << 25, (1 << 24) | (3 << 22) | (1 << 25)];
    pub(crate) const CONTROL: u64 = !0;

    pub(crate) fn read() -> u64 {
        let register;
        // SAFETY: reads a register that every thread may read.
        unsafe { asm!("mrs {}, fpcr", out(reg) register) };
        register
    }

    pub(crate) fn write(register: u64) {
        // SAFETY: only defined bits are set by the tests.
        unsafe { asm!("msr fpcr, {}", in(reg) register) };
    }
}

#[test]
fn odd_modes_change_no_bit_and_are_restored() {
    let default = modes::read();
    for dtype in DType::ALL.into_iter().filter(|dtype| dtype.is_float()) {
        for op in ReduceOp::ALL.into_iter().filter(|op| op.supports(dtype)) {
            for isa in Isa::available() {
                for (index, &odd) in modes::ODD.iter().enumerate() {
                    let reducer = Reducer::with_isa(dtype, op, isa).expect("supported");
                    let mut random = Random(index as u64 + 100 * dtype.code() as u64);
                    let inputs: Vec<Vec<u8>> = (0..3).map(|_| elements(dtype, 203, &mut random)).collect();
                    let expected = reduced(dtype, op, &inputs, 203);
                    let mut result = Guarded::new(&vec![0; expected.len()], 8);
                    let destination = result.pointer();
                    let sources = [inputs[0].as_ptr(), inputs[1].as_ptr(), inputs[2].as_ptr()];

                    modes::write(odd);
                    // SAFETY: all buffers have 203 elements and do not overlap.
                    unsafe { reducer.reduce(&[destination], &sources, 203) };
                    let found = modes::read();
                    modes::write(default);

                    result.assert_guards_untouched();
                    assert!(result.contents() == expected, "{reducer:?} with modes {odd:#x}");
                    assert_eq!(found & modes::CONTROL, odd & modes::CONTROL, "{reducer:?}");
                }
            }
        }
    }
}

#[test]
fn odd_modes_change_no_bit_of_rows_either() {
    let default = modes::read();
    let reducer = Reducer::new(DType::F32, ReduceOp::Sum).expect("supported");
    let least = [1_u32; 24];
    let mut result = vec![0_u32; 24];
    let source = Strided { pointer: least.as_ptr().cast::<u8>(), stride: 32 };
    let destination = Strided { pointer: result.as_mut_ptr().cast::<u8>(), stride: 32 };
    modes::write(modes::ODD[0]);
    // SAFETY: three rows of four numbers, 32 bytes apart, lie inside 24 numbers.
    unsafe { reducer.reduce_rows(&[destination], &[source, source], 4, 3) };
    let found = modes::read();
    modes::write(default);
    assert_eq!(found & modes::CONTROL, modes::ODD[0] & modes::CONTROL);
    let row = [2, 2, 2, 2, 0, 0, 0, 0];
    assert_eq!(result, [row, row, row].concat(), "subnormals were kept");
}
