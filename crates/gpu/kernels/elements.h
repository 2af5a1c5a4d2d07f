// Types of elements: how a pack of them becomes f32 and back. f16 and bf16 are accumulated in f32 and rounded once.
//
// A NaN result is the type's canonical quiet NaN, whatever the hardware makes of it: the same bits on every device.
#pragma once

struct F32 {
    using Bits = u32;
    enum : u32 { PER_WORD = 1 };
    DEVICE_MEMBER float widen(u32 word, u32) { return float_of(word); }
    DEVICE_MEMBER u32 narrow(float value) { return value == value ? bits_of(value) : 0x7fc00000u; }
};

struct F16 {
    using Bits = u16;
    enum : u32 { PER_WORD = 2 };
    DEVICE_MEMBER float widen(u32 word, u32 half) { return widen_f16((u16)(word >> (16 * half))); }
    DEVICE_MEMBER u32 narrow(float value) { return narrow_f16(value); }
};

struct BF16 {
    using Bits = u16;
    enum : u32 { PER_WORD = 2 };
    DEVICE_MEMBER float widen(u32 word, u32 half) { return float_of(half == 0 ? word << 16 : word & 0xffff0000u); }
    DEVICE_MEMBER u32 narrow(float value) { return narrow_bf16(value); }
};

// A pack of elements, accumulated.
template <class Type>
struct Sums {
    enum : u32 { COUNT = 4 * Type::PER_WORD };
    float of[COUNT];
};

template <class Type>
DEVICE Sums<Type> widened(const Pack& pack) {
    Sums<Type> sums;
#pragma unroll
    for (u32 i = 0; i < Sums<Type>::COUNT; ++i) {
        sums.of[i] = Type::widen(pack.words[i / Type::PER_WORD], i % Type::PER_WORD);
    }
    return sums;
}

template <class Type>
DEVICE void accumulate(Sums<Type>& sums, const Pack& pack) {
    const Sums<Type> more = widened<Type>(pack);
#pragma unroll
    for (u32 i = 0; i < Sums<Type>::COUNT; ++i) {
        sums.of[i] = add(sums.of[i], more.of[i]);
    }
}

template <class Type>
DEVICE Pack rounded(const Sums<Type>& sums) {
    Pack pack;
#pragma unroll
    for (u32 word = 0; word < 4; ++word) {
        u32 bits = Type::narrow(sums.of[word * Type::PER_WORD]);
        if (Type::PER_WORD == 2) {
            bits |= Type::narrow(sums.of[word * Type::PER_WORD + Type::PER_WORD - 1]) << 16;
        }
        pack.words[word] = bits;
    }
    return pack;
}

// A message is a row of packs; the last one may be short, and is then handled element by element: nothing beyond the
// message's last element is touched.
template <class Type>
struct Message {
    using Element = typename Type::Bits;
    enum : u32 { PER_PACK = Sums<Type>::COUNT };

    DEVICE_MEMBER u64 packs(u64 elements) { return (elements + PER_PACK - 1) / PER_PACK; }

    DEVICE_MEMBER bool is_whole(u64 index, u64 elements) { return (index + 1) * PER_PACK <= elements; }

    DEVICE_MEMBER const Pack& pack(const void* message, u64 index) { return static_cast<const Pack*>(message)[index]; }
    DEVICE_MEMBER Pack& pack(void* message, u64 index) { return static_cast<Pack*>(message)[index]; }

    DEVICE_MEMBER const Element& element(const void* message, u64 index) {
        return static_cast<const Element*>(message)[index];
    }
    DEVICE_MEMBER Element& element(void* message, u64 index) { return static_cast<Element*>(message)[index]; }
};
