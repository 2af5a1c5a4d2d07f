// The quick all-reduce and the fused one on the host: a part of host.cpp, whose threads it uses.
#pragma once

namespace {

// Bytes of a rank's memory: a row per thread of a block, and slots as in quick.h.
u64 quick_bytes(u32 world) {
    return sizeof(QuickSignal) + (u64)BLOCKS * PHASES * world * Split::between(world).most_rows * BLOCK_THREADS * sizeof(Pack);
}

template <class Type>
struct QuickMemory {
    std::vector<Pack> message;
    std::unique_ptr<Pack[]> memory;
    Overdue overdue{};

    QuickMemory(u64 packs, u32 world) : message(packs), memory(new Pack[quick_bytes(world) / sizeof(Pack) + 8]()) {}
    QuickSignal* signal() { return reinterpret_cast<QuickSignal*>((reinterpret_cast<u64>(memory.get()) + 127) & ~127ull); }
    u16* elements() { return reinterpret_cast<u16*>(message.data()); }
};

// In place, several launches: every rank has the bits of rank 0, within `bound` of the exact sum.
template <class Codec, class Given, u32 world>
int check_quick(const char* name, float bound) {
    // Two tiles for each block; the last ends within a pack.
    const u64 elements = 2 * BLOCKS * ROWS * BLOCK_THREADS * 8 - 5;
    std::vector<QuickMemory<Given>> ranks;
    for (u32 rank = 0; rank < world; ++rank) {
        ranks.emplace_back(Message<Given>::packs(elements), world);
    }
    std::vector<std::thread> hosts;
    for (u32 rank = 0; rank < world; ++rank) {
        hosts.emplace_back([&, rank] {
            QuickMemory<Given>& own = ranks[rank];
            QuickCall call{};
            for (u32 peer = 0; peer < world; ++peer) {
                call.signals[peer] = ranks[peer].signal();
            }
            call.input = call.output = own.message.data();
            call.elements = elements;
            call.patience = PATIENCE;
            call.overdue = &own.overdue;
            call.rank = rank;
            call.world = world;
            for (u32 round = 0; round < LAUNCHES; ++round) {
                for (u64 i = 0; i < elements; ++i) {
                    own.elements()[i] = (u16)Given::narrow(value_of(rank, i, round));
                }
                launch([&] { quick<Codec, Given>(call); });
                if (own.overdue.state != 0) {
                    break;  // The next launch would wait as long.
                }
            }
        });
    }
    for (std::thread& host : hosts) {
        host.join();
    }
    int wrong = 0;
    for (u32 rank = 0; rank < world; ++rank) {
        for (u64 i = 0; i < elements; ++i) {
            float exact = 0;
            for (u32 peer = 0; peer < world; ++peer) {
                exact += Given::widen(Given::narrow(value_of(peer, i, LAUNCHES - 1)), 0);
            }
            const float off = Given::widen(ranks[rank].elements()[i], 0) - exact;
            wrong += ranks[rank].elements()[i] != ranks[0].elements()[i] || !(off <= bound && off >= -bound);
        }
        if (ranks[rank].overdue.state != 0) {
            printf("%s: rank %u waited for rank %u in vain\n", name, rank, ranks[rank].overdue.peer);
            wrong += 1;
        }
    }
    printf("%s, %u ranks: %d wrong\n", name, world, wrong);
    return judged(wrong);
}

// Twice in place, so that scratch and a block's own words are used again: every rank has the bits of rank 0, and the norm's square is one.
template <class Type, u32 world>
int check_fused(const char* name, void (*body)(const FusedCall&), bool in_place) {
    constexpr u64 ROW_PACKS = 11, COUNT = 2 * BLOCKS + 1;
    const u64 elements = COUNT * ROW_PACKS * Message<Type>::PER_PACK;
    std::vector<Memory<Type>> ranks;
    for (u32 rank = 0; rank < world; ++rank) {
        ranks.emplace_back(COUNT * ROW_PACKS);
    }
    std::vector<std::vector<Pack>> residuals(world, std::vector<Pack>(COUNT * ROW_PACKS));
    std::vector<Pack> weight(ROW_PACKS);
    for (u64 i = 0; i < ROW_PACKS * Message<Type>::PER_PACK; ++i) {
        reinterpret_cast<typename Type::Bits*>(weight.data())[i] = (typename Type::Bits)Type::narrow(1);
    }
    std::vector<std::thread> hosts;
    for (u32 rank = 0; rank < world; ++rank) {
        hosts.emplace_back([&, rank] {
            Memory<Type>& own = ranks[rank];
            FusedCall fused{};
            for (u32 peer = 0; peer < world; ++peer) {
                own.inputs.of[peer] = ranks[peer].input.data();
                fused.call.signals[peer] = ranks[peer].meta.get();
            }
            fused.call.inputs = &own.inputs;
            fused.call.output = in_place ? own.input.data() : own.output.data();
            fused.call.elements = elements;
            fused.call.patience = PATIENCE;
            fused.call.overdue = &own.overdue;
            fused.call.rank = rank;
            fused.residual = fused.new_residual = residuals[rank].data();
            fused.weight = weight.data();
            fused.row_packs = ROW_PACKS;
            fused.inverse_hidden = 1.0f / (float)(ROW_PACKS * Message<Type>::PER_PACK);
            for (u32 round = 0; round < LAUNCHES; ++round) {
                for (u64 i = 0; i < elements; ++i) {
                    own.elements(own.input)[i] = (typename Type::Bits)Type::narrow(value_of(rank, i, round));
                }
                launch([&] { body(fused); });
                if (own.overdue.state != 0) {
                    break;  // As above.
                }
            }
        });
    }
    for (std::thread& host : hosts) {
        host.join();
    }
    int wrong = 0;
    const auto output = [&](u32 rank) { return ranks[rank].elements(in_place ? ranks[rank].input : ranks[rank].output); };
    for (u32 rank = 0; rank < world; ++rank) {
        wrong += memcmp(output(rank), output(0), elements * sizeof(typename Type::Bits)) != 0;
        wrong += memcmp(residuals[rank].data(), residuals[0].data(), COUNT * ROW_PACKS * sizeof(Pack)) != 0;
        wrong += ranks[rank].overdue.state != 0;
    }
    for (u64 row = 0; row < COUNT; ++row) {
        float squares = 0;
        const u64 hidden = ROW_PACKS * Message<Type>::PER_PACK;
        for (u64 i = 0; i < hidden; ++i) {
            const float value = Type::widen(output(0)[row * hidden + i], 0);
            squares += value * value;
        }
        wrong += !(squares / (float)hidden > 0.98f && squares / (float)hidden < 1.02f);
    }
    printf("%s, %u ranks: %d wrong\n", name, world, wrong);
    return judged(wrong);
}

int check_quick_and_fused() {
    // Of a unit that values of up to 1000 have: 4 ranks and the sum lose 1/128 of 1000 and of 3000 each, and so on.
    return check_quick<Quantised<F16, 16, WIDE>, F16, 2>("quick, unquantised", 1) +
           check_quick<Quantised<F16, 8, NARROW>, F16, 3>("quick, 8 bits", 60) +
           check_quick<Quantised<BF16, 6, WIDE>, BF16, 2>("quick, 6 bits", 160) +
           check_quick<Quantised<F16, 4, NARROW>, BF16, 4>("quick, 4 bits, bf16 as f16", 1100) +
           check_fused<F16, 2>("one-shot with norm", one_shot_norm<F16, 2>, false) +
           check_fused<F32, 3>("two-shot with norm, in place", two_shot_norm<F32, 3>, true);
}

}  // namespace
