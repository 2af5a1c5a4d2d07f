// The two halves of an all-reduce: reduce-scatter and all-gather.
//
// `elements` is what each rank contributes to, or gets as, its portion; all portions are as long. Both meet at the end, so that
// inputs may be overwritten once the launch has ended.
#pragma once

// Reduce-scatter: rank r's output is the sum of portion r of all inputs, in rank order. May be in place, into portion r of the
// own input, which no other rank reads.
template <class Type, u32 world>
DEVICE void reduce_scatter(const Call& call) {
    using Row = Message<Type>;
    if (!meet_at_start<world>(call)) {
        return;
    }
    Sources<world> portions = inputs_of<world>(call);
#pragma unroll
    for (u32 rank = 0; rank < world; ++rank) {
        portions.of[rank] = static_cast<const typename Type::Bits*>(portions.of[rank]) + call.elements * call.rank;
    }
    if (call.elements % Row::PER_PACK == 0) {
        for (u64 index = first_pack(); index < call.elements / Row::PER_PACK; index += stride()) {
            reduce_whole_pack<Type>(portions, index, call.output, index);
        }
    } else {
        // Portions do not begin where packs do.
        for (u64 index = first_pack(); index < call.elements; index += stride()) {
            reduce_element<Type>(portions, index, call.output, index);
        }
    }
    meet_at_end<world>(call);
}

// Copies so many units of every rank's input to its portion of the output.
template <class Unit, u32 world>
DEVICE void gather(const Sources<world>& inputs, void* output, u64 units) {
    for (u64 index = first_pack(); index < units; index += stride()) {
        Unit found[world];
#pragma unroll
        for (u32 rank = 0; rank < world; ++rank) {
            found[rank] = held(static_cast<const Unit*>(inputs.of[rank])[index]);
        }
#pragma unroll
        for (u32 rank = 0; rank < world; ++rank) {
            static_cast<Unit*>(output)[units * rank + index] = found[rank];
        }
    }
}

// All-gather: portion r of every rank's output is rank r's input. Here `elements` are bytes, an even number.
template <u32 world>
DEVICE void all_gather(const Call& call) {
    if (!meet_at_start<world>(call)) {
        return;
    }
    const Sources<world> inputs = inputs_of<world>(call);
    if (call.elements % sizeof(Pack) == 0) {
        gather<Pack>(inputs, call.output, call.elements / sizeof(Pack));
    } else {
        gather<u16>(inputs, call.output, call.elements / sizeof(u16));
    }
    meet_at_end<world>(call);
}
