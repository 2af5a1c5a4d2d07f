// What host and device have in common: the words in device memory and what a launch is told.
//
// Sizes and offsets here are mirrored by `layout.rs`, which checks them. Freestanding: no header of any vendor is used.
#pragma once

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;

enum : u32 { MAX_RANKS = 8 };
enum : u32 { MAX_BLOCKS = 36 };

// The words through which the blocks of one rank meet those of the others. Each rank has one in its own memory, which all
// ranks have mapped; what is reduced in between (`scratch`) begins right behind it.
struct Signal {
    // How often thread t of block b has met peer t. Read and written by that thread alone.
    alignas(128) u32 met[MAX_BLOCKS][MAX_RANKS];
    // posted[v % 2][b][p]: peer p's block b has come to meeting v. Written by the peer. Two words, used in turn: a peer that
    // has seen us at meeting v may go on and post v + 1 while we have not yet seen its v.
    alignas(128) u32 posted[2][MAX_BLOCKS][MAX_RANKS];
};
static_assert(sizeof(Signal) == 3456, "the size that callers reserve");

// Where each rank's input is, as seen from this rank. Rows of a table in device memory, so that a captured graph can be told
// later where its inputs are.
struct Inputs {
    const void* of[MAX_RANKS];
};

// Written by the first thread that waited in vain; read by the host.
struct Overdue {
    u32 state;     // 0: nothing happened, 1: being written, 2: written
    u32 rank;      // who waited
    u32 block;     // its block
    u32 peer;      // for whom
    u32 expected;  // the meeting's number
    u32 found;     // what the peer's word held
    u32 flag;      // the word's index in `posted`
};

// What a launch is told, by value.
struct Call {
    const Inputs* inputs;
    Signal* signals[MAX_RANKS];
    void* output;
    u64 elements;
    u64 patience;  // ticks that a thread waits for a peer
    Overdue* overdue;
    u32 rank;
};

// What one thread moves at a time.
struct alignas(16) Pack {
    u32 words[4];
};
