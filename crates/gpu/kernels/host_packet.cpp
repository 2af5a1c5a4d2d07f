// Runs the packet kernels on the host: for every rank's block as many threads as it has, all ranks at once, several launches one
// after the other, on one node and on two, with a thread for each rank that carries its packets to the other node. Ends with 0 if
// every result is that of a plain loop; ThreadSanitizer says the rest.
#include <stdio.h>

#include <memory>
#include <thread>
#include <vector>

#include "types.h"

#include "prologue_host.h"

#include "elements.h"
#include "packet_words.h"
#include "packet.h"

namespace {

constexpr u32 BLOCKS = 2;
constexpr u32 LAUNCHES = 5;
constexpr u64 PATIENCE = 20000000000u;

using Body = void (*)(const PacketCall&);

// One launch of one rank: all its blocks' threads, from start to end.
void launch(Body body, const PacketCall& call) {
    std::vector<HostBlock> shared(BLOCKS);
    for (HostBlock& block : shared) {
        pthread_barrier_init(&block.barrier, nullptr, BLOCK_THREADS);
    }
    std::vector<std::thread> threads;
    for (u32 block = 0; block < BLOCKS; ++block) {
        for (u32 thread = 0; thread < BLOCK_THREADS; ++thread) {
            threads.emplace_back([=, &shared, &call] {
                here = HostThread{thread, block, BLOCKS, &shared[block]};
                body(call);
            });
        }
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    for (HostBlock& block : shared) {
        pthread_barrier_destroy(&block.barrier);
    }
}

// The value of an element of a rank's input: another order of additions gives other bits.
float value_of(u32 rank, u64 index, u32 round) {
    const u32 mixed = (u32)(index * 2654435761u) ^ (rank * 40503u + round * 977u);
    return ((int)(mixed % 2001) - 1000) * (1.0f / (float)(1 << mixed % 11));
}

template <class Type>
struct Memory {
    using Element = typename Type::Bits;
    std::vector<Pack> message;
    std::vector<u64> scratch, far;
    PacketProgress progress{};
    Overdue overdue{};
    u64 put;

    Memory(u64 packs, u64 scratch_words, u64 put) : message(packs), scratch(scratch_words), far(4 + 4 * put), put(put) {
        progress.number = 0xfffffffe;  // wraps around on the way
    }
    Element* elements() { return reinterpret_cast<Element*>(message.data()); }
    u64* doorbell() { return far.data(); }
    u64* outgoing() { return far.data() + 4; }
    u64* incoming() { return far.data() + 4 + 2 * put; }
};

u32 next(u32 number) { return number == 0xffffffffu ? 2 : number + 1; }

// Carries so many calls' packets; false if one did not come.
template <class Type>
bool carry(Memory<Type>& from, Memory<Type>& to) {
    u32 number = 0xfffffffe;
    auto wait = [&](const u64* word) {
        const u64 start = ticks();
        while (number_of(load_word(word)) != number) {
            if (ticks() - start > PATIENCE) {
                return false;
            }
        }
        return true;
    };
    for (u32 call = 0; call < LAUNCHES; ++call, number = next(number)) {
        if (!wait(from.doorbell() + number % 2)) {
            return false;
        }
        const u64 words = data_of(load_word(from.doorbell() + number % 2));
        for (u64 i = 0; i < words; ++i) {
            const u64 at = number % 2 * from.put + i;
            if (!wait(from.outgoing() + at)) {
                return false;
            }
            store_word(to.incoming() + at, load_word(from.outgoing() + at));
        }
    }
    return true;
}

template <class Type>
u32 expected(u32 world, u32 ranks, u32 sum, u64 index, u32 round) {
    auto value = [&](u32 rank) { return Type::widen(Type::narrow(value_of(rank, index, round)), 0); };
    float node[2] = {0, 0};
    for (u32 rank = 0; rank < world; ++rank) {
        float& total = sum == IN_RANK_ORDER ? node[0] : node[rank / ranks];
        total = rank == 0 || (sum != IN_RANK_ORDER && rank == ranks) ? value(rank) : total + value(rank);
    }
    return Type::narrow(sum == IN_RANK_ORDER || world == ranks ? node[0] : node[0] + node[1]);
}

// In place, always.
template <class Type>
int check(const char* name, Body body, u32 nodes, u32 ranks, u32 sum) {
    const u32 world = nodes * ranks;
    // Two words of each slice per thread, and an end within a word.
    const u64 longest = 2 * BLOCKS * BLOCK_THREADS;
    const u64 elements = longest * ranks * Type::PER_WORD - 1;
    const u64 slot = longest + 3;
    std::vector<std::unique_ptr<Memory<Type>>> all;
    for (u32 rank = 0; rank < world; ++rank) {
        all.emplace_back(new Memory<Type>(Message<Type>::packs(elements), 4 * ranks * slot, slot * Type::PER_WORD));
    }
    auto run = [&](u32 rank) {
        Memory<Type>& own = *all[rank];
        PacketCall call{};
        call.input = call.output = own.message.data();
        call.patience = PATIENCE;
        call.overdue = &own.overdue;
        call.progress = &own.progress;
        call.slot = slot;
        call.outgoing = own.outgoing();
        call.incoming = own.incoming();
        call.doorbell = own.doorbell();
        u32 never = 0;
        call.stop = &never;
        call.put = own.put;
        call.ranks = ranks;
        call.local = rank % ranks;
        call.node = rank / ranks;
        call.sum = sum;
        for (u32 local = 0; local < ranks; ++local) {
            call.scratch[local] = all[call.node * ranks + local]->scratch.data();
        }
        int wrong = 0;
        for (u32 round = 0; round < LAUNCHES; ++round) {
            // Every other one is short.
            call.elements = round % 2 == 0 ? elements : 5;
            call.longest = ((call.elements + Type::PER_WORD - 1) / Type::PER_WORD + ranks - 1) / ranks;
            for (u64 i = 0; i < call.elements; ++i) {
                own.elements()[i] = Type::narrow(value_of(rank, i, round));
            }
            launch(body, call);
            for (u64 i = 0; i < call.elements; ++i) {
                wrong += own.elements()[i] != (typename Type::Bits)expected<Type>(world, ranks, sum, i, round);
            }
            if (own.overdue.state != 0) {
                break;  // The next launch would wait as long.
            }
        }
        if (own.overdue.state != 0) {
            printf("%s: rank %u waited for rank %u in vain\n", name, rank, own.overdue.peer);
            wrong += 1;
        }
        return wrong;
    };
    std::vector<int> wrong(2 * world);
    std::vector<std::thread> hosts;
    for (u32 rank = 0; rank < world; ++rank) {
        hosts.emplace_back([&, rank] { wrong[rank] = run(rank); });
        if (nodes == 2) {
            hosts.emplace_back([&, rank] { wrong[world + rank] = !carry(*all[rank], *all[(rank + ranks) % world]); });
        }
    }
    for (std::thread& host : hosts) {
        host.join();
    }
    int sum_of_wrong = 0;
    for (int one : wrong) {
        sum_of_wrong += one;
    }
    printf("%s of %zu bytes per element, %u ranks: %d wrong\n", name, sizeof(typename Type::Bits), world, sum_of_wrong);
    return judged(sum_of_wrong);
}

template <class Type, u32 most>
int check_all(u32 ranks) {
    const Body near = [](const PacketCall& call) { packet_near<Type, most>(call); };
    const Body far = [](const PacketCall& call) { packet_far<Type, most>(call); };
    return check<Type>("packets on one node", near, 1, ranks, IN_RANK_ORDER) +
           check<Type>("packets between two nodes in rank order", far, 2, ranks, IN_RANK_ORDER) +
           check<Type>("packets between two nodes", far, 2, ranks, BY_NODE);
}

}  // namespace

int main() {
    const int wrong = check_all<F32, 2>(2) + check_all<F16, 4>(3) + check_all<BF16, 2>(2);
    return wrong == 0 ? 0 : 1;
}
