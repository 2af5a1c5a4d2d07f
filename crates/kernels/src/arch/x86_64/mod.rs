//! x86-64: AVX2 and AVX-512.
//!
//! Both files define their vectors through [`macros`], which spell the parts that intrinsics of
//! either width have in common.

#![allow(unsafe_code)]

mod macros;

pub(crate) mod avx2;
pub(crate) mod avx512;

use std::arch::asm;
use std::arch::x86_64::__cpuid;
use std::sync::OnceLock;

/// Asks for the line in exclusive state, if the processor knows PREFETCHW.
#[inline(always)]
pub(crate) fn prefetch_line_for_write(pointer: *const u8) {
    if has_prefetchw() {
        // SAFETY: a prefetch touches no memory that the program can see and never faults, whatever the
        // address; the processor knows the instruction (just asked).
        unsafe { asm!("prefetchw [{}]", in(reg) pointer, options(nostack, preserves_flags, readonly)) };
    }
}

#[inline]
fn has_prefetchw() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(detect_prefetchw)
}

#[cold]
fn detect_prefetchw() -> bool {
    /// The leaf of AMD's extended features, and the bit that says PREFETCH and PREFETCHW are there.
    const EXTENDED: u32 = 0x8000_0001;
    const PREFETCHW: u32 = 1 << 8;
    // Older toolchains hold CPUID to be unsafe, newer ones do not.
    #[allow(unused_unsafe)]
    // SAFETY: every x86-64 processor has CPUID; the highest extended leaf is compared before it is asked.
    unsafe {
        __cpuid(0x8000_0000).eax >= EXTENDED && __cpuid(EXTENDED).ecx & PREFETCHW != 0
    }
}

/// Whether this is one of AMD's processors, or of those built after them, and knows PREFETCHW.
#[inline]
pub(crate) fn asking_ahead_pays() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| has_prefetchw() && is_amd())
}

/// See [`crate::is_amd`].
#[cold]
pub(crate) fn is_amd() -> bool {
    // Older toolchains hold CPUID to be unsafe, newer ones do not.
    #[allow(unused_unsafe)]
    // SAFETY: every x86-64 processor has CPUID and its leaf 0.
    let leaf = unsafe { __cpuid(0) };
    let vendor = [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes);
    matches!(vendor.as_flattened(), b"AuthenticAMD" | b"HygonGenuine")
}
