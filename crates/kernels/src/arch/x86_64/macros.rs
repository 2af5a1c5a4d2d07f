//! What the vectors of AVX2 and of AVX-512 have in common.
//!
//! Each macro defines a vector from the intrinsics named. The one invariant that matters is that of
//! [`Lanes`](crate::generic::vector::Lanes): a value exists only where its instruction set does.

/// A method with one intrinsic for a body.
macro_rules! by_intrinsic {
    ($name:ident, $intrinsic:expr) => {
        #[inline(always)]
        fn $name(self, other: Self) -> Self {
            // SAFETY: `self` was loaded, so the machine has the instruction set of the intrinsic, which
            // reads and writes no memory.
            Self(unsafe { $intrinsic(self.0, other.0) })
        }
    };
}

/// The loads and stores of a vector.
macro_rules! moves {
    ($element:ty, $register:ty, $load:expr, $store:expr) => {
        const ELEMENT_BYTES: usize = size_of::<$element>();
        const BYTES: usize = size_of::<$register>();

        #[inline(always)]
        unsafe fn load(pointer: *const u8) -> Self {
            // SAFETY: the caller vouches for the instruction set and for a register's worth of readable
            // bytes; the intrinsic demands no alignment.
            Self(unsafe { $load(pointer.cast()) })
        }

        #[inline(always)]
        unsafe fn store(self, pointer: *mut u8) {
            // SAFETY: `self` was loaded, so the instruction set is there; the caller vouches for a
            // register's worth of writable bytes; the intrinsic demands no alignment.
            unsafe { $store(pointer.cast(), self.0) };
        }
    };
}

/// A vector of f32 or f64.
macro_rules! float_vector {
    ($name:ident: $element:ty, $register:ty, $splat:ident, $add:ident, $multiply:ident, $divide:ident,
     $minimum:ident, $maximum:ident, $canonical:ident { $($moves:tt)* }) => {
        /// A register of floats.
        #[derive(Clone, Copy)]
        pub(crate) struct $name($register);

        impl Lanes for $name {
            by_intrinsic!(add, $add);
            by_intrinsic!(multiply, $multiply);
            by_intrinsic!(minimum, $minimum);
            by_intrinsic!(maximum, $maximum);

            #[inline(always)]
            fn divide(self, divisor: usize) -> Self {
                // SAFETY: `self` was loaded, so the machine has the instruction set of the intrinsics,
                // which touch no memory.
                Self(unsafe { $divide(self.0, $splat(divisor as $element)) })
            }

            #[inline(always)]
            fn canonical(self) -> Self {
                // SAFETY: as above.
                Self(unsafe { $canonical(self.0) })
            }
        }

        impl Vector for $name {
            $($moves)*
        }
    };
}

/// A vector of integers.
macro_rules! integer_vector {
    ($name:ident: $element:ty, $register:ty, $add:ident, $multiply:ident, $minimum:ident, $maximum:ident
     { $($moves:tt)* }) => {
        /// A register of integers.
        #[derive(Clone, Copy)]
        pub(crate) struct $name($register);

        impl Lanes for $name {
            by_intrinsic!(add, $add);
            by_intrinsic!(multiply, $multiply);
            by_intrinsic!(minimum, $minimum);
            by_intrinsic!(maximum, $maximum);

            #[inline(always)]
            fn divide(self, divisor: usize) -> Self {
                // There is no vector instruction for the division of integers.
                type Numbers = [$element; size_of::<$register>() / size_of::<$element>()];
                // SAFETY: a register and an array of the same size, both without any invalid bits.
                let mut numbers = unsafe { std::mem::transmute::<$register, Numbers>(self.0) };
                divide_each(&mut numbers, divisor);
                // SAFETY: as above.
                Self(unsafe { std::mem::transmute::<Numbers, $register>(numbers) })
            }

            #[inline(always)]
            fn canonical(self) -> Self {
                self
            }
        }

        impl Vector for $name {
            $($moves)*
        }
    };
}

/// The bitwise operations of a vector of integers.
macro_rules! bit_vector {
    ($($name:ident),+: $and:ident, $or:ident, $xor:ident) => {$(
        impl BitLanes for $name {
            by_intrinsic!(and, $and);
            by_intrinsic!(or, $or);
            by_intrinsic!(xor, $xor);
        }
    )+};
}

/// The functions that switch an instruction set on, and the names of its vectors.
macro_rules! switched_on {
    ($name:ident, $features:literal) => {
        impl InstructionSet for $name {
            type F32 = F32;
            type F64 = F64;
            type F16 = Halves<F32, Ieee>;
            type Bf16 = Halves<F32, Brain>;
            type I8 = I8;
            type I16 = I16;
            type I32 = I32;
            type I64 = I64;
            type U8 = U8;
            type U16 = U16;
            type U32 = U32;
            type U64 = U64;

            #[target_feature(enable = $features)]
            unsafe fn reduce<V, O>(destinations: &[*mut u8], sources: &[*const u8], count: usize)
            where
                V: Vector,
                O: Operation<V> + Operation<Block<V>>,
            {
                // SAFETY: the caller's promises are those of `reduce`, which is inlined here.
                unsafe { reduce::reduce::<V, O>(destinations, sources, count) };
            }

            #[target_feature(enable = $features)]
            unsafe fn copy(destination: *mut u8, source: *const u8, bytes: usize) {
                // SAFETY: the caller's promises are those of `copy`, which is inlined here.
                unsafe { copy::copy::<U8>(destination, source, bytes) };
            }

            #[target_feature(enable = $features)]
            unsafe fn copy_streaming(destination: *mut u8, source: *const u8, bytes: usize) {
                // SAFETY: the caller's promises are those of `copy_streaming`, which is inlined here.
                unsafe { copy::copy_streaming::<U8>(destination, source, bytes) };
            }
        }
    };
}

pub(super) use {bit_vector, by_intrinsic, float_vector, integer_vector, moves, switched_on};
