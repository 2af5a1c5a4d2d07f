/* What an engine does around a collective: it writes all of a buffer before and reads all of it after. */
#ifndef BENCH_TRAFFIC_H
#define BENCH_TRAFFIC_H
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif
/* Fill the buffer with values of their own for every number of a call. */
void produce(void *buffer, size_t bytes, size_t number);
/* The wrapping sum of the buffer's whole 64-bit words. */
uint64_t consume(const void *buffer, size_t bytes);
/* What `consume` must return for an output to which every element has come from so many ranks, in call `number`. */
uint64_t expected_sum(size_t bytes, size_t number, int is_bf16, int ranks);
#ifdef __cplusplus
}
#endif
#endif
