// The kernels by name: `one_shot_f32_2` is the one-shot all-reduce of f32 between two ranks.
#pragma once

#define ENTRY(algorithm, type, Type, world) \
    KERNEL algorithm##_##type##_##world(BY_VALUE Call call) { algorithm<Type, world>(call); }

#define ENTRIES_OF_TYPE(algorithm, type, Type) \
    ENTRY(algorithm, type, Type, 2)            \
    ENTRY(algorithm, type, Type, 3)            \
    ENTRY(algorithm, type, Type, 4)            \
    ENTRY(algorithm, type, Type, 5)            \
    ENTRY(algorithm, type, Type, 6)            \
    ENTRY(algorithm, type, Type, 7)            \
    ENTRY(algorithm, type, Type, 8)

#define ENTRIES(algorithm)                   \
    ENTRIES_OF_TYPE(algorithm, f32, F32)     \
    ENTRIES_OF_TYPE(algorithm, f16, F16)     \
    ENTRIES_OF_TYPE(algorithm, bf16, BF16)

// Of what does not depend on the type.
#define BARE_ENTRY(algorithm, world) \
    KERNEL algorithm##_##world(BY_VALUE Call call) { algorithm<world>(call); }

#define BARE_ENTRIES(algorithm) \
    BARE_ENTRY(algorithm, 2)    \
    BARE_ENTRY(algorithm, 3)    \
    BARE_ENTRY(algorithm, 4)    \
    BARE_ENTRY(algorithm, 5)    \
    BARE_ENTRY(algorithm, 6)    \
    BARE_ENTRY(algorithm, 7)    \
    BARE_ENTRY(algorithm, 8)
