// Quick all-reduce: two-shot with what travels quantised; every rank writes into its peers' memory, nobody reads it.
//
// A block takes tile after tile: eight rows, a pack per thread each. Row by row a tile is divided between the ranks. First every rank
// sends each peer, encoded, what that peer is to reduce; then the ranks reduce what they were sent, in rank order, the own part as
// it was sent, too, and send the result, encoded again, to all. So what every rank decodes is the same, bit for bit.
//
// Each phase ends with the blocks of one index meeting over all ranks. The meetings are numbered by the tiles that a block
// has ever done, which it keeps in device memory: a captured graph may be replayed. That there is no meeting before a phase is
// because of the other phase: who has posted the results of tile n has read what it was sent for n, and who sends for
// tile n + 1 has read the results of n. For the same reason one word per peer and phase is enough.
#pragma once

enum : u32 { QUICK_BLOCKS = 1216, ROWS = 8, ROWS_AT_ONCE = 4, PHASES = 2 };

// A rank's memory, which all ranks have mapped: this, and behind it for each block and phase a slot per rank.
struct QuickSignal {
    // How many tiles block b has done. Read and written by that block alone.
    alignas(128) u32 tiles[QUICK_BLOCKS];
    // posted[f][b][p]: what peer p's block b has to send in phase f of tile number v is there. Written by the peer.
    alignas(128) u32 posted[PHASES][QUICK_BLOCKS][MAX_RANKS];
};
static_assert(sizeof(QuickSignal) == 82688, "the size that the host reserves");

// What a launch is told, by value. Its blocks are not more than its tiles.
struct QuickCall {
    const void* input;
    void* output;
    QuickSignal* signals[MAX_RANKS];
    u64 elements;
    u64 patience;  // ticks that a thread waits for a peer
    Overdue* overdue;
    u32 rank;
    u32 world;
};

// How a tile's rows are divided: each rank reduces as many as the others, or one more.
struct Split {
    u32 world;
    u32 most_rows;
    u32 inverse;  // of `world`, times 2^16

    DEVICE_MEMBER Split between(u32 world) { return Split{world, (ROWS + world - 1) / world, 65535 / world + 1}; }
    // `rank * ROWS / world`, which is small.
    DEVICE_METHOD u32 first_row(u32 rank) const { return rank * ROWS * inverse >> 16; }
    DEVICE_METHOD u32 rank_of(u32 row) const { return ((row + 1) * world - 1) / ROWS; }
};

// Where the row of a slot begins: at the same place whatever the codec, since codecs may follow one another.
DEVICE u8* row_in(QuickSignal* signal, u32 phase, u32 slot, u32 row, const Split& split) {
    const u32 before = ((block_index() * PHASES + phase) * split.world + slot) * split.most_rows + row;
    return reinterpret_cast<u8*>(in_global(signal + 1)) + (u64)before * (block_threads() * (u32)sizeof(Pack));
}

// Tells the host for whom this thread waited in vain. The first such thread of the rank is heard.
DEVICE void report_quick_overdue(const QuickCall& call, u32 phase, u32 peer, u32 expected, u32 found) {
    Overdue* overdue = call.overdue;
    if (!claim(&overdue->state)) {
        return;
    }
    overdue->rank = call.rank;
    overdue->block = block_index();
    overdue->peer = peer;
    overdue->expected = expected;
    overdue->found = found;
    overdue->flag = (phase * QUICK_BLOCKS + block_index()) * MAX_RANKS + peer;
    store_release(&overdue->state, 2);
}

// What this block sent in this phase of its tile is there; waits until so is what the peers send. False: end.
DEVICE bool exchange(const QuickCall& call, u32 phase, u32 tile) {
    block_sync();
    const u32 peer = thread_index();
    bool overdue = false;
    if (peer < call.world) {
        const u32 block = block_index();
        store_release(&in_global(call.signals[peer])->posted[phase][block][call.rank], tile);
        u32 found;
        overdue = !wait_for(&in_global(call.signals[call.rank])->posted[phase][block][peer], tile, call.patience, found);
        if (overdue) {
            report_quick_overdue(call, phase, peer, tile, found);
        }
    }
    return !block_any(overdue);
}

