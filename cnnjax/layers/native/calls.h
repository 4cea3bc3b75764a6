// What all custom calls share: their arrays and errors, the numbers in arrays, and loops over rows and channels.
//
// Arrays are float32 or bfloat16 and end in an axis of channels; vectors (channels,) are always float32. A call states
// everything in its operands and attributes. What it throws becomes an error of the program that called.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <exception>
#include <initializer_list>
#include <new>
#include <stdexcept>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;
using Array = ffi::AnyBuffer;
using Vector = ffi::Buffer<ffi::F32>;
using Bytes = ffi::Buffer<ffi::U8>;
using Numbers = ffi::Span<const int64_t>;

inline constexpr char kThreads[] = "threads", kRelu[] = "relu", kWindow[] = "window";
using Threads = ffi::Attr<int64_t, kThreads>;
using Relu = ffi::Attr<bool, kRelu>;
using PoolingNumbers = ffi::Attr<Numbers, kWindow>;

// `Guarded<run>::Call` runs `run`, and returns what it throws as an error of XLA.
template <auto run>
struct Guarded;

template <typename... Parameters, void (*run)(Parameters...)>
struct Guarded<run> {
  static ffi::Error Call(Parameters... parameters) {
    try {
      run(parameters...);
      return ffi::Error::Success();
    } catch (const std::bad_alloc&) {
      return ffi::Error(ffi::ErrorCode::kResourceExhausted, "Out of memory in a layer");
    } catch (const std::exception& error) {
      return ffi::Error(ffi::ErrorCode::kInvalidArgument, error.what());
    }
  }
};

// Defines the custom call `name`, whose operands, results and attributes are the parameters of `run`.
#define DEFINE_CUSTOM_CALL(name, run) XLA_FFI_DEFINE_HANDLER_SYMBOL(name, Guarded<run>::Call)

inline void Check(bool fits, const char* message) {
  if (!fits) throw std::invalid_argument(message);
}

inline void CheckThreads(int64_t threads) {
  Check(threads > 0 && threads <= 1 << 16, "threads must be from 1 to 65536");
}

// Raises an error unless the arrays have the same dtype, float32 or bfloat16.
inline void CheckTypes(std::initializer_list<const Array*> arrays) {
  const auto type = (*arrays.begin())->element_type();
  Check(type == ffi::F32 || type == ffi::BF16, "arrays must be float32 or bfloat16");
  for (const auto* array : arrays) Check(array->element_type() == type, "arrays must have the same dtype");
}

struct Bfloat16 {
  uint16_t bits;  // the upper half of a float32
};

inline float Widen(float value) { return value; }
inline float Widen(Bfloat16 value) {
  const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float wide;
  std::memcpy(&wide, &bits, sizeof wide);
  return wide;
}
inline void Store(float value, float* to) { *to = value; }
inline void Store(float value, Bfloat16* to) {  // rounds to the nearest, ties to even; NaN stays NaN
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  to->bits = static_cast<uint16_t>(value == value ? rounded : (bits >> 16) | 0x40);
}

// Runs `run` with a value of the type of the array's numbers.
template <typename Run>
void WithType(const Array& array, Run run) {
  if (array.element_type() == ffi::F32)
    run(float{});
  else
    run(Bfloat16{});
}

template <typename T>
T* Data(const Array& array) {
  return static_cast<T*>(array.untyped_data());
}

// Runs `run(begin, end, part)` on as many equal parts of the rows as there are threads.
template <typename Run>
void Divide(int64_t rows, int64_t threads, Run run) {
  CheckThreads(threads);
  std::exception_ptr failure;  // must not leave the parallel region
#pragma omp parallel for num_threads(static_cast<int>(threads)) schedule(static, 1)
  for (int64_t part = 0; part < threads; ++part) {
    try {
      run(rows * part / threads, rows * (part + 1) / threads, part);
    } catch (...) {
#pragma omp critical
      failure = std::current_exception();
    }
  }
  if (failure) std::rethrow_exception(failure);
}

// Runs `run(channel)` for all channels; in runs of a fixed length, which the compiler turns into one vector.
template <typename Run>
inline void ForChannels(int64_t channels, Run run) {
  constexpr int64_t kLanes = 16;
  int64_t first = 0;
  for (; first + kLanes <= channels; first += kLanes)
#pragma GCC ivdep
    for (int64_t lane = 0; lane < kLanes; ++lane) run(first + lane);
  for (; first < channels; ++first) run(first);
}
