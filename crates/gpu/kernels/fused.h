// All-reduce, addition of a residual, and RMSNorm in one launch, row by row:
//
//     sum      = the all-reduce of the inputs, rounded to the type
//     residual = sum + residual, rounded
//     output   = residual * (1 / sqrt(mean of residual^2 + epsilon)) * weight, in f32, rounded once
//
// which is bit for bit what the three, one after the other, give. The order in which the squares of a row are added: thread t of T
// adds those of packs t, t + T, t + 2T, …, element by element; neighbours add up within eights, (t, t^1), then (^2), then (^4);
// number l of an eight adds the sums of eights l, l + 8, …; and those are added within the eight again. The mean is that
// sum times 1 / hidden. All of it in f32.
#pragma once

// What a launch is told, by value. Rows are whole packs.
struct FusedCall {
    Call call;
    const void* residual;
    void* new_residual;
    const void* weight;
    u64 row_packs;
    float inverse_hidden;
    float epsilon;
};

template <class Type>
DEVICE float sum_of_squares(const Sums<Type>& values, float sum) {
#pragma unroll
    for (u32 i = 0; i < Sums<Type>::COUNT; ++i) {
        sum = add(sum, mul(values.of[i], values.of[i]));
    }
    return sum;
}

DEVICE float sum_of_eight(float mine) {
    mine = add(mine, float_of(shuffle_xor<1>(bits_of(mine))));
    mine = add(mine, float_of(shuffle_xor<2>(bits_of(mine))));
    return add(mine, float_of(shuffle_xor<4>(bits_of(mine))));
}

// The sum over the block, which every thread gets. Two rows of words, used in turn: who writes one again has passed the meeting
// after which all have read it.
DEVICE float sum_of_block(float mine, float* eights) {
    const u32 thread = thread_index();
    const float eight = sum_of_eight(mine);
    if (thread % 8 == 0) {
        eights[thread / 8] = eight;
    }
    block_sync();
    float sum = 0;
    for (u32 i = thread % 8; i < block_threads() / 8; i += 8) {
        sum = add(sum, eights[i]);
    }
    return sum_of_eight(sum);
}

// Adds the sum's pack to the residual's; returns the new residual as it is written down.
template <class Type>
DEVICE Sums<Type> add_residual(const FusedCall& fused, const Sums<Type>& sums, u64 at) {
    Sums<Type> values = widened<Type>(rounded(sums));
    accumulate(values, Message<Type>::pack(fused.residual, at));
    const Pack pack = rounded(values);
    Message<Type>::pack(fused.new_residual, at) = pack;
    return widened<Type>(pack);
}

// Writes a row of the output, of which this thread has written the same packs of the residual.
template <class Type>
DEVICE void normalise_row(const FusedCall& fused, u64 row, float squares, float* eights) {
    using Row = Message<Type>;
    const float mean = mul(sum_of_block(squares, eights), fused.inverse_hidden);
    const float factor = reciprocal(square_root(add(mean, fused.epsilon)));
    for (u64 pack = thread_index(); pack < fused.row_packs; pack += block_threads()) {
        const u64 at = row * fused.row_packs + pack;
        Sums<Type> values = widened<Type>(Row::pack(static_cast<const void*>(fused.new_residual), at));
        const Sums<Type> weights = widened<Type>(Row::pack(fused.weight, pack));
#pragma unroll
        for (u32 i = 0; i < Sums<Type>::COUNT; ++i) {
            values.of[i] = mul(mul(values.of[i], factor), weights.of[i]);
        }
        Row::pack(fused.call.output, at) = rounded(values);
    }
}

// One-shot: every rank reduces all rows. The output may not be the input that peers read. There are not more blocks than rows.
template <class Type, u32 world>
DEVICE void one_shot_norm(const FusedCall& fused) {
    const Call& call = fused.call;
    if (!meet_at_start<world>(call)) {
        return;
    }
    const Sources<world> inputs = inputs_of<world>(call);
    const u64 rows = call.elements / (fused.row_packs * Message<Type>::PER_PACK);
    u32 turn = 0;
    for (u64 row = block_index(); row < rows; row += block_count()) {
        float squares = 0;
        for (u64 pack = thread_index(); pack < fused.row_packs; pack += block_threads()) {
            const u64 at = row * fused.row_packs + pack;
            squares = sum_of_squares(add_residual(fused, reduced_pack<Type>(inputs, at), at), squares);
        }
        normalise_row<Type>(fused, row, squares, block_words().of[turn ^= 1]);
    }
    // The peers may overwrite their inputs: all of the block had read them when it met over its last row, of which it has one
    // at least.
    const u32 peer = thread_index();
    if (peer < world) {
        meet_peer(call, peer);
    }
}

// The first pack of the part of a row that a rank reduces.
template <u32 world>
DEVICE u64 part_begin(const FusedCall& fused, u32 rank) {
    return fused.row_packs * rank / world;
}

// Two-shot: of every row of its own, a block reduces one part into its rank's scratch; then it collects the whole rows, of which it
// has met the blocks that reduced the other parts. May be in place, as the all-reduce.
template <class Type, u32 world>
DEVICE void two_shot_norm(const FusedCall& fused) {
    const Call& call = fused.call;
    if (!meet_at_start<world>(call)) {
        return;
    }
    const Sources<world> inputs = inputs_of<world>(call);
    const u64 rows = call.elements / (fused.row_packs * Message<Type>::PER_PACK);
    const u64 end = part_begin<world>(fused, call.rank + 1);
    void* own_scratch = call.signals[call.rank] + 1;
    for (u64 row = block_index(); row < rows; row += block_count()) {
        for (u64 pack = part_begin<world>(fused, call.rank) + thread_index(); pack < end; pack += block_threads()) {
            const u64 at = row * fused.row_packs + pack;
            Message<Type>::pack(own_scratch, at) = rounded(reduced_pack<Type>(inputs, at));
        }
    }
    if (!meet_between<world>(call)) {
        return;
    }
    const Sources<world> parts = scratch_of<world>(call);
    u32 turn = 0;
    for (u64 row = block_index(); row < rows; row += block_count()) {
        float squares = 0;
        for (u64 pack = thread_index(); pack < fused.row_packs; pack += block_threads()) {
            const void* part = parts.of[0];
#pragma unroll
            for (u32 rank = 1; rank < world; ++rank) {
                part = pack >= part_begin<world>(fused, rank) ? parts.of[rank] : part;
            }
            const u64 at = row * fused.row_packs + pack;
            squares = sum_of_squares(add_residual(fused, widened<Type>(Message<Type>::pack(part, at)), at), squares);
        }
        normalise_row<Type>(fused, row, squares, block_words().of[turn ^= 1]);
    }
}

#define FUSED_ENTRY(algorithm, type, Type, world) \
    KERNEL algorithm##_##type##_##world(BY_VALUE FusedCall call) { algorithm<Type, world>(call); }