// A pack of one 16-bit type as one of another.
template <class From, class To>
struct Converted {
    DEVICE_MEMBER Pack of(const Pack& pack) {
        const Sums<From> values = widened<From>(pack);
        Sums<To> same;
#pragma unroll
        for (u32 i = 0; i < 8; ++i) {
            same.of[i] = values.of[i];
        }
        return rounded(same);
    }
};
template <class Type>
struct Converted<Type, Type> {
    DEVICE_MEMBER Pack of(const Pack& pack) { return pack; }
};

// Pack `index` of the message; zero behind its end.
template <class Given>
DEVICE Pack load_pack(const void* message, u64 index, u64 elements) {
    using Row = Message<Given>;
    if (Row::is_whole(index, elements)) {
        return Row::pack(message, index);
    }
    u64 halves[2] = {0, 0};
    const u64 begin = index * Row::PER_PACK;
#pragma unroll 1
    for (u64 i = begin; i < elements; ++i) {
        const u32 at = (u32)(i - begin);
        const u64 value = (u64)Row::element(message, i) << (16 * (at % 4));
        halves[0] |= at < 4 ? value : 0;
        halves[1] |= at < 4 ? 0 : value;
    }
    return Pack{{(u32)halves[0], (u32)(halves[0] >> 32), (u32)halves[1], (u32)(halves[1] >> 32)}};
}

// The same the other way; nothing behind the end is touched.
template <class Given>
DEVICE void store_pack(const Pack& pack, void* message, u64 index, u64 elements) {
    using Row = Message<Given>;
    if (Row::is_whole(index, elements)) {
        Row::pack(message, index) = pack;
        return;
    }
    const u64 halves[2] = {pack.words[0] | (u64)pack.words[1] << 32, pack.words[2] | (u64)pack.words[3] << 32};
    const u64 begin = index * Row::PER_PACK;
#pragma unroll 1
    for (u64 i = begin; i < elements; ++i) {
        const u32 at = (u32)(i - begin);
        Row::element(message, i) = (u16)((at < 4 ? halves[0] : halves[1]) >> (16 * (at % 4)));
    }
}

// Sends every rank the rows of the tile that it reduces.
template <class Codec, class Given>
DEVICE void send_parts(const QuickCall& call, const Split& split, u64 first, u32 rows) {
#pragma unroll 1
    for (u32 from = 0; from < rows; from += ROWS_AT_ONCE) {
        Pack packs[ROWS_AT_ONCE];
#pragma unroll
        for (u32 i = 0; i < ROWS_AT_ONCE; ++i) {
            packs[i] = load_pack<Given>(call.input, first + (u64)(from + i) * block_threads(), call.elements);
        }
#pragma unroll
        for (u32 i = 0; i < ROWS_AT_ONCE; ++i) {
            const u32 row = from + i;
            if (row < rows) {
                const u32 to = split.rank_of(row);
                const auto encoded = Codec::encode(Converted<Given, typename Codec::Type>::of(packs[i]));
                Codec::store(encoded, row_in(call.signals[to], 0, call.rank, row - split.first_row(to), split));
            }
        }
    }
}

