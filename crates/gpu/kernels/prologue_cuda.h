// CUDA's side of the contract between the kernels and a target: who am I, meeting within the block, flags between devices,
// time, and conversions. The kernels use nothing of the target but this.
#pragma once

#define DEVICE static __device__ __forceinline__
#define DEVICE_MEMBER static __device__ __forceinline__
#define DEVICE_METHOD __device__ __forceinline__
#define KERNEL extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 1)
#define BY_VALUE const __grid_constant__

// Threads of a block: 512, unless the file that includes this says otherwise.
#ifndef THREADS
#define THREADS 512
#endif
enum : u32 { BLOCK_THREADS = THREADS };

DEVICE u32 thread_index() { return threadIdx.x; }
DEVICE u32 block_index() { return blockIdx.x; }
DEVICE u32 block_count() { return gridDim.x; }
// What the launch has; not more than BLOCK_THREADS.
DEVICE u32 block_threads() { return blockDim.x; }

// All threads of the block come here before any goes on; what each did before is seen by all after.
DEVICE void block_sync() { __syncthreads(); }

// The same, and tells every thread whether any of them said yes.
DEVICE bool block_any(bool mine) { return __syncthreads_or(mine) != 0; }

// System scope: the other side is another device. A release store publishes everything that this thread has seen, and so,
// after `block_sync`, everything that the block did; it pairs with an acquire load that finds its value.
DEVICE void store_release(u32* word, u32 value) {
    asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(word), "r"(value) : "memory");
}

DEVICE u32 load_acquire(const u32* word) {
    u32 value;
    asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(word) : "memory");
    return value;
}

// A word that is its own flag: whole, at system scope, and nothing is ordered by it.
DEVICE void store_word(u64* word, u64 value) {
    asm volatile("st.relaxed.sys.global.u64 [%0], %1;" ::"l"(word), "l"(value) : "memory");
}

DEVICE u64 load_word(const u64* word) {
    u64 value;
    asm volatile("ld.relaxed.sys.global.u64 %0, [%1];" : "=l"(value) : "l"(word) : "memory");
    return value;
}

// Counts one more of this device's blocks; returns how many came before. Who comes last sees what all did before they came.
DEVICE u32 arrive(u32* count) {
    u32 before;
    asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;" : "=r"(before) : "l"(count) : "memory");
    return before;
}

// Whether this thread is the one that changed the word from 0 to 1.
DEVICE bool claim(u32* word) {
    u32 before;
    asm volatile("atom.relaxed.sys.global.cas.b32 %0, [%1], 0, 1;" : "=r"(before) : "l"(word) : "memory");
    return before == 0;
}

// Nanoseconds.
DEVICE u64 ticks() {
    u64 now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    return now;
}

// The same address, known to lie in device memory and not in the block's own.
template <class T>
DEVICE T* in_global(T* address) {
    __builtin_assume(__isGlobal(address));
    return address;
}

// What is held while more is loaded: in registers, as it is.
template <class Unit>
DEVICE const Unit& held(const Unit& unit) {
    return unit;
}

DEVICE u32 bits_of(float value) { return __float_as_uint(value); }
DEVICE float float_of(u32 bits) { return __uint_as_float(bits); }

// One addition, rounded to nearest even, never fused with anything.
DEVICE float add(float left, float right) { return __fadd_rn(left, right); }

// Two rows of a word per eight threads, which all threads of the block have, and no other block.
struct BlockWords {
    float of[2][BLOCK_THREADS / 8];
};
DEVICE BlockWords& block_words() {
    static __shared__ BlockWords words;
    return words;
}

// One multiplication, one over a number, and a root, each rounded to nearest even.
DEVICE float mul(float left, float right) { return __fmul_rn(left, right); }
DEVICE float reciprocal(float value) { return __frcp_rn(value); }
DEVICE float square_root(float value) { return __fsqrt_rn(value); }

// What the thread has whose index within its eight differs in this bit; all threads of the block come here.
template <u32 bit>
DEVICE u32 shuffle_xor(u32 mine) {
    u32 theirs;
    asm volatile("shfl.sync.bfly.b32 %0, %1, %2, 0x1f, 0xffffffff;" : "=r"(theirs) : "r"(mine), "n"(bit));
    return theirs;
}

DEVICE float widen_f16(u16 bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

// To nearest even; a NaN becomes the canonical quiet NaN, which is not the one that the hardware makes.
DEVICE u16 narrow_f16(float value) {
    u16 bits;
    asm("{ .reg .pred nan; .reg .b16 some;\n\t"
        "cvt.rn.f16.f32 some, %1;\n\t"
        "setp.nan.f32 nan, %1, %1;\n\t"
        "selp.b16 %0, 0x7e00, some, nan; }"
        : "=h"(bits)
        : "f"(value));
    return bits;
}

DEVICE u16 narrow_bf16(float value) {
    u16 bits;
    asm("{ .reg .pred nan; .reg .b16 some;\n\t"
        "cvt.rn.bf16.f32 some, %1;\n\t"
        "setp.nan.f32 nan, %1, %1;\n\t"
        "selp.b16 %0, 0x7fc0, some, nan; }"
        : "=h"(bits)
        : "f"(value));
    return bits;
}
