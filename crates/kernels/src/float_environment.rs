//! Default floating-point modes for the length of a call.
//!
//! A thread may have chosen to round toward zero or to flush subnormals, and engines do the latter. The bits
//! of a reduction must not depend on it, so the [`Reducer`](crate::Reducer) holds a
//! [`DefaultFloatEnvironment`] while a floating-point kernel runs. The one invariant that matters: when it is
//! dropped, the thread's control bits are what they were. The register is written only where it differs from
//! the default, as writing it is much slower than reading it.

#![allow(unsafe_code)]

use std::marker::PhantomData;

/// While this lives, the thread rounds to nearest even, keeps subnormals and traps nothing.
pub(crate) struct DefaultFloatEnvironment {
    /// The control register as the caller had it, if that was not the default.
    caller: Option<control::Register>,
    /// The register belongs to a thread: the guard stays on it.
    _stays_on_its_thread: PhantomData<*const ()>,
}

impl DefaultFloatEnvironment {
    /// Sets the default modes for this thread.
    #[inline(always)]
    pub(crate) fn enter() -> DefaultFloatEnvironment {
        let found = control::read();
        let caller = (!control::is_default(found)).then(|| {
            control::write(control::with_default_modes(found));
            found
        });
        DefaultFloatEnvironment { caller, _stays_on_its_thread: PhantomData }
    }
}

impl Drop for DefaultFloatEnvironment {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(caller) = self.caller {
            control::write(control::with_modes_of(caller, control::read()));
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod control {
    //! MXCSR: six sticky exception flags below ten bits of modes.

    use std::arch::asm;

    pub(super) type Register = u32;

    const STICKY: Register = 0x3f;
    /// All exceptions masked, round to nearest even, no flush-to-zero, no denormals-are-zero.
    const DEFAULT: Register = 0x1f80;

    #[inline(always)]
    pub(super) fn read() -> Register {
        let mut register: Register = 0;
        // SAFETY: stmxcsr stores four bytes to the pointer, which is to a local of four bytes. Like `write`,
        // it is not `nomem`, so loads of a kernel's inputs and stores of its results stay between the two.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut register, options(nostack, preserves_flags)) };
        register
    }

    #[inline(always)]
    pub(super) fn write(register: Register) {
        // SAFETY: ldmxcsr loads four bytes from a local of four bytes. The value is one that `read` gave
        // with modes exchanged, so no reserved bit is set. No code of ours computes with floats while other
        // modes than the caller's or the default ones are in force.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const register, options(nostack, preserves_flags)) };
    }

    #[inline(always)]
    pub(super) fn is_default(register: Register) -> bool {
        register & !STICKY == DEFAULT
    }

    #[inline(always)]
    pub(super) fn with_default_modes(register: Register) -> Register {
        DEFAULT | (register & STICKY)
    }

    /// The modes of `caller` beside the sticky flags of `now`.
    #[inline(always)]
    pub(super) fn with_modes_of(caller: Register, now: Register) -> Register {
        (caller & !STICKY) | (now & STICKY)
    }
}

#[cfg(target_arch = "aarch64")]
mod control {
    //! FPCR: modes only, zero by default; the sticky flags are in another register.

    use std::arch::asm;

    pub(super) type Register = u64;

    #[inline(always)]
    pub(super) fn read() -> Register {
        let register: Register;
        // SAFETY: reads a register that every thread may read.
        unsafe { asm!("mrs {}, fpcr", out(reg) register, options(nostack, preserves_flags)) };
        register
    }

    #[inline(always)]
    pub(super) fn write(register: Register) {
        // SAFETY: the value is zero or one that `read` gave, so the processor knows all its bits. It is not
        // `nomem`, so loads of a kernel's inputs and stores of its results stay between two writes.
        unsafe { asm!("msr fpcr, {}", in(reg) register, options(nostack, preserves_flags)) };
    }

    #[inline(always)]
    pub(super) fn is_default(register: Register) -> bool {
        register == 0
    }

    #[inline(always)]
    pub(super) fn with_default_modes(_register: Register) -> Register {
        0
    }

    #[inline(always)]
    pub(super) fn with_modes_of(caller: Register, _now: Register) -> Register {
        caller
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod control {
    //! An architecture without a known control register: nothing is touched.

    pub(super) type Register = u8;

    pub(super) fn read() -> Register {
        0
    }

    pub(super) fn write(_register: Register) {}

    pub(super) fn is_default(_register: Register) -> bool {
        true
    }

    pub(super) fn with_default_modes(register: Register) -> Register {
        register
    }

    pub(super) fn with_modes_of(caller: Register, _now: Register) -> Register {
        caller
    }
}
