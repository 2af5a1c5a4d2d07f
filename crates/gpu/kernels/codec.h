// How the quick all-reduce writes 16-bit floats down for the way: as they are, or as integers of 8, 6 or 4 bits.
//
// A row is what the threads of a block send at once, a pack of eight values each. Eight neighbouring threads form a group; their
// 64 values are two blocks of 32: those in the low and those in the high halves of the words. A block has one scale: its value
// of the largest magnitude, sign included (of two opposite ones the negative), times -1 / 2^(bits-1). So that value itself
// is written as the lowest integer, and comes back exactly.
//
// A NaN makes its block's scale one, and so all of the block; an infinity makes NaNs of the block's other values. Nothing that
// went wrong is hidden.
#pragma once

// Which arithmetic: that of the 16-bit type, every operation rounded to it; or f32, rounded where a value is written down.
enum Arithmetic { NARROW, WIDE };

template <class Type>
DEVICE float through(float value) {
    return Type::widen(Type::narrow(value), 0);
}

// What is added to a scale before one is divided by it, so that a block of zeros does not divide by zero.
template <class Type>
struct Epsilon;
template <>
struct Epsilon<F16> {
    enum : u32 { BITS = 0x0001 };
};
template <>
struct Epsilon<BF16> {
    enum : u32 { BITS = 0x33d7 };
};

// What one thread sends of a row of 8-bit integers.
struct alignas(8) HalfPack {
    u32 words[2];
};

DEVICE u32 larger(u32 left, u32 right) { return left < right ? right : left; }

// Both become the larger of mine and those of the thread whose index differs in this bit; each has 16 bits.
template <u32 bit>
DEVICE void larger_of_group(u32& low, u32& high) {
    const u32 theirs = shuffle_xor<bit>(low | high << 16);
    low = larger(low, theirs & 0xffff);
    high = larger(high, theirs >> 16);
}

// The values of largest magnitude of the group's two blocks, sign included, as the halves of one word.
//
// Turned left by one bit, a 16-bit float is an integer that is larger the larger the magnitude, a NaN's the largest.
DEVICE u32 extremes_of_group(const Pack& pack) {
    u32 low = 0;
    u32 high = 0;
#pragma unroll
    for (u32 i = 0; i < 4; ++i) {
        const u32 turned = (pack.words[i] << 1 & 0xfffefffeu) | (pack.words[i] >> 15 & 0x00010001u);
        low = larger(low, turned & 0xffff);
        high = larger(high, turned >> 16);
    }
    larger_of_group<1>(low, high);
    larger_of_group<2>(low, high);
    larger_of_group<4>(low, high);
    const u32 both = low | high << 16;
    return (both >> 1 & 0x7fff7fffu) | (both << 15 & 0x80008000u);
}

// The group's values in integers of so many bits.
template <class Element, u32 BITS, Arithmetic ARITHMETIC>
struct Quantised {
    using Type = Element;
    enum : u32 { BIAS = 1 << (BITS - 1) };

    // One thread's share; `scales` is the group's.
    struct Encoded {
        u32 words[2];
        u32 scales;
    };

    // What is behind the integers of a row: 6 bits are a word of four and a half word of two.
    DEVICE_MEMBER u32 scales_at() { return block_threads() * BITS; }

    DEVICE_MEMBER float scale(u32 extreme) { return through<Type>(mul(Type::widen(extreme, 0), -1.0f / BIAS)); }

    // By what a value is multiplied to become an integer.
    DEVICE_MEMBER float inverse(float scale) {
        if (ARITHMETIC == WIDE) {
            return scale == 0 ? 0 : reciprocal(scale);
        }
        return through<Type>(reciprocal(through<Type>(add(scale, Type::widen(Epsilon<Type>::BITS, 0)))));
    }

    DEVICE_MEMBER u32 integer(float value, float inverse) {
        float scaled = mul(value, inverse);
        if (ARITHMETIC == NARROW) {
            scaled = through<Type>(scaled);
        }
        scaled = scaled > (float)(BIAS - 1) ? (float)(BIAS - 1) : scaled;
        // A NaN, too, becomes the lowest.
        scaled = scaled >= -(float)BIAS ? scaled : -(float)BIAS;
        // 1.5 * 2^23: the sum's last place is one, so this rounds to the nearest integer, to the even one of two.
        return bits_of(add(scaled, 12582912.0f + (float)BIAS)) & (2 * BIAS - 1);
    }

