// The host's side of the contract, for ThreadSanitizer: a thread of the operating system for every thread of a device.
//
// What it shows holds for every target: which threads meet where, and that flags are released and acquired where data depends
// on them. What a target makes of its own prologue it does not show.
#pragma once

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DEVICE static inline
#define DEVICE_MEMBER static inline
#define DEVICE_METHOD inline

// What a check has found wrong. The first that fails is the last: a kernel that hangs takes its time at every one.
static inline int judged(int wrong) {
    if (wrong != 0) {
        fflush(stdout);
        exit(1);
    }
    return 0;
}

// As few as can meet eight peers.
enum : u32 { BLOCK_THREADS = 8 };

// Two rows of a word per eight threads.
struct BlockWords {
    float of[2][BLOCK_THREADS / 8];
};

// What the threads of a block have in common.
struct HostBlock {
    pthread_barrier_t barrier;
    bool says[BLOCK_THREADS];
    u32 shows[BLOCK_THREADS];
    BlockWords words;
};

// Who a thread is.
struct HostThread {
    u32 thread;
    u32 block;
    u32 blocks;
    HostBlock* shared;
};

static thread_local HostThread here;

DEVICE u32 thread_index() { return here.thread; }
DEVICE u32 block_index() { return here.block; }
DEVICE u32 block_count() { return here.blocks; }
DEVICE u32 block_threads() { return BLOCK_THREADS; }

DEVICE void block_sync() { pthread_barrier_wait(&here.shared->barrier); }

DEVICE bool block_any(bool mine) {
    here.shared->says[here.thread] = mine;
    block_sync();
    bool any = false;
    for (u32 thread = 0; thread < BLOCK_THREADS; ++thread) {
        any |= here.shared->says[thread];
    }
    block_sync();
    return any;
}

DEVICE void store_release(u32* word, u32 value) { __atomic_store_n(word, value, __ATOMIC_RELEASE); }
DEVICE u32 load_acquire(const u32* word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }

DEVICE void store_word(u64* word, u64 value) { __atomic_store_n(word, value, __ATOMIC_RELAXED); }
DEVICE u64 load_word(const u64* word) { return __atomic_load_n(word, __ATOMIC_RELAXED); }
DEVICE u32 arrive(u32* count) { return __atomic_fetch_add(count, 1, __ATOMIC_ACQ_REL); }

DEVICE bool claim(u32* word) {
    u32 before = 0;
    return __atomic_compare_exchange_n(word, &before, 1, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

// Nanoseconds. Who asks is waiting, and there are more threads than cores.
DEVICE u64 ticks() {
    sched_yield();
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (u64)now.tv_sec * 1000000000u + (u64)now.tv_nsec;
}

template <class T>
DEVICE T* in_global(T* address) {
    return address;
}

// What is held while more is loaded: in registers, as it is.
template <class Unit>
DEVICE const Unit& held(const Unit& unit) {
    return unit;
}

DEVICE u32 bits_of(float value) {
    u32 bits;
    memcpy(&bits, &value, 4);
    return bits;
}

DEVICE float float_of(u32 bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

// Compiled with -ffp-contract=off.
DEVICE float add(float left, float right) { return left + right; }

DEVICE BlockWords& block_words() { return here.shared->words; }

DEVICE float mul(float left, float right) { return left * right; }
DEVICE float reciprocal(float value) { return 1.0f / value; }
DEVICE float square_root(float value) { return __builtin_sqrtf(value); }

template <u32 bit>
DEVICE u32 shuffle_xor(u32 mine) {
    here.shared->shows[here.thread] = mine;
    block_sync();
    const u32 theirs = here.shared->shows[here.thread ^ bit];
    block_sync();
    return theirs;
}

DEVICE float widen_f16(u16 bits) {
    _Float16 value;
    memcpy(&value, &bits, 2);
    return (float)value;
}

DEVICE u16 narrow_f16(float value) {
    if (value != value) {
        return 0x7e00;
    }
    const _Float16 narrow = (_Float16)value;
    u16 bits;
    memcpy(&bits, &narrow, 2);
    return bits;
}

DEVICE u16 narrow_bf16(float value) {
    if (value != value) {
        return 0x7fc0;
    }
    const u32 bits = bits_of(value);
    // To nearest even: half of the last place that is kept, less one unless that place is odd.
    return (u16)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
