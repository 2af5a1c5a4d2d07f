/* Vector functions that vLLM's headers name and its collectives never call. */
#ifndef BENCH_SHIM_SLEEF_H
#define BENCH_SHIM_SLEEF_H
#include <immintrin.h>
#define VECTOR_FUNCTION(name) \
    __m256 Sleef_##name##8_u10(__m256); \
    __m512 Sleef_##name##16_u10(__m512);
VECTOR_FUNCTION(expf)
VECTOR_FUNCTION(tanhf)
VECTOR_FUNCTION(erff)
#undef VECTOR_FUNCTION
#endif