    DEVICE_MEMBER Encoded encode(const Pack& pack) {
        const u32 extremes = extremes_of_group(pack);
        const float low = scale(extremes & 0xffff);
        const float high = scale(extremes >> 16);
        const float inverse_low = inverse(low);
        const float inverse_high = inverse(high);
        u32 integers[4];
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            integers[i] = integer(Type::widen(pack.words[i], 0), inverse_low) |
                          integer(Type::widen(pack.words[i], 1), inverse_high) << 16;
        }
        Encoded encoded;
        if (BITS == 8) {
            encoded.words[0] = integers[0] | integers[1] << 8;
            encoded.words[1] = integers[2] | integers[3] << 8;
        } else {
            u32 nibbles = 0;
            u32 rest = 0;
#pragma unroll
            for (u32 i = 0; i < 4; ++i) {
                nibbles |= (integers[i] & 0x000f000fu) << (4 * i);
                rest |= (integers[i] >> 4 & 0x00030003u) << (2 * i);
            }
            encoded.words[0] = nibbles;
            encoded.words[1] = rest | rest >> 8;
        }
        encoded.scales = Type::narrow(low) | (u32)Type::narrow(high) << 16;
        return encoded;
    }

    DEVICE_MEMBER void store(const Encoded& encoded, u8* row) {
        const u32 thread = thread_index();
        if (BITS == 8) {
            reinterpret_cast<HalfPack*>(row)[thread] = HalfPack{{encoded.words[0], encoded.words[1]}};
        } else {
            reinterpret_cast<u32*>(row)[thread] = encoded.words[0];
        }
        if (BITS == 6) {
            reinterpret_cast<u16*>(row + 4 * block_threads())[thread] = (u16)encoded.words[1];
        }
        if (thread % 8 == 0) {
            reinterpret_cast<u32*>(row + scales_at())[thread / 8] = encoded.scales;
        }
    }

    DEVICE_MEMBER float value(u32 integer, float scale) {
        // 2^23 and the integer, less 2^23 and the bias: exact.
        const float centred = add(float_of(0x4b000000u | integer), -(8388608.0f + (float)BIAS));
        const float value = mul(centred, scale);
        return ARITHMETIC == NARROW ? through<Type>(value) : value;
    }

    DEVICE_MEMBER Sums<Type> decode(const u8* row) {
        const u32 thread = thread_index();
        u32 integers[4];
        if (BITS == 8) {
            const HalfPack words = reinterpret_cast<const HalfPack*>(row)[thread];
#pragma unroll
            for (u32 i = 0; i < 4; ++i) {
                integers[i] = words.words[i / 2] >> (8 * (i % 2)) & 0x00ff00ffu;
            }
        } else {
            const u32 nibbles = reinterpret_cast<const u32*>(row)[thread];
            u32 rest = 0;
            if (BITS == 6) {
                rest = reinterpret_cast<const u16*>(row + 4 * block_threads())[thread];
                rest = (rest & 0xff) | (rest & 0xff00) << 8;
            }
#pragma unroll
            for (u32 i = 0; i < 4; ++i) {
                integers[i] = (nibbles >> (4 * i) & 0x000f000fu) | (rest >> (2 * i) & 0x00030003u) << 4;
            }
        }
        const u32 scales = reinterpret_cast<const u32*>(row + scales_at())[thread / 8];
        Sums<Type> values;
#pragma unroll
        for (u32 i = 0; i < 8; ++i) {
            values.of[i] = value(integers[i / 2] >> (16 * (i % 2)) & 0xffff, Type::widen(scales, i % 2));
        }
        return values;
    }

    // The sum of two values.
    DEVICE_MEMBER float sum(float left, float right) {
        return ARITHMETIC == NARROW ? through<Type>(add(left, right)) : add(left, right);
    }
};

// As they are.
template <class Element, Arithmetic ARITHMETIC>
struct Quantised<Element, 16, ARITHMETIC> {
    using Type = Element;
    using Encoded = Pack;
    DEVICE_MEMBER Encoded encode(const Pack& pack) { return pack; }
    DEVICE_MEMBER void store(const Encoded& encoded, u8* row) {
        reinterpret_cast<Pack*>(row)[thread_index()] = encoded;
    }
    DEVICE_MEMBER Sums<Type> decode(const u8* row) {
        return widened<Type>(reinterpret_cast<const Pack*>(row)[thread_index()]);
    }
    DEVICE_MEMBER float sum(float left, float right) {
        return ARITHMETIC == NARROW ? through<Type>(add(left, right)) : add(left, right);
    }
};
