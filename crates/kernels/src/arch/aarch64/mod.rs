//! 64-bit Arm: Advanced SIMD.

#![allow(unsafe_code)]

pub(crate) mod neon;

use std::arch::asm;

/// Asks for the line in exclusive state.
#[inline(always)]
pub(crate) fn prefetch_line_for_write(pointer: *const u8) {
    // SAFETY: a prefetch touches no memory that the program can see and never faults, whatever the address.
    unsafe { asm!("prfm pstl1keep, [{}]", in(reg) pointer, options(nostack, preserves_flags, readonly)) };
}
