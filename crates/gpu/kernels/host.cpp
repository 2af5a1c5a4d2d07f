// Runs the kernels on the host: for every rank's block as many threads as it has, all ranks at once, several launches one
// after the other. Ends with 0 if every result is that of a plain loop; ThreadSanitizer says the rest.
#include <stdio.h>

#include <memory>
#include <thread>
#include <vector>

#include "types.h"

#include "prologue_host.h"

#include "elements.h"
#include "meeting.h"
#include "all_reduce.h"

namespace {

constexpr u32 BLOCKS = 2;
constexpr u32 LAUNCHES = 3;
constexpr u64 PATIENCE = 20000000000u;

using Body = void (*)(const Call&);

// One launch of one rank: all its blocks' threads, from start to end.
void launch(Body body, const Call& call) {
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
    std::vector<Pack> input, output;
    // Signals, and scratch right behind them.
    std::unique_ptr<Signal[]> meta;
    Inputs inputs;
    Overdue overdue{};

    explicit Memory(u64 packs) : input(packs), output(packs), meta(new Signal[2 + packs * 16 / sizeof(Signal)]()) {}
    Element* elements(std::vector<Pack>& of) { return reinterpret_cast<Element*>(of.data()); }
};

template <class Type, u32 world>
int check(const char* name, Body body, u64 elements, bool in_place) {
    const u64 packs = Message<Type>::packs(elements);
    std::vector<Memory<Type>> ranks;
    for (u32 rank = 0; rank < world; ++rank) {
        ranks.emplace_back(packs);
    }
    auto run = [&](u32 rank) {
        Memory<Type>& own = ranks[rank];
        Call call{};
        for (u32 peer = 0; peer < world; ++peer) {
            own.inputs.of[peer] = ranks[peer].input.data();
            call.signals[peer] = ranks[peer].meta.get();
        }
        call.inputs = &own.inputs;
        call.output = in_place ? own.input.data() : own.output.data();
        call.elements = elements;
        call.patience = PATIENCE;
        call.overdue = &own.overdue;
        call.rank = rank;
        int wrong = 0;
        for (u32 round = 0; round < LAUNCHES; ++round) {
            for (u64 i = 0; i < elements; ++i) {
                own.elements(own.input)[i] = Type::narrow(value_of(rank, i, round));
            }
            launch(body, call);
            const auto* found = static_cast<const typename Type::Bits*>(call.output);
            for (u64 i = 0; i < elements; ++i) {
                float sum = Type::widen(Type::narrow(value_of(0, i, round)), 0);
                for (u32 peer = 1; peer < world; ++peer) {
                    sum += Type::widen(Type::narrow(value_of(peer, i, round)), 0);
                }
                wrong += found[i] != (typename Type::Bits)Type::narrow(sum);
            }
        }
        if (own.overdue.state != 0) {
            printf("%s: rank %u waited for rank %u in vain\n", name, rank, own.overdue.peer);
            wrong += 1;
        }
        return wrong;
    };
    std::vector<int> wrong(world);
    std::vector<std::thread> hosts;
    for (u32 rank = 0; rank < world; ++rank) {
        hosts.emplace_back([&, rank] { wrong[rank] = run(rank); });
    }
    int all = 0;
    for (u32 rank = 0; rank < world; ++rank) {
        hosts[rank].join();
        all += wrong[rank];
    }
    printf("%s of %llu elements, %u ranks: %d wrong\n", name, elements, world, all);
    return all;
}

template <class Type, u32 world>
int check_both(const char* one, const char* two) {
    // Two tiles per block, and an end within a pack.
    const u64 elements = 2 * BLOCKS * BLOCK_THREADS * Message<Type>::PER_PACK + 3;
    int wrong = 0;
    wrong += check<Type, world>(one, [](const Call& call) { one_shot<Type, world>(call); }, elements, false);
    wrong += check<Type, world>(two, [](const Call& call) { two_shot<Type, world>(call); }, elements, true);
    return wrong;
}

}  // namespace

int main() {
    int wrong = check_both<F32, 2>("one-shot f32", "two-shot f32");
    wrong += check_both<F16, 3>("one-shot f16", "two-shot f16");
    wrong += check_both<BF16, 5>("one-shot bf16", "two-shot bf16");
    return wrong == 0 ? 0 : 1;
}
