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
#include "halves.h"
#include "fused.h"
#include "codec.h"
#include "quick.h"

namespace {

constexpr u32 BLOCKS = 2;
constexpr u32 LAUNCHES = 3;
constexpr u64 PATIENCE = 20000000000u;

using Body = void (*)(const Call&);

// One launch of one rank: all its blocks' threads, from start to end.
template <class Run>
void launch(const Run& run) {
    std::vector<HostBlock> shared(BLOCKS);
    for (HostBlock& block : shared) {
        pthread_barrier_init(&block.barrier, nullptr, BLOCK_THREADS);
    }
    std::vector<std::thread> threads;
    for (u32 block = 0; block < BLOCKS; ++block) {
        for (u32 thread = 0; thread < BLOCK_THREADS; ++thread) {
            threads.emplace_back([=, &shared, &run] {
                here = HostThread{thread, block, BLOCKS, &shared[block]};
                run();
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

enum class What { ALL_REDUCE, REDUCE_SCATTER, ALL_GATHER };

// What element `index` of a rank's output has to be, of portions of so many elements.
template <class Type, u32 world>
u32 expected(What what, u32 rank, u64 index, u64 elements, u32 round) {
    if (what == What::ALL_GATHER) {
        return Type::narrow(value_of((u32)(index / elements), index % elements, round));
    }
    const u64 at = what == What::REDUCE_SCATTER ? rank * elements + index : index;
    float sum = Type::widen(Type::narrow(value_of(0, at, round)), 0);
    for (u32 peer = 1; peer < world; ++peer) {
        sum += Type::widen(Type::narrow(value_of(peer, at, round)), 0);
    }
    return Type::narrow(sum);
}

template <class Type, u32 world>
int check(const char* name, What what, Body body, u64 elements, bool in_place) {
    using Element = typename Type::Bits;
    const u64 given = what == What::REDUCE_SCATTER ? elements * world : elements;
    const u64 got = what == What::ALL_GATHER ? elements * world : elements;
    std::vector<Memory<Type>> ranks;
    for (u32 rank = 0; rank < world; ++rank) {
        ranks.emplace_back(Message<Type>::packs(elements * world));
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
        call.elements = what == What::ALL_GATHER ? elements * sizeof(Element) : elements;
        call.patience = PATIENCE;
        call.overdue = &own.overdue;
        call.rank = rank;
        int wrong = 0;
        for (u32 round = 0; round < LAUNCHES; ++round) {
            for (u64 i = 0; i < given; ++i) {
                own.elements(own.input)[i] = Type::narrow(value_of(rank, i, round));
            }
            launch([&] { body(call); });
            for (u64 i = 0; i < got; ++i) {
                const Element found = static_cast<const Element*>(call.output)[i];
                wrong += found != (Element)expected<Type, world>(what, rank, i, elements, round);
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
    printf("%s of %zu bytes per element, %u ranks: %d wrong\n", name, sizeof(Element), world, all);
    return judged(all);
}

template <class Type, u32 world>
int check_all() {
    // Two tiles per block, and for the all-reduces an end within a pack.
    const u64 whole = 2 * BLOCKS * BLOCK_THREADS * Message<Type>::PER_PACK;
    const Body one = [](const Call& call) { one_shot<Type, world>(call); };
    const Body two = [](const Call& call) { two_shot<Type, world>(call); };
    const Body scatter = [](const Call& call) { reduce_scatter<Type, world>(call); };
    const Body gather = [](const Call& call) { all_gather<world>(call); };
    return check<Type, world>("one-shot", What::ALL_REDUCE, one, whole + 3, false) +
           check<Type, world>("two-shot in place", What::ALL_REDUCE, two, whole + 3, true) +
           check<Type, world>("reduce-scatter", What::REDUCE_SCATTER, scatter, whole, false) +
           check<Type, world>("reduce-scatter by elements", What::REDUCE_SCATTER, scatter, 45, false) +
           check<Type, world>("all-gather", What::ALL_GATHER, gather, whole, false) +
           check<Type, world>("all-gather by elements", What::ALL_GATHER, gather, 45, false);
}

}  // namespace

#include "host_quick.h"

int main() {
    const int wrong = check_all<F32, 2>() + check_all<F16, 3>() + check_all<BF16, 5>() + check_quick_and_fused();
    return wrong == 0 ? 0 : 1;
}
