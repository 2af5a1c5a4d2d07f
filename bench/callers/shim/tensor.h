/*
 * The little of PyTorch's C++ interface that the shared-memory operations of vLLM and DeepSpeed use, so that they are
 * measured without it: a tensor here is a pointer, a length and a type.
 *
 * Their operations take the same paths as with PyTorch; what is left out (the dispatcher, reference counts) would only make
 * them slower. The headers beside this one have the names under which those files ask for it.
 */
#ifndef BENCH_SHIM_TENSOR_H
#define BENCH_SHIM_TENSOR_H

#include <array>
#include <atomic>
#include <cassert>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <optional>
#include <sstream>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace c10 {

enum class ScalarType : int8_t { Undefined, Char, Half, BFloat16, Float, Float8_e5m2 };

/* Rounded to nearest even, as PyTorch does. */
struct BFloat16 {
    uint16_t x;
    BFloat16() = default;
    BFloat16(float value) {
        uint32_t bits;
        std::memcpy(&bits, &value, 4);
        x = value != value ? 0x7fc0 : static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
    }
    operator float() const {
        uint32_t bits = static_cast<uint32_t>(x) << 16;
        float value;
        std::memcpy(&value, &bits, 4);
        return value;
    }
};

struct Half {
    uint16_t x;
    Half() = default;
    Half(float value) {
        _Float16 half = static_cast<_Float16>(value);
        std::memcpy(&x, &half, 2);
    }
    operator float() const {
        _Float16 half;
        std::memcpy(&half, &x, 2);
        return static_cast<float>(half);
    }
};

struct Float8_e5m2 {
    uint8_t x;
};

inline int64_t elementSize(ScalarType type) {
    switch (type) {
        case ScalarType::Float: return 4;
        case ScalarType::Half:
        case ScalarType::BFloat16: return 2;
        default: return 1;
    }
}

template <ScalarType type> struct cpp_type;
template <> struct cpp_type<ScalarType::Float> { using type = float; };
template <> struct cpp_type<ScalarType::BFloat16> { using type = BFloat16; };
template <> struct cpp_type<ScalarType::Half> { using type = Half; };
template <> struct cpp_type<ScalarType::Float8_e5m2> { using type = Float8_e5m2; };

}  // namespace c10

namespace at {
using c10::BFloat16;
using c10::Float8_e5m2;
using c10::Half;
using c10::ScalarType;
}  // namespace at

namespace torch {

using c10::elementSize;
using c10::ScalarType;
constexpr ScalarType kInt8 = ScalarType::Char;
constexpr int kCPU = 0;

struct TensorOptions {
    ScalarType type = ScalarType::Undefined;
    TensorOptions dtype(ScalarType wanted) const { return TensorOptions{wanted}; }
    TensorOptions device(int) const { return *this; }
};

class Tensor {
  public:
    Tensor(void *start, int64_t count, ScalarType type) : start_(start), count_(count), type_(type) {}
    void *data_ptr() const { return start_; }
    template <typename T> T *data_ptr() const { return static_cast<T *>(start_); }
    int64_t numel() const { return count_; }
    int64_t nbytes() const { return count_ * elementSize(type_); }
    ScalarType scalar_type() const { return type_; }
    bool is_contiguous() const { return true; }
    std::shared_ptr<void> owned;

  private:
    void *start_;
    int64_t count_;
    ScalarType type_;
};

inline Tensor empty(std::initializer_list<int64_t> shape, TensorOptions options) {
    int64_t count = 1;
    for (int64_t dimension : shape) count *= dimension;
    std::shared_ptr<void> memory(std::malloc(count * elementSize(options.type)), std::free);
    Tensor tensor(memory.get(), count, options.type);
    tensor.owned = memory;
    return tensor;
}

}  // namespace torch

[[noreturn]] inline void shim_failed(const char *condition) {
    std::fprintf(stderr, "not so: %s\n", condition);
    std::exit(1);
}

/* Whole statements, because not every use ends with a semicolon. */
#define TORCH_CHECK(condition, ...) \
    if (!(condition)) { shim_failed(#condition); }
#define TORCH_CHECK_EQ(a, b) TORCH_CHECK((a) == static_cast<decltype(a)>(b))
#define TORCH_CHECK_LE(a, b) TORCH_CHECK((a) <= static_cast<decltype(a)>(b))
#define TORCH_CHECK_LT(a, b) TORCH_CHECK((a) < static_cast<decltype(a)>(b))
#define TORCH_WARN_ONCE(...)
#define AT_DISPATCH_CASE(wanted, ...)                       \
    case wanted: {                                          \
        using scalar_t = typename c10::cpp_type<wanted>::type; \
        return __VA_ARGS__();                               \
    }
#define AT_DISPATCH_SWITCH(given, name, ...)     \
    [&] {                                        \
        switch (given) {                         \
            __VA_ARGS__                          \
            default: shim_failed("a type for " name); \
        }                                        \
    }()

#endif
