//! Structures that may grow: each begins with its own size, so that programs and libraries of different ages understand one another.
//!
//! An older program's structure is shorter: what it lacks counts as zero. A newer program's is longer: the rest must be zero, or
//! it asks for something that this library does not know, which is an error and never passed over.

#![allow(unsafe_code)]

use crate::boundary::{Result, refused};

/// No structure is longer: a larger number is one that was never set.
const LONGEST: usize = 4096;

/// # Safety
/// `repr(C)`; its first field is a `usize`; all zero bytes, and any bytes a C program may write there, are a value of it.
pub(crate) unsafe trait Versioned: Copy {
    /// Its size in the first version that had it.
    const FIRST: usize;
    /// Its name in the header.
    const NAME: &'static str;

    fn set_size(&mut self, size: usize);
}

/// Makes a structure versioned: its last field in the first version says how long that was.
macro_rules! versioned {
    ($structure:ident, $last:ident: $kind:ty) => {
        // SAFETY: `repr(C)` with `struct_size` first; integers, floats, pointers, enums that may hold anything, and functions or null.
        unsafe impl crate::versioned::Versioned for $structure {
            const FIRST: usize = std::mem::offset_of!($structure, $last) + size_of::<$kind>();
            const NAME: &'static str = stringify!($structure);

            fn set_size(&mut self, size: usize) {
                self.struct_size = size;
            }
        }
        // No padding at the end: what stands there in an older program must not be taken for a later field.
        const _: () = assert!(
            <$structure as crate::versioned::Versioned>::FIRST.is_multiple_of(align_of::<$structure>())
        );
    };
}
pub(crate) use versioned;

fn size_of_callers<T: Versioned>(operation: &'static str, pointer: *const T) -> Result<usize> {
    let name = T::NAME;
    if pointer.is_null() || !pointer.is_aligned() {
        return Err(refused(operation, format!("the {name} is null, or not aligned")));
    }
    // SAFETY: not null and aligned; the caller of both functions below vouches for a structure, which begins with its size.
    let size = unsafe { pointer.cast::<usize>().read() };
    if !(T::FIRST..=LONGEST).contains(&size) {
        let problem = format!(
            "struct_size of the {name} is {size}: set it to sizeof({name}), which is {}",
            size_of::<T>()
        );
        return Err(refused(operation, problem));
    }
    Ok(size)
}

/// A caller's structure.
///
/// # Safety
/// The pointer is null, or as many bytes may be read there as its first field says.
pub(crate) unsafe fn read<T: Versioned>(operation: &'static str, pointer: *const T) -> Result<T> {
    let size = size_of_callers(operation, pointer)?;
    let known = size.min(size_of::<T>());
    // SAFETY: the caller vouches for `size` bytes.
    let unknown = unsafe { std::slice::from_raw_parts(pointer.cast::<u8>().add(known), size - known) };
    if unknown.iter().any(|byte| *byte != 0) {
        let problem =
            format!("the {} asks for something that this version of the library does not know", T::NAME);
        return Err(refused(operation, problem));
    }
    // SAFETY: all zero bytes are a value of a versioned structure.
    let mut structure: T = unsafe { std::mem::zeroed() };
    // SAFETY: `known` bytes fit both.
    unsafe { std::ptr::copy_nonoverlapping(pointer.cast::<u8>(), (&raw mut structure).cast::<u8>(), known) };
    structure.set_size(size_of::<T>());
    Ok(structure)
}

/// Fill a caller's structure, as much of it as there is.
///
/// # Safety
/// The pointer is null, or as many bytes may be written there as its first field says.
pub(crate) unsafe fn write<T: Versioned>(
    operation: &'static str,
    pointer: *mut T,
    mut value: T,
) -> Result<()> {
    let size = size_of_callers(operation, pointer)?;
    let known = size.min(size_of::<T>());
    value.set_size(size);
    // SAFETY: the caller vouches for `size` bytes; `known` fit both.
    unsafe {
        pointer.cast::<u8>().write_bytes(0, size);
        std::ptr::copy_nonoverlapping((&raw const value).cast::<u8>(), pointer.cast::<u8>(), known);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(C)]
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct now {
        struct_size: usize,
        first: u64,
        later: u64,
    }
    versioned!(now, first: u64);

    #[repr(C)]
    struct newer {
        now: now,
        unknown: u64,
    }

    #[test]
    fn an_older_programs_structure_is_filled_up_with_zeros() {
        let older = [16u64, 5, 99];
        // SAFETY: as many bytes are there as it says.
        let read = unsafe { read::<now>("test", older.as_ptr().cast()) }.unwrap();
        assert_eq!((read.first, read.later), (5, 0));
        let mut older = [16u64, 0, 99];
        // SAFETY: as above.
        unsafe { write("test", older.as_mut_ptr().cast(), now { struct_size: 0, first: 1, later: 2 }) }
            .unwrap();
        assert_eq!(older, [16, 1, 99], "nothing is written beyond its end");
    }

    #[test]
    fn what_a_newer_program_asks_for_is_not_passed_over() {
        let size = size_of::<newer>();
        let mut newer = newer { now: now { struct_size: size, first: 5, later: 6 }, unknown: 0 };
        // SAFETY: as many bytes are there as it says.
        assert_eq!(unsafe { read::<now>("test", (&raw const newer).cast()) }.unwrap().later, 6);
        newer.unknown = 1;
        // SAFETY: as above.
        assert!(unsafe { read::<now>("test", (&raw const newer).cast()) }.is_err());
        newer.now.struct_size = 0;
        // SAFETY: nothing beyond the size is read.
        assert!(unsafe { read::<now>("test", (&raw const newer).cast()) }.is_err(), "it was never set");
    }
}
