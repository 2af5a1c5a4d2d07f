// One-shot all-reduce by a switch that adds: inputs lie in a multicast object, one load of which returns the sum of what all
// devices have there.
//
// The order in which the switch adds is its own, and it may differ from that of the ranks: the bits may differ from those of
// the other kernels, and between two machines. All ranks get what the switch returns to each; that it returns the same to all is
// the switch's promise, not ours. So this is only ever run by name.
#pragma once

// What a launch is told, by value. `output` is not in the multicast object; the message is whole packs.
struct MulticastCall {
    Call call;
    const void* multicast;  // where all devices' inputs are, at once
};

template <class Type>
struct MulticastSum;

// What the switch makes of a pack. The meetings order it; relaxed at system scope is the weakest that other devices may be part of.
#define MULTICAST_SUM(Type, kind)                                                                                     \
    template <>                                                                                                       \
    struct MulticastSum<Type> {                                                                                       \
        DEVICE_MEMBER Pack load(const Pack* from) {                                                                   \
            Pack sum;                                                                                                 \
            asm volatile("multimem.ld_reduce.relaxed.sys.global.add." kind " {%0, %1, %2, %3}, [%4];"                 \
                         : "=r"(sum.words[0]), "=r"(sum.words[1]), "=r"(sum.words[2]), "=r"(sum.words[3])             \
                         : "l"(from)                                                                                  \
                         : "memory");                                                                                 \
            return sum;                                                                                               \
        }                                                                                                             \
    };
MULTICAST_SUM(F32, "v4.f32")
MULTICAST_SUM(F16, "acc::f32.v4.f16x2")
MULTICAST_SUM(BF16, "acc::f32.v4.bf16x2")

template <class Type, u32 world>
DEVICE void multicast_one_shot(const MulticastCall& multicast) {
    const Call& call = multicast.call;
    if (!meet_at_start<world>(call)) {
        return;
    }
    const u64 packs = call.elements / Message<Type>::PER_PACK;
    const Pack* from = static_cast<const Pack*>(multicast.multicast);
    for (u64 index = first_pack(); index < packs; index += stride()) {
        // A NaN becomes the canonical one.
        Message<Type>::pack(call.output, index) = rounded(widened<Type>(MulticastSum<Type>::load(from + index)));
    }
    meet_at_end<world>(call);
}

#define MULTICAST_ENTRY(algorithm, type, Type, world) \
    KERNEL algorithm##_##type##_##world(BY_VALUE MulticastCall call) { algorithm<Type, world>(call); }
