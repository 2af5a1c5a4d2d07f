// All-reduce by sum: each element is rank 0's value plus rank 1's, plus rank 2's, …, in that order, on every rank.
//
// A block of one rank works on the same packs as the blocks of that index on the other ranks, so blocks need to meet only
// those of their own index. All ranks launch the same kernel with the same number of blocks and elements.
#pragma once

// Where each rank's message lies. Loaded once: no store of the kernel changes it.
template <u32 world>
struct Sources {
    const void* of[world];
};

template <u32 world>
DEVICE Sources<world> inputs_of(const Call& call) {
    Sources<world> inputs;
#pragma unroll
    for (u32 rank = 0; rank < world; ++rank) {
        inputs.of[rank] = in_global(call.inputs->of[rank]);
    }
    return inputs;
}

// What follows each rank's signal: its scratch.
template <u32 world>
DEVICE Sources<world> scratch_of(const Call& call) {
    Sources<world> scratch;
#pragma unroll
    for (u32 rank = 0; rank < world; ++rank) {
        scratch.of[rank] = in_global(call.signals[rank] + 1);
    }
    return scratch;
}

// Reduces element `index` of all sources into element `target` of `output`: rank 0's, plus all others' in rank order, rounded
// once.
template <class Type, u32 world>
DEVICE void reduce_element(const Sources<world>& from, u64 index, void* output, u64 target) {
    using Row = Message<Type>;
    float sum = Type::widen(Row::element(from.of[0], index), 0);
#pragma unroll
    for (u32 rank = 1; rank < world; ++rank) {
        sum = add(sum, Type::widen(Row::element(from.of[rank], index), 0));
    }
    Row::element(output, target) = Type::narrow(sum);
}

// The sums of a pack of elements, before they are rounded.
template <class Type, u32 world>
DEVICE Sums<Type> reduced_pack(const Sources<world>& from, u64 index) {
    Pack packs[world];
#pragma unroll
    for (u32 rank = 0; rank < world; ++rank) {
        packs[rank] = Message<Type>::pack(from.of[rank], index);
    }
    Sums<Type> sums = widened<Type>(packs[0]);
#pragma unroll
    for (u32 rank = 1; rank < world; ++rank) {
        accumulate(sums, packs[rank]);
    }
    return sums;
}

// The same for a pack of elements.
template <class Type, u32 world>
DEVICE void reduce_whole_pack(const Sources<world>& from, u64 index, void* output, u64 target) {
    Message<Type>::pack(output, target) = rounded(reduced_pack<Type>(from, index));
}

// The same for a pack that may be the message's last.
template <class Type, u32 world>
DEVICE void reduce_pack(const Sources<world>& from, u64 index, u64 elements, void* output, u64 target) {
    using Row = Message<Type>;
    if (Row::is_whole(index, elements)) {
        reduce_whole_pack<Type>(from, index, output, target);
        return;
    }
    const u64 begin = index * Row::PER_PACK;
#pragma unroll 1
    for (u64 i = begin; i < elements; ++i) {
        reduce_element<Type>(from, i, output, target * Row::PER_PACK + (i - begin));
    }
}

// Copies pack `index` of the first parts to where they belong in the message; all are whole.
template <u32 count, u32 world>
DEVICE void copy_packs(const Sources<world>& parts, u64 index, void* message, u64 part) {
    Pack packs[count];
#pragma unroll
    for (u32 rank = 0; rank < count; ++rank) {
        packs[rank] = held(static_cast<const Pack*>(parts.of[rank])[index]);
    }
#pragma unroll
    for (u32 rank = 0; rank < count; ++rank) {
        static_cast<Pack*>(message)[part * rank + index] = packs[rank];
    }
}

// The same for a pack that may be the message's last.
template <class Type>
DEVICE void copy_pack(const void* part, u64 index, void* message, u64 target, u64 elements) {
    using Row = Message<Type>;
    if (Row::is_whole(target, elements)) {
        Row::pack(message, target) = Row::pack(part, index);
        return;
    }
    const u64 begin = target * Row::PER_PACK;
#pragma unroll 1
    for (u64 i = begin; i < elements; ++i) {
        Row::element(message, i) = Row::element(part, index * Row::PER_PACK + (i - begin));
    }
}

// The pack at which this thread begins, and how far it is to its next.
DEVICE u64 first_pack() { return (u64)block_index() * BLOCK_THREADS + thread_index(); }
DEVICE u64 stride() { return (u64)block_count() * BLOCK_THREADS; }

// One-shot: every rank reduces everything. The least waiting, `world` times the reading: for short messages. The output may
// not be the input that peers read.
template <class Type, u32 world>
DEVICE void one_shot(const Call& call) {
    if (!meet_at_start<world>(call)) {
        return;
    }
    const Sources<world> inputs = inputs_of<world>(call);
    const u64 packs = Message<Type>::packs(call.elements);
    for (u64 index = first_pack(); index < packs; index += stride()) {
        reduce_pack<Type, world>(inputs, index, call.elements, call.output, index);
    }
    meet_at_end<world>(call);
}

// Two-shot: rank r reduces part r into its scratch, then everybody collects all parts. May be in place: a rank writes its
// output only after the meeting, when part p of its input has been read by the only one that reads it, rank p's block of the
// same index. No meeting at the end: scratch is written again only after the next launch's first meeting.
template <class Type, u32 world>
DEVICE void two_shot(const Call& call) {
    if (!meet_at_start<world>(call)) {
        return;
    }
    const Sources<world> inputs = inputs_of<world>(call);
    const u64 packs = Message<Type>::packs(call.elements);
    const u64 part = packs / world;
    const u64 begin = part * call.rank;
    const u64 end = call.rank == world - 1 ? packs : begin + part;
    void* own_scratch = call.signals[call.rank] + 1;
    for (u64 index = begin + first_pack(); index < end; index += stride()) {
        reduce_pack<Type, world>(inputs, index, call.elements, own_scratch, index - begin);
    }
    if (!meet_between<world>(call)) {
        return;
    }
    const Sources<world> parts = scratch_of<world>(call);
    const u64 longest = packs - part * (world - 1);
    for (u64 index = first_pack(); index < longest; index += stride()) {
        if (index < part) {
            copy_packs<world - 1>(parts, index, call.output, part);
        }
        copy_pack<Type>(parts.of[world - 1], index, call.output, part * (world - 1) + index, call.elements);
    }
}