// Reduces the own rows of the tile in rank order, and sends the result to all.
template <class Codec>
DEVICE void reduce_and_send(const QuickCall& call, const Split& split, u32 rows) {
    using Type = typename Codec::Type;
    const u32 begin = split.first_row(call.rank);
    const u32 end = split.first_row(call.rank + 1);
    const u32 own = rows < begin ? 0 : (rows < end ? rows : end) - begin;
    Sums<Type> sums[ROWS / 2];
#pragma unroll
    for (u32 row = 0; row < ROWS / 2; ++row) {
#pragma unroll
        for (u32 i = 0; i < 8; ++i) {
            // Whatever is added to it stays what it is.
            sums[row].of[i] = -0.0f;
        }
    }
#pragma unroll 1
    for (u32 rank = 0; rank < call.world; ++rank) {
#pragma unroll
        for (u32 row = 0; row < ROWS / 2; ++row) {
            if (row < own) {
                const Sums<Type> more = Codec::decode(row_in(call.signals[call.rank], 0, rank, row, split));
#pragma unroll
                for (u32 i = 0; i < 8; ++i) {
                    sums[row].of[i] = Codec::sum(sums[row].of[i], more.of[i]);
                }
            }
        }
    }
#pragma unroll
    for (u32 row = 0; row < ROWS / 2; ++row) {
        if (row < own) {
            const auto encoded = Codec::encode(rounded(sums[row]));
#pragma unroll 1
            for (u32 rank = 0; rank < call.world; ++rank) {
                Codec::store(encoded, row_in(call.signals[rank], 1, call.rank, row, split));
            }
        }
    }
}

// Takes the tile's rows from where the ranks that reduced them have sent them to.
template <class Codec, class Given>
DEVICE void collect(const QuickCall& call, const Split& split, u64 first, u32 rows) {
    QuickSignal* own = call.signals[call.rank];
#pragma unroll 1
    for (u32 from = 0; from < rows; from += ROWS_AT_ONCE) {
#pragma unroll
        for (u32 i = 0; i < ROWS_AT_ONCE; ++i) {
            const u32 row = from + i;
            if (row < rows) {
                const u32 by = split.rank_of(row);
                const Pack pack = rounded(Codec::decode(row_in(own, 1, by, row - split.first_row(by), split)));
                store_pack<Given>(Converted<typename Codec::Type, Given>::of(pack), call.output,
                                  first + (u64)row * block_threads(), call.elements);
            }
        }
    }
}

// May be in place: a tile is written after it has been read, by the same block, and no other rank reads it.
template <class Codec, class Given>
DEVICE void quick(const QuickCall& call) {
    QuickSignal* own = in_global(call.signals[call.rank]);
    const u32 threads = block_threads();
    const Split split = Split::between(call.world);
    const u64 packs = Message<Given>::packs(call.elements);
    u32 number = own->tiles[block_index()];
#pragma unroll 1
    for (u64 tile = (u64)block_index() * ROWS * threads; tile < packs; tile += (u64)block_count() * ROWS * threads) {
        ++number;
        // Of the last tile only what the message reaches.
        const u64 left = packs - tile;
        const u32 rows = left >= ROWS * threads ? (u32)ROWS : ((u32)left + threads - 1) / threads;
        const u64 first = tile + thread_index();
        send_parts<Codec, Given>(call, split, first, rows);
        if (!exchange(call, 0, number)) {
            return;
        }
        reduce_and_send<Codec>(call, split, rows);
        if (!exchange(call, 1, number)) {
            return;
        }
        collect<Codec, Given>(call, split, first, rows);
        if (thread_index() == 0) {
            own->tiles[block_index()] = number;
        }
    }
}

// `quick_int4_bf16_as_f16_wide`: bf16 that travels as f16, four bits, added in f32.
#define QUICK_ENTRY(name, bits, given, Given, Travels, suffix, arithmetic)       \
    KERNEL quick_##name##_##given##suffix(BY_VALUE QuickCall call) {             \
        quick<Quantised<Travels, bits, arithmetic>, Given>(call);                \
    }
#define QUICK_ENTRIES_OF_TYPE(name, bits, given, Given, Travels)      \
    QUICK_ENTRY(name, bits, given, Given, Travels, , NARROW)          \
    QUICK_ENTRY(name, bits, given, Given, Travels, _wide, WIDE)
#define QUICK_ENTRIES(name, bits)                                     \
    QUICK_ENTRIES_OF_TYPE(name, bits, f16, F16, F16)                  \
    QUICK_ENTRIES_OF_TYPE(name, bits, bf16, BF16, BF16)               \
    QUICK_ENTRIES_OF_TYPE(name, bits, bf16_as_f16, BF16, F16)
