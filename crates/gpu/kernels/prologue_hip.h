// AMD's side of the contract, by the compiler's own words: no header of ROCm is used.
#pragma once

#define DEVICE static __attribute__((device, always_inline)) inline
#define DEVICE_MEMBER static __attribute__((device, always_inline)) inline
#define DEVICE_METHOD __attribute__((device, always_inline)) inline
#define KERNEL extern "C" __attribute__((global, amdgpu_flat_work_group_size(THREADS, THREADS))) void
#define BY_VALUE const

#ifndef THREADS
#define THREADS 512
#endif
enum : u32 { BLOCK_THREADS = THREADS };

DEVICE u32 thread_index() { return __builtin_amdgcn_workitem_id_x(); }
DEVICE u32 block_index() { return __builtin_amdgcn_workgroup_id_x(); }
DEVICE u32 block_count() { return __builtin_amdgcn_grid_size_x() / BLOCK_THREADS; }
DEVICE u32 block_threads() { return BLOCK_THREADS; }

DEVICE void block_sync() {
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
    __builtin_amdgcn_s_barrier();
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
}

DEVICE bool block_any(bool mine) {
    static __attribute__((shared)) u32 said;
    if (thread_index() == 0) {
        said = 0;
    }
    block_sync();
    if (mine) {
        __scoped_atomic_store_n(&said, 1u, __ATOMIC_RELAXED, __MEMORY_SCOPE_WRKGRP);
    }
    block_sync();
    const bool any = said != 0;
    // The word may be wanted again.
    block_sync();
    return any;
}

// System scope: what the device's caches hold back is written to memory before, or forgotten after.
DEVICE void store_release(u32* word, u32 value) {
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "");
    // For the write-back that the fence begins. The compiler's own wait is left out where it knows of no load or store that is
    // still under way, since it does not count the write-back as one.
    __builtin_amdgcn_s_waitcnt(0x0f70);
    __scoped_atomic_store_n(word, value, __ATOMIC_RELAXED, __MEMORY_SCOPE_SYSTEM);
}

DEVICE u32 load_acquire(const u32* word) {
    return __scoped_atomic_load_n(word, __ATOMIC_ACQUIRE, __MEMORY_SCOPE_SYSTEM);
}

// A word that is its own flag: whole, at system scope, and nothing is ordered by it.
DEVICE void store_word(u64* word, u64 value) {
    __scoped_atomic_store_n(word, value, __ATOMIC_RELAXED, __MEMORY_SCOPE_SYSTEM);
}

DEVICE u64 load_word(const u64* word) {
    return __scoped_atomic_load_n(word, __ATOMIC_RELAXED, __MEMORY_SCOPE_SYSTEM);
}

// Counts one more of this device's blocks; returns how many came before. Who comes last sees what all did before they came.
DEVICE u32 arrive(u32* count) {
    return __scoped_atomic_fetch_add(count, 1u, __ATOMIC_ACQ_REL, __MEMORY_SCOPE_DEVICE);
}

DEVICE bool claim(u32* word) {
    u32 before = 0;
    return __scoped_atomic_compare_exchange_n(word, &before, 1u, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED,
                                              __MEMORY_SCOPE_SYSTEM);
}

// Of a counter that runs at the same speed whatever the device's own clock does: 100 MHz.
DEVICE u64 ticks() { return __builtin_readsteadycounter(); }

// The compiler cannot be told: such loads find out for themselves where an address lies.
template <class T>
DEVICE T* in_global(T* address) {
    return address;
}

// What is held while more is loaded: word by word. Packs that are copied as wholes the compiler keeps in the thread's own memory.
DEVICE Pack held(const Pack& pack) { return Pack{{pack.words[0], pack.words[1], pack.words[2], pack.words[3]}}; }
DEVICE u16 held(u16 unit) { return unit; }

DEVICE u32 bits_of(float value) { return __builtin_bit_cast(u32, value); }
DEVICE float float_of(u32 bits) { return __builtin_bit_cast(float, bits); }

// Compiled with -ffp-contract=off.
DEVICE float add(float left, float right) { return left + right; }

struct BlockWords {
    float of[2][BLOCK_THREADS / 8];
};
DEVICE BlockWords& block_words() {
    static __attribute__((shared)) BlockWords words;
    return words;
}

// No fast arithmetic is on: a division or a root is rounded to nearest even.
DEVICE float mul(float left, float right) { return left * right; }
DEVICE float reciprocal(float value) { return 1.0f / value; }
DEVICE float square_root(float value) { return __builtin_sqrtf(value); }

// The pattern: all lanes of 32, none set, one flipped.
template <u32 bit>
DEVICE u32 shuffle_xor(u32 mine) {
    return (u32)__builtin_amdgcn_ds_swizzle((int)mine, bit << 10 | 0x1f);
}

DEVICE float widen_f16(u16 bits) { return (float)__builtin_bit_cast(_Float16, bits); }

// To nearest even; a NaN becomes the canonical quiet NaN.
DEVICE u16 narrow_f16(float value) { return value == value ? __builtin_bit_cast(u16, (_Float16)value) : 0x7e00; }

DEVICE u16 narrow_bf16(float value) {
    const u32 bits = bits_of(value);
    // Half of the last place that is kept, less one unless that place is odd.
    const u32 rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return value == value ? (u16)rounded : 0x7fc0;
}
