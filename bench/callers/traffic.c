/*
 * Writing and reading all of a buffer around a collective; `src/caller/traffic.rs` is the same in Rust.
 *
 * It is a file of its own so that it is compiled with the same flags for every library, whatever the library's own code
 * needs: 128-bit vectors, as rustc uses for unisono's caller. The values are one byte repeated, so that their sums are
 * exact for two and four ranks in every element type.
 */
#include "traffic.h"

#include <string.h>

static unsigned char byte_of(size_t number) { return (unsigned char)(0x38 + number % 8); }

void produce(void *buffer, size_t bytes, size_t number) { memset(buffer, byte_of(number), bytes); }

typedef uint64_t two_words __attribute__((vector_size(16)));

uint64_t consume(const void *buffer, size_t bytes) {
    two_words sums[4] = {{0}};
    const char *start = (const char *)buffer;
    size_t at = 0;
    for (; at + 64 <= bytes; at += 64) {
        for (int i = 0; i < 4; i++) {
            two_words words;
            memcpy(&words, start + at + 16 * i, 16);
            sums[i] += words;
        }
    }
    two_words sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    for (; at + 8 <= bytes; at += 8) {
        uint64_t word;
        memcpy(&word, start + at, 8);
        sum[0] += word;
    }
    return sum[0] + sum[1];
}

uint64_t expected_sum(size_t bytes, size_t number, int is_bf16, int ranks) {
    uint32_t bits;
    memset(&bits, byte_of(number), 4);
    if (is_bf16 && ranks > 1) bits &= 0xffff0000u;
    float value, sum = 0;
    memcpy(&value, &bits, 4);
    for (int rank = 0; rank < ranks; rank++) sum += value;
    memcpy(&bits, &sum, 4);
    if (is_bf16 && ranks > 1) bits |= bits >> 16;
    uint64_t word = ((uint64_t)bits << 32) | bits;
    return word * (bytes / 8);
}
