// All-reduce by packets (LL): for the shortest messages. No meeting: each word that a rank gets says itself that it has come.
//
// A word is 8 bytes: 4 of the message and the number of the call. It is stored and loaded whole, relaxed at system scope, so
// whoever finds the number has the data with it, and nothing else needs to be ordered. (PTX: morally strong accesses of one
// size to one place are no race, and one of 8 bytes is a single memory operation. Two words make the packet of 16 bytes that
// other LL protocols have.) Lanes of a warp write neighbouring words: whole sectors go over the link.
//
// The ranks of a node each reduce a slice: they push their inputs' slices to one another, reduce, and push the results. Two
// nodes: between reducing and pushing, ranks of the same place on the two nodes exchange what they have, by a thread of the
// host on each side. All ranks launch the same kernel with the same blocks and elements; a thread has the same words of every
// slice from beginning to end, so threads wait for other ranks' threads only, and the output may be the input.
//
// Slots are used in turn (by the number's last bit). A word is overwritten two calls later. By then it has been read: what the
// writer waited for in between was sent after its reader's call had ended.
#pragma once

// A word of every rank's message. All are asked for before any is waited for.
template <u32 most, bool is_across>
DEVICE bool gather_words(const PacketCall& call, u32 number, u32 own, u64 index, u32 (&words)[most]) {
#pragma unroll 1
    for (;;) {
        bool is_missing = false;
#pragma unroll
        for (u32 rank = 0; rank < most; ++rank) {
            words[rank] = own;
            if (rank < call.ranks && rank != call.local) {
                const u64 found = load_word(slot_of(call, number, OF_INPUTS, rank, call.local) + index);
                is_missing |= number_of(found) != number;
                words[rank] = data_of(found);
            }
        }
        if (!is_missing) {
            return true;
        }
#pragma unroll 1
        for (u32 rank = 0; rank < call.ranks; ++rank) {
            if (rank != call.local) {
                const u64* word = slot_of(call, number, OF_INPUTS, rank, call.local) + index;
                if (!wait_for_word<is_across>(call, word, number, call.node, rank, index)) {
                    return false;
                }
            }
        }
    }
}

// The sum of a node's words; `before` comes first, if it is to count.
template <class Type, u32 most>
DEVICE Accumulated<Type> sum_of_words(const PacketCall& call, const u32 (&words)[most], u32 own, bool has_before,
                                      const Accumulated<Type>& before) {
    const bool is_rounded = call.sum == IN_16_BITS;
    Accumulated<Type> sum = before;
    bool has_begun = has_before;
#pragma unroll
    for (u32 rank = 0; rank < most; ++rank) {
        if (rank < call.ranks && !(is_rounded && rank == call.local)) {
            accumulate_word<Type>(sum, widened_word<Type>(words[rank]), has_begun, is_rounded);
            has_begun = true;
        }
    }
    if (is_rounded) {
        accumulate_word<Type>(sum, widened_word<Type>(own), has_begun, true);
    }
    return sum;
}

// What is put of a word: an f32 for each element, or, where it is rounded already, the word as it is.
template <class Type>
DEVICE bool is_put_wide(const PacketCall& call, u32 node) {
    return call.sum == BY_NODE || (call.sum == IN_RANK_ORDER && node == 0);
}

template <class Type>
DEVICE void put(const PacketCall& call, u32 number, u64 index, const Accumulated<Type>& sum) {
    u64* words = call.outgoing + number % 2 * call.put;
    if (is_put_wide<Type>(call, call.node)) {
#pragma unroll
        for (u32 i = 0; i < Type::PER_WORD; ++i) {
            store_word(words + index * Type::PER_WORD + i, packet_of(bits_of(sum.of[i]), number));
        }
    } else {
        store_word(words + index, packet_of(rounded_word<Type>(sum), number));
    }
}

// What the other node's rank of the same place has put.
template <class Type>
DEVICE bool fetch(const PacketCall& call, u32 number, u64 index, Accumulated<Type>& sum) {
    const u32 other = 1 - call.node;
    const bool is_wide = is_put_wide<Type>(call, other);
    const u32 count = is_wide ? (u32)Type::PER_WORD : 1;
    const u64* words = call.incoming + number % 2 * call.put + index * count;
    u32 data[Type::PER_WORD];
#pragma unroll
    for (u32 i = 0; i < Type::PER_WORD; ++i) {
        data[i] = 0;
        if (i < count) {
            u64 found = load_word(words + i);
            if (number_of(found) != number) {
                if (!wait_for_word<true>(call, words + i, number, other, call.local, index * count + i)) {
                    return false;
                }
                found = load_word(words + i);
            }
            data[i] = data_of(found);
        }
    }
    if (is_wide) {
#pragma unroll
        for (u32 i = 0; i < Type::PER_WORD; ++i) {
            sum.of[i] = float_of(data[i]);
        }
    } else {
        sum = widened_word<Type>(data[0]);
    }
    return true;
}

