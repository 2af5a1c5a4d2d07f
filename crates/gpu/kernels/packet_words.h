// Packets: what a launch is told, the words that say themselves that they have come, and waiting for them.
#pragma once

// What a rank's calls have in common, in its own memory.
struct PacketProgress {
    u32 number;     // of the call under way; not 0. All threads read it, the last block to have done so counts it up
    u32 arrived;    // how many blocks have read it
    u32 refreshed;  // the word of each slot that is written next though the message does not reach it
    u32 reserved;
};

// How the sums are formed.
enum : u32 {
    IN_RANK_ORDER = 0,  // rank 0's, plus 1's, … over all nodes, in f32, rounded once
    BY_NODE = 1,        // the same within each node; then node 0's plus node 1's
    IN_16_BITS = 2,     // the peers', then the own, rounded after each addition; then the other node's
};

// What a launch is told, by value.
struct PacketCall {
    const void* input;
    void* output;
    u64 elements;
    u64 longest;   // words of the longest slice: all, divided by the ranks of a node
    u64 patience;  // ticks that a thread waits for a word
    Overdue* overdue;
    PacketProgress* progress;
    u64* scratch[MAX_RANKS];  // of the ranks of this node: [parity][of inputs, of results][sender but oneself][slot]
    u64 slot;                 // words of a slot
    // In the host's memory; none for one node.
    u64* outgoing;        // [parity][put]
    const u64* incoming;  // [parity][put]
    u64* doorbell;        // [parity]: the call, and how many words it puts
    const u32* stop;      // not 0 once nothing will come any more
    u64 put;              // words that can be put
    u32 ranks;            // of this node, and as many of the other
    u32 local;            // the rank within its node
    u32 node;
    u32 sum;
};

// Why nothing will come from the other node any more: its rank has left, after all that it had to say; or cannot be reached.
enum : u32 { PEER_LEFT = 1, LINK_LOST = 2 };

// How long a thread waits before it asks whether anything will come.
enum : u32 { STOP_EVERY = 10000 };

DEVICE u64 packet_of(u32 data, u32 number) { return (u64)number << 32 | data; }
DEVICE u32 data_of(u64 word) { return (u32)word; }
DEVICE u32 number_of(u64 word) { return (u32)(word >> 32); }

enum : u32 { OF_INPUTS = 0, OF_RESULTS = 1 };

// Where a rank's words to a peer lie.
DEVICE u64* slot_of(const PacketCall& call, u32 number, u32 what, u32 sender, u32 receiver) {
    const u32 index = sender - (sender > receiver ? 1 : 0);
    return call.scratch[receiver] + ((number % 2 * 2 + what) * (call.ranks - 1) + index) * call.slot;
}

// The number of this call. The last block to have read it counts it up for the next; no number is 0, which is what a word holds
// that was never written, and the last bit changes with every call.
DEVICE u32 number_of_call(PacketProgress* progress) {
    const u32 number = progress->number;
    block_sync();
    if (thread_index() == 0 && arrive(&progress->arrived) == block_count() - 1) {
        progress->arrived = 0;
        progress->number = number == 0xffffffffu ? 2 : number + 1;
    }
    return number;
}

// Tells the host for whom this thread waited in vain. The first such thread of the rank is heard.
DEVICE void report_missing(const PacketCall& call, u32 peer, u32 number, u64 found, u64 index) {
    Overdue* overdue = call.overdue;
    if (!claim(&overdue->state)) {
        return;
    }
    overdue->rank = call.node * call.ranks + call.local;
    overdue->block = block_index();
    overdue->peer = peer;
    overdue->expected = number;
    overdue->found = number_of(found);
    overdue->flag = (u32)index;
    store_release(&overdue->state, 2);
}

// Waits until the word from a rank of a node is of this call; false when patience ends first, or nothing will come any more. Asked for by whoever has
// looked and not found it.
template <bool is_across>
DEVICE bool wait_for_word(const PacketCall& call, const u64* word, u32 number, u32 node, u32 rank, u64 index) {
    const u64 start = ticks();
    u64 asked = start;
    u64 now = start;
    u64 found;
    do {
        found = load_word(word);
        if (number_of(found) == number) {
            return true;
        }
        now = ticks();
        if (is_across && now - asked > STOP_EVERY) {
            asked = now;
            // Acquired: what came before the end is there.
            const u32 stopped = load_acquire(call.stop);
            if (stopped == LINK_LOST || (stopped == PEER_LEFT && node != call.node)) {
                return number_of(load_word(word)) == number;
            }
        }
    } while (now - start < call.patience);
    report_missing(call, node * call.ranks + rank, number, found, index);
    return false;
}

// 4 bytes of a message: an element, or two. Of an odd number of halves the last has none above it.
template <class Type>
DEVICE u32 word_of(const void* message, u64 index, u64 elements) {
    if ((index + 1) * Type::PER_WORD <= elements) {
        return static_cast<const u32*>(message)[index];
    }
    return static_cast<const typename Type::Bits*>(message)[index * Type::PER_WORD];
}

template <class Type>
DEVICE void set_word(void* message, u64 index, u64 elements, u32 word) {
    if ((index + 1) * Type::PER_WORD <= elements) {
        static_cast<u32*>(message)[index] = word;
    } else {
        static_cast<typename Type::Bits*>(message)[index * Type::PER_WORD] = (typename Type::Bits)word;
    }
}

// A word's elements, accumulated.
template <class Type>
struct Accumulated {
    float of[Type::PER_WORD];
};

template <class Type>
DEVICE Accumulated<Type> widened_word(u32 word) {
    Accumulated<Type> sum;
#pragma unroll
    for (u32 i = 0; i < Type::PER_WORD; ++i) {
        sum.of[i] = Type::widen(word, i);
    }
    return sum;
}

template <class Type>
DEVICE u32 rounded_word(const Accumulated<Type>& sum) {
    u32 word = Type::narrow(sum.of[0]);
    if (Type::PER_WORD == 2) {
        word |= Type::narrow(sum.of[Type::PER_WORD - 1]) << 16;
    }
    return word;
}

// Adds to the sum, unless it is the first. Rounded to 16 bits after each addition where that is wanted: f32 is wide enough that
// rounding twice is rounding once.
template <class Type>
DEVICE void accumulate_word(Accumulated<Type>& sum, const Accumulated<Type>& more, bool has_begun, bool is_rounded) {
#pragma unroll
    for (u32 i = 0; i < Type::PER_WORD; ++i) {
        const float both = add(sum.of[i], more.of[i]);
        sum.of[i] = has_begun ? both : more.of[i];
    }
    if (is_rounded) {
        sum = widened_word<Type>(rounded_word<Type>(sum));
    }
}

// The words of a message that one of the ranks of a node reduces. The last ranks' may be fewer, or none.
struct Slice {
    u64 begin;
    u64 length;
};

template <class Type>
DEVICE Slice slice_of(const PacketCall& call, u32 rank) {
    const u64 words = (call.elements + Type::PER_WORD - 1) / Type::PER_WORD;
    const u64 begin = call.longest * rank < words ? call.longest * rank : words;
    const u64 rest = words - begin;
    return Slice{begin, rest < call.longest ? rest : call.longest};
}
