//! What differs between instruction sets, and the choice between them.
//!
//! Each file below has the vectors of one instruction set and the functions that switch it on; nothing else
//! in the crate mentions an intrinsic. The one invariant that matters: [`kernels`] hands out the kernels of an
//! instruction set only where [`Isa::is_available`] says so.

pub(crate) mod portable;

#[cfg(target_arch = "aarch64")]
pub(crate) mod aarch64;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86_64;

use std::sync::OnceLock;

use crate::dtype::DType;
use crate::generic::instruction_set::{self, Copy, InstructionSet, Kernel};
use crate::isa::Isa;
use crate::op::ReduceOp;

/// All kernels of one instruction set.
pub(crate) struct Kernels {
    /// The instruction set that they are of.
    pub(crate) isa: Isa,
    /// The reduction of a type with an operation, if it is defined.
    pub(crate) reduction: fn(DType, ReduceOp) -> Option<Kernel>,
    /// A copy with ordinary stores.
    pub(crate) copy: Copy,
    /// A copy past the caches that ends with its own fence.
    pub(crate) copy_streaming: Copy,
}

impl Kernels {
    fn of<I: InstructionSet>(isa: Isa) -> Kernels {
        Kernels {
            isa,
            reduction: instruction_set::kernel::<I>,
            copy: I::copy,
            copy_streaming: I::copy_streaming,
        }
    }
}

/// The kernels of `isa`; the portable ones where the machine lacks it.
pub(crate) fn kernels(isa: Isa) -> Kernels {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if isa.is_available() => Kernels::of::<x86_64::avx512::Avx512>(isa),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.is_available() => Kernels::of::<x86_64::avx2::Avx2>(isa),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon if isa.is_available() => Kernels::of::<aarch64::neon::Neon>(isa),
        _ => Kernels::of::<portable::Portable>(Isa::Portable),
    }
}

/// The kernels of the selected instruction set, or of the best one where the selection is an error. Looked up once.
#[inline]
pub(crate) fn selected() -> &'static Kernels {
    static SELECTED: OnceLock<Kernels> = OnceLock::new();
    SELECTED.get_or_init(|| kernels(Isa::selected().unwrap_or_else(|_| Isa::best())))
}

/// Asks the processor for the cache line at `pointer`, to be written soon.
#[inline(always)]
pub(crate) fn prefetch_line_for_write(pointer: *const u8) {
    #[cfg(target_arch = "x86_64")]
    x86_64::prefetch_line_for_write(pointer);
    #[cfg(target_arch = "aarch64")]
    aarch64::prefetch_line_for_write(pointer);
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = pointer;
}

/// See [`crate::is_amd`].
pub(crate) fn is_amd() -> bool {
    #[cfg(target_arch = "x86_64")]
    return x86_64::is_amd();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// See [`crate::asking_ahead_pays`].
#[inline]
pub(crate) fn asking_ahead_pays() -> bool {
    #[cfg(target_arch = "x86_64")]
    return x86_64::asking_ahead_pays();
    #[cfg(not(target_arch = "x86_64"))]
    false
}