// With every call one more word of each slot gets its number, whether the message reaches it or not. So no word keeps an old
// number until, after 2^32 calls, it comes up again. One thread of the rank does this, and rings for the words to be put.
template <class Type, bool is_across>
DEVICE void refresh(const PacketCall& call, u32 number) {
    PacketProgress* progress = call.progress;
    const u32 at = progress->refreshed;
    if (number % 2 == 1) {
        progress->refreshed = at + 1 == call.slot ? 0 : at + 1;
    }
    const u64 word = packet_of(0, number);
    const u64 own = slice_of<Type>(call, call.local).length;
#pragma unroll 1
    for (u32 peer = 0; peer < call.ranks; ++peer) {
        if (peer != call.local) {
            if (at >= slice_of<Type>(call, peer).length) {
                store_word(slot_of(call, number, OF_INPUTS, call.local, peer) + at, word);
            }
            if (at >= own) {
                store_word(slot_of(call, number, OF_RESULTS, call.local, peer) + at, word);
            }
        }
    }
    if (is_across) {
        const u64 sent = own * (is_put_wide<Type>(call, call.node) ? (u32)Type::PER_WORD : 1);
#pragma unroll 1
        for (u64 i = at; i < call.put; i += call.slot) {
            if (i >= sent) {
                store_word(call.outgoing + number % 2 * call.put + i, word);
            }
        }
        store_word(call.doorbell + number % 2, packet_of((u32)sent, number));
    }
}

// Gives every peer the words of its slice.
template <class Type>
DEVICE void push_inputs(const PacketCall& call, u32 number, u64 index) {
#pragma unroll 1
    for (u32 peer = 0; peer < call.ranks; ++peer) {
        const Slice slice = slice_of<Type>(call, peer);
        if (peer != call.local && index < slice.length) {
            const u32 word = word_of<Type>(in_global(call.input), slice.begin + index, call.elements);
            store_word(slot_of(call, number, OF_INPUTS, call.local, peer) + index, packet_of(word, number));
        }
    }
}

// A word of the own slice is reduced: into the own output, and to the peers.
template <class Type>
DEVICE void push_result(const PacketCall& call, u32 number, u64 at, u64 index, const Accumulated<Type>& sum) {
    const u32 word = rounded_word<Type>(sum);
    set_word<Type>(in_global(call.output), at, call.elements, word);
#pragma unroll 1
    for (u32 peer = 0; peer < call.ranks; ++peer) {
        if (peer != call.local) {
            store_word(slot_of(call, number, OF_RESULTS, call.local, peer) + index, packet_of(word, number));
        }
    }
}

// Reduces the own slice and pushes it. Between two nodes there are two passes: what this node has is put in the first, and what
// the other has put is fetched in the last. In rank order the second node needs one only: it goes on where the first ended,
// and puts the result.
template <class Type, u32 most, bool is_across>
DEVICE bool reduce_slice(const PacketCall& call, u32 number, u64 first, u64 stride) {
    const Slice slice = slice_of<Type>(call, call.local);
    const bool is_in_order = call.sum == IN_RANK_ORDER;
    const bool goes_on = is_across && is_in_order && call.node == 1;
    const u32 last = is_across && !goes_on ? 1 : 0;
#pragma unroll 1
    for (u32 pass = 0; pass <= last; ++pass) {
#pragma unroll 1
        for (u64 index = first; index < slice.length; index += stride) {
            Accumulated<Type> other{};
            if (is_across && pass == last && !fetch<Type>(call, number, index, other)) {
                return false;
            }
            Accumulated<Type> sum = other;
            // In the last pass once more, where it is needed: the words are where they were.
            if (!is_across || !is_in_order || pass == 0) {
                u32 words[most];
                const u32 own = word_of<Type>(in_global(call.input), slice.begin + index, call.elements);
                if (!gather_words<most, is_across>(call, number, own, index, words)) {
                    return false;
                }
                sum = sum_of_words<Type, most>(call, words, own, goes_on, other);
            }
            if (is_across && pass == 0) {
                put<Type>(call, number, index, sum);
            }
            if (is_across && !is_in_order && pass == last) {
                // Of two numbers, so in either order.
                accumulate_word<Type>(sum, other, true, false);
            }
            if (pass == last) {
                push_result<Type>(call, number, slice.begin + index, index, sum);
            }
        }
    }
    return true;
}

// Takes over a word of each peer's slice, reduced.
template <class Type, u32 most, bool is_across>
DEVICE bool collect_results(const PacketCall& call, u32 number, u64 index) {
    u32 words[most];
#pragma unroll 1
    for (;;) {
        bool is_missing = false;
#pragma unroll
        for (u32 rank = 0; rank < most; ++rank) {
            words[rank] = 0;
            if (rank < call.ranks && rank != call.local && index < slice_of<Type>(call, rank).length) {
                const u64 found = load_word(slot_of(call, number, OF_RESULTS, rank, call.local) + index);
                is_missing |= number_of(found) != number;
                words[rank] = data_of(found);
            }
        }
        if (!is_missing) {
            break;
        }
#pragma unroll 1
        for (u32 rank = 0; rank < call.ranks; ++rank) {
            if (rank != call.local && index < slice_of<Type>(call, rank).length) {
                const u64* word = slot_of(call, number, OF_RESULTS, rank, call.local) + index;
                if (!wait_for_word<is_across>(call, word, number, call.node, rank, index)) {
                    return false;
                }
            }
        }
    }
#pragma unroll
    for (u32 rank = 0; rank < most; ++rank) {
        const Slice slice = slice_of<Type>(call, rank);
        if (rank < call.ranks && rank != call.local && index < slice.length) {
            set_word<Type>(in_global(call.output), slice.begin + index, call.elements, words[rank]);
        }
    }
    return true;
}

// The all-reduce between `call.ranks` ranks of a node, `most` at most, and those of a second node.
template <class Type, u32 most, bool is_across>
DEVICE void packet_all_reduce(const PacketCall& call) {
    const u32 number = number_of_call(call.progress);
    const u64 first = (u64)block_index() * BLOCK_THREADS + thread_index();
    const u64 stride = (u64)block_count() * BLOCK_THREADS;
    if (first == 0) {
        refresh<Type, is_across>(call, number);
    }
#pragma unroll 1
    for (u64 index = first; index < call.longest; index += stride) {
        push_inputs<Type>(call, number, index);
    }
    if (!reduce_slice<Type, most, is_across>(call, number, first, stride)) {
        return;
    }
#pragma unroll 1
    for (u64 index = first; index < call.longest; index += stride) {
        if (!collect_results<Type, most, is_across>(call, number, index)) {
            return;
        }
    }
}

// Between the ranks of one node.
template <class Type, u32 most>
DEVICE void packet_near(const PacketCall& call) {
    packet_all_reduce<Type, most, false>(call);
}

// Between two nodes of as many ranks each.
template <class Type, u32 most>
DEVICE void packet_far(const PacketCall& call) {
    packet_all_reduce<Type, most, true>(call);
}

// The kernels by name, for so many ranks of a node at most: `packet_near_f32_4`, `packet_far_bf16_8`.
#define PACKET_ENTRY(algorithm, type, Type, most) \
    KERNEL algorithm##_##type##_##most(BY_VALUE PacketCall call) { algorithm<Type, most>(call); }

#define PACKET_ENTRIES_OF_TYPE(algorithm, type, Type) \
    PACKET_ENTRY(algorithm, type, Type, 2)            \
    PACKET_ENTRY(algorithm, type, Type, 4)            \
    PACKET_ENTRY(algorithm, type, Type, 8)

#define PACKET_ENTRIES(algorithm)                  \
    PACKET_ENTRIES_OF_TYPE(algorithm, f32, F32)    \
    PACKET_ENTRIES_OF_TYPE(algorithm, f16, F16)    \
    PACKET_ENTRIES_OF_TYPE(algorithm, bf16, BF16)

#define PACKET_ENTRIES_OF_ONE(algorithm)  \
    PACKET_ENTRY(algorithm, f32, F32, 1)  \
    PACKET_ENTRY(algorithm, f16, F16, 1)  \
    PACKET_ENTRY(algorithm, bf16, BF16, 1)
