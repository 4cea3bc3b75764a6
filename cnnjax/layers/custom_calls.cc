// Layers on CPU as custom calls of XLA: oneDNN's convolutions, and loops over channels and pooling windows.
//
// Arrays are float32 or bfloat16: activations (batch, *spatial, channels), kernels (*window, channels / groups,
// filters), vectors (channels,) always float32. A call states everything in its attributes and has no state but a cache
// of oneDNN's primitives, which all threads share. What fails becomes an error of the program that called.

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <exception>
#include <initializer_list>
#include <limits>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "oneapi/dnnl/dnnl.hpp"
#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;
using Array = ffi::AnyBuffer;
using Vector = ffi::Buffer<ffi::F32>;
using Numbers = ffi::Span<const int64_t>;

template <typename Run>
ffi::Error Guarded(Run run) {
  try {
    run();
    return ffi::Error::Success();
  } catch (const std::bad_alloc&) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, "Out of memory in a layer");
  } catch (const std::exception& error) {
    return ffi::Error(ffi::ErrorCode::kInvalidArgument, error.what());
  }
}

// Raises an error unless the arrays have the same dtype, float32 or bfloat16.
void CheckTypes(std::initializer_list<const Array*> arrays) {
  const auto type = (*arrays.begin())->element_type();
  if (type != ffi::F32 && type != ffi::BF16) throw std::invalid_argument("arrays must be float32 or bfloat16");
  for (const auto* array : arrays)
    if (array->element_type() != type) throw std::invalid_argument("arrays must have the same dtype");
}

void Check(bool fits, const char* message) {
  if (!fits) throw std::invalid_argument(message);
}

void CheckThreads(int64_t threads) { Check(threads > 0 && threads <= 1 << 16, "threads must be from 1 to 65536"); }

// ---- oneDNN's convolutions ------------------------------------------------------------------------------------------

using Dims = dnnl::memory::dims;
using Desc = dnnl::memory::desc;

const dnnl::engine& Engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

Dims RowMajorStrides(const Dims& shape) {
  Dims strides(shape.size(), 1);
  for (size_t axis = shape.size() - 1; axis > 0; --axis) strides[axis - 1] = strides[axis] * shape[axis];
  return strides;
}

dnnl::memory::data_type TypeOf(const Array& array) {
  return array.element_type() == ffi::F32 ? dnnl::memory::data_type::f32 : dnnl::memory::data_type::bf16;
}

// Activations (batch, *spatial, channels), whose axes oneDNN numbers as (batch, channels, *spatial).
Desc DescribeActivations(const Array& array) {
  const auto shape = array.dimensions();
  const Dims stored(shape.begin(), shape.end()), strides = RowMajorStrides(stored);
  Dims sizes{stored.front(), stored.back()}, steps{strides.front(), strides.back()};
  sizes.insert(sizes.end(), stored.begin() + 1, stored.end() - 1);
  steps.insert(steps.end(), strides.begin() + 1, strides.end() - 1);
  return Desc(sizes, TypeOf(array), steps);
}

// A kernel (*window, channels / groups, filters), whose axes are ([groups,] filters, channels, *window) there.
Desc DescribeKernel(const Array& array, int64_t groups) {
  const auto shape = array.dimensions();
  const Dims stored(shape.begin(), shape.end()), strides = RowMajorStrides(stored);
  const size_t window = stored.size() - 2;
  Dims sizes{stored[window + 1] / groups, stored[window]}, steps{1, strides[window]};
  if (groups > 1) {
    sizes.insert(sizes.begin(), groups);
    steps.insert(steps.begin(), sizes[1]);
  }
  sizes.insert(sizes.end(), stored.begin(), stored.begin() + window);
  steps.insert(steps.end(), strides.begin(), strides.begin() + window);
  return Desc(sizes, TypeOf(array), steps);
}

enum Mode : int64_t { kOutputs, kImageGradient, kKernelGradient };

// A window that slides over images: its steps, the zeros before and after them, and the distances of its positions.
struct Window {
  Numbers strides, low, high, dilation;
  int64_t groups;
};

// A primitive, and the change of layout of the kernel that it needs, if any.
struct Convolution {
  dnnl::primitive primitive, change;
  Desc kernel, scratch, change_scratch;
};

Convolution Prepare(Mode mode, const Desc& images, const Desc& kernel, const Desc& outputs, const Window& window) {
  const auto direct = dnnl::algorithm::convolution_direct;
  const Dims strides(window.strides.begin(), window.strides.end()), low(window.low.begin(), window.low.end()),
      high(window.high.begin(), window.high.end());
  Dims gaps(window.dilation.begin(), window.dilation.end());
  for (auto& gap : gaps) --gap;
  const Desc any(kernel.get_dims(), kernel.get_data_type(), dnnl::memory::format_tag::any);
  dnnl::primitive_attr attributes;
  attributes.set_fpmath_mode(dnnl::fpmath_mode::strict);  // whatever $ONEDNN_DEFAULT_FPMATH_MODE says
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);  // as several threads run one primitive at a time
  const dnnl::convolution_forward::primitive_desc forward(Engine(), dnnl::prop_kind::forward_training, direct, images,
                                                          any, outputs, strides, gaps, low, high, attributes);
  Convolution made;
  if (mode == kOutputs) {
    made.primitive = dnnl::convolution_forward(forward);
    made.kernel = forward.weights_desc();
    made.scratch = forward.scratchpad_desc();
  } else if (mode == kImageGradient) {
    const dnnl::convolution_backward_data::primitive_desc backward(Engine(), direct, images, any, outputs, strides,
                                                                   gaps, low, high, forward, attributes);
    made.primitive = dnnl::convolution_backward_data(backward);
    made.kernel = backward.weights_desc();
    made.scratch = backward.scratchpad_desc();
  } else {
    const dnnl::convolution_backward_weights::primitive_desc backward(Engine(), direct, images, any, outputs, strides,
                                                                      gaps, low, high, forward, attributes);
    made.primitive = dnnl::convolution_backward_weights(backward);
    made.kernel = backward.diff_weights_desc();
    made.scratch = backward.scratchpad_desc();
  }
  if (made.kernel != kernel) {
    const bool is_result = mode == kKernelGradient;
    const dnnl::reorder::primitive_desc change(Engine(), is_result ? made.kernel : kernel, Engine(),
                                               is_result ? kernel : made.kernel, attributes);
    made.change = dnnl::reorder(change);
    made.change_scratch = change.scratchpad_desc();
  }
  return made;
}

// The convolutions that were used last, by everything that defines them.
class Cache {
 public:
  template <typename Make>
  std::shared_ptr<const Convolution> Get(const Dims& key, Make make) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = places_.find(key);
    if (found != places_.end()) {
      entries_.splice(entries_.begin(), entries_, found->second);
      return found->second->second;
    }
    entries_.emplace_front(key, std::make_shared<const Convolution>(make()));
    places_[key] = entries_.begin();
    if (entries_.size() > kMost) {
      places_.erase(entries_.back().first);
      entries_.pop_back();
    }
    return entries_.front().second;
  }

 private:
  static constexpr size_t kMost = 1024;
  using Entry = std::pair<Dims, std::shared_ptr<const Convolution>>;
  std::mutex mutex_;
  std::list<Entry> entries_;
  std::map<Dims, std::list<Entry>::iterator> places_;
};

Cache& Convolutions() {
  static Cache* const cache = new Cache;  // never destroyed: threads may still compute while the process ends
  return *cache;
}

constexpr size_t kAlignment = 64;

size_t Align(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// Memory of this thread, which grows as needed; a call uses it from its beginning to its end.
char* Workspace(size_t bytes) {
  static thread_local std::unique_ptr<char[]> memory;
  static thread_local size_t size = 0;
  if (bytes + kAlignment > size) {
    memory.reset();
    size = 0;
    memory.reset(new char[bytes + kAlignment]);
    size = bytes + kAlignment;
  }
  return reinterpret_cast<char*>(Align(reinterpret_cast<uintptr_t>(memory.get())));
}

void Append(const Array& array, Dims* key) {
  const auto shape = array.dimensions();
  key->push_back(static_cast<int64_t>(array.element_type()));
  key->push_back(static_cast<int64_t>(shape.size()));
  key->insert(key->end(), shape.begin(), shape.end());
}

void CheckShapes(const Array& images, const Array& kernel, const Array& outputs, const Window& window) {
  CheckTypes({&images, &kernel, &outputs});
  const auto x = images.dimensions(), w = kernel.dimensions(), y = outputs.dimensions();
  Check(x.size() >= 3 && x.size() <= 5 && w.size() == x.size() && y.size() == x.size(), "arrays need 3 to 5 axes");
  for (const auto* numbers : {&window.strides, &window.low, &window.high, &window.dilation})
    Check(numbers->size() == x.size() - 2, "a window has one number for each spatial axis");
  Check(window.groups > 0 && x.back() == w[w.size() - 2] * window.groups && w.back() % window.groups == 0 &&
            y.back() == w.back() && x[0] == y[0],
        "images, kernel, outputs and groups do not fit");
}

ffi::Error Convolve(Mode mode, Array images, Array kernel, Array outputs, const Window& window, int64_t threads) {
  return Guarded([&] {
    CheckShapes(images, kernel, outputs, window);
    CheckThreads(threads);
    const Desc x = DescribeActivations(images), w = DescribeKernel(kernel, window.groups),
               y = DescribeActivations(outputs);
    Dims key{mode, window.groups, threads};
    for (const auto* array : {&images, &kernel, &outputs}) Append(*array, &key);
    for (const auto* numbers : {&window.strides, &window.low, &window.high, &window.dilation})
      key.insert(key.end(), numbers->begin(), numbers->end());
    omp_set_num_threads(static_cast<int>(threads));
    const auto made = Convolutions().Get(key, [&] { return Prepare(mode, x, w, y, window); });

    const size_t scratch = Align(std::max(made->scratch.get_size(), made->change_scratch.get_size()));
    char* const memory = Workspace(scratch + (made->change ? made->kernel.get_size() : 0));
    const auto place = [](const Desc& desc, void* data) { return dnnl::memory(desc, Engine(), data); };
    const dnnl::memory given = place(w, kernel.untyped_data());
    const dnnl::memory own = made->change ? place(made->kernel, memory + scratch) : given;
    const auto change = [&](dnnl::stream& stream, const dnnl::memory& from, const dnnl::memory& to) {
      made->change.execute(stream, {{DNNL_ARG_FROM, from},
                                    {DNNL_ARG_TO, to},
                                    {DNNL_ARG_SCRATCHPAD, place(made->change_scratch, memory)}});
    };
    dnnl::stream stream(Engine());
    if (made->change && mode != kKernelGradient) change(stream, given, own);
    made->primitive.execute(
        stream, {{mode == kImageGradient ? DNNL_ARG_DIFF_SRC : DNNL_ARG_SRC, place(x, images.untyped_data())},
                 {mode == kKernelGradient ? DNNL_ARG_DIFF_WEIGHTS : DNNL_ARG_WEIGHTS, own},
                 {mode == kOutputs ? DNNL_ARG_DST : DNNL_ARG_DIFF_DST, place(y, outputs.untyped_data())},
                 {DNNL_ARG_SCRATCHPAD, place(made->scratch, memory)}});
    if (made->change && mode == kKernelGradient) change(stream, own, given);
    stream.wait();
  });
}

ffi::Error Outputs(Array images, Array kernel, ffi::Result<Array> outputs, Numbers strides, Numbers low, Numbers high,
                   Numbers dilation, int64_t groups, int64_t threads) {
  return Convolve(kOutputs, images, kernel, *outputs, {strides, low, high, dilation, groups}, threads);
}

ffi::Error ImageGradient(Array cotangent, Array kernel, ffi::Result<Array> images, Numbers strides, Numbers low,
                         Numbers high, Numbers dilation, int64_t groups, int64_t threads) {
  return Convolve(kImageGradient, *images, kernel, cotangent, {strides, low, high, dilation, groups}, threads);
}

ffi::Error KernelGradient(Array images, Array cotangent, ffi::Result<Array> kernel, Numbers strides, Numbers low,
                          Numbers high, Numbers dilation, int64_t groups, int64_t threads) {
  return Convolve(kKernelGradient, images, *kernel, cotangent, {strides, low, high, dilation, groups}, threads);
}

auto BindConvolution() {
  return ffi::Ffi::Bind()
      .Arg<Array>()
      .Arg<Array>()
      .Ret<Array>()
      .Attr<Numbers>("strides")
      .Attr<Numbers>("low")
      .Attr<Numbers>("high")
      .Attr<Numbers>("dilation")
      .Attr<int64_t>("groups")
      .Attr<int64_t>("threads");
}

// ---- numbers --------------------------------------------------------------------------------------------------------

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

int64_t CountRows(const Array& array) {
  const int64_t channels = array.dimensions().back();
  return channels ? static_cast<int64_t>(array.element_count()) / channels : 0;
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

// ---- channels -------------------------------------------------------------------------------------------------------

// Raises an error unless there are channels, in all arrays the same, and one number for each of them in all vectors.
void CheckChannels(std::initializer_list<const Array*> arrays, std::initializer_list<const Vector*> vectors) {
  CheckTypes(arrays);
  const auto shape = (*arrays.begin())->dimensions();
  Check(shape.size() > 0, "arrays need an axis of channels");
  for (const auto* array : arrays) {
    const auto other = array->dimensions();
    Check(std::equal(shape.begin(), shape.end(), other.begin(), other.end()), "arrays must have the same shape");
  }
  for (const auto* vector : vectors)
    Check(static_cast<int64_t>(vector->element_count()) == shape.back(), "vectors need a number for each channel");
}

// For each channel, the sums over all rows of `add(row, channel, &first, &second)`: first all first, then all second.
template <typename Add>
std::vector<double> SumChannels(int64_t rows, int64_t channels, int64_t threads, Add add) {
  CheckThreads(threads);
  constexpr int64_t kBlock = 256;  // rows that are added in float32, before their sum is added in float64
  std::vector<double> totals(2 * channels * threads);
  Divide(rows, threads, [&](int64_t begin, int64_t end, int64_t part) {
    std::vector<float> block(2 * channels);
    float* const first = block.data();
    float* const second = first + channels;
    double* const total = totals.data() + 2 * channels * part;
    for (int64_t start = begin; start < end; start += kBlock) {
      std::fill(block.begin(), block.end(), 0.0f);
      for (int64_t row = start; row < std::min(end, start + kBlock); ++row)
        ForChannels(channels, [&](int64_t c) { add(row, c, first + c, second + c); });
      for (int64_t c = 0; c < 2 * channels; ++c) total[c] += block[c];
    }
  });
  for (int64_t part = 1; part < threads; ++part)
    for (int64_t c = 0; c < 2 * channels; ++c) totals[c] += totals[2 * channels * part + c];
  totals.resize(2 * channels);
  return totals;
}

// The mean and the variance of each channel, float32 (2, channels).
ffi::Error Moments(Array x, ffi::Result<Vector> moments, int64_t threads) {
  return Guarded([&] {
    CheckChannels({&x}, {});
    const int64_t channels = x.dimensions().back(), rows = CountRows(x);
    Check(static_cast<int64_t>(moments->element_count()) == 2 * channels, "a channel has two moments");
    WithType(x, [&](auto type) {
      const auto* const values = Data<decltype(type)>(x);
      // Of the distances to the first row, for squares of large values would hide a small variance.
      std::vector<float> origin(channels);
      if (rows) std::transform(values, values + channels, origin.begin(), [](auto value) { return Widen(value); });
      const float* const from = origin.data();
      const auto sums =
          SumChannels(rows, channels, threads, [=](int64_t row, int64_t c, float* sum, float* squares) {
            const float value = Widen(values[row * channels + c]) - from[c];
            *sum += value;
            *squares += value * value;
          });
      float* const to = moments->typed_data();
      for (int64_t c = 0; c < channels; ++c) {
        const double mean = sums[c] / rows;
        to[c] = static_cast<float>(from[c] + mean);
        to[channels + c] = static_cast<float>(std::max(sums[channels + c] / rows - mean * mean, 0.0));
      }
    });
  });
}

// y = (x - mean) * scale + bias, and 0 in place of what is negative if `relu`.
ffi::Error Affine(Array x, Vector mean, Vector scale, Vector bias, ffi::Result<Array> y, bool relu, int64_t threads) {
  return Guarded([&] {
    CheckChannels({&x, &*y}, {&mean, &scale, &bias});
    const int64_t channels = x.dimensions().back();
    const float *const u = mean.typed_data(), *const k = scale.typed_data(), *const b = bias.typed_data();
    const float least = relu ? 0.0f : -std::numeric_limits<float>::infinity();
    WithType(x, [&](auto type) {
      using T = decltype(type);
      const T* const from = Data<T>(x);
      T* const to = Data<T>(*y);
      Divide(CountRows(x), threads, [&](int64_t begin, int64_t end, int64_t) {
        for (int64_t at = begin * channels; at < end * channels; at += channels)
          ForChannels(channels, [&](int64_t c) {
            const float value = (Widen(from[at + c]) - u[c]) * k[c] + b[c];
            Store(value < least ? least : value, to + at + c);
          });
      });
    });
  });
}

// The cotangent before a ReLU: none where y = x * scale + bias is not positive.
inline float Pass(float cotangent, float x, float scale, float bias, bool relu) {
  return !relu || x * scale + bias > 0 ? cotangent : 0.0f;
}

// The sums of the cotangent g of `Affine`, as it is before the ReLU, and of g * (x - mean).
ffi::Error AffineSums(Array x, Array cotangent, Vector mean, Vector scale, Vector bias, ffi::Result<Vector> sums,
                      bool relu, int64_t threads) {
  return Guarded([&] {
    CheckChannels({&x, &cotangent}, {&mean, &scale, &bias});
    const int64_t channels = x.dimensions().back();
    Check(static_cast<int64_t>(sums->element_count()) == 2 * channels, "a channel has two sums");
    const float *const u = mean.typed_data(), *const k = scale.typed_data(), *const b = bias.typed_data();
    WithType(x, [&](auto type) {
      using T = decltype(type);
      const T *const values = Data<T>(x), *const cotangents = Data<T>(cotangent);
      const auto totals =
          SumChannels(CountRows(x), channels, threads, [=](int64_t row, int64_t c, float* sum, float* products) {
            const float value = Widen(values[row * channels + c]) - u[c];
            const float g = Pass(Widen(cotangents[row * channels + c]), value, k[c], b[c], relu);
            *sum += g;
            *products += g * value;
          });
      std::transform(totals.begin(), totals.end(), sums->typed_data(), [](double sum) { return float(sum); });
    });
  });
}

// g * scale + (x - mean) * slope + offset, where g is the cotangent of `Affine` as it is before the ReLU.
ffi::Error AffineGradient(Array x, Array cotangent, Vector mean, Vector scale, Vector bias, Vector slope, Vector offset,
                          ffi::Result<Array> gradient, bool relu, int64_t threads) {
  return Guarded([&] {
    CheckChannels({&x, &cotangent, &*gradient}, {&mean, &scale, &bias, &slope, &offset});
    const int64_t channels = x.dimensions().back();
    const float *const u = mean.typed_data(), *const k = scale.typed_data(), *const b = bias.typed_data(),
                       *const m = slope.typed_data(), *const o = offset.typed_data();
    WithType(x, [&](auto type) {
      using T = decltype(type);
      const T *const values = Data<T>(x), *const cotangents = Data<T>(cotangent);
      T* const to = Data<T>(*gradient);
      Divide(CountRows(x), threads, [&](int64_t begin, int64_t end, int64_t) {
        for (int64_t at = begin * channels; at < end * channels; at += channels)
          ForChannels(channels, [&](int64_t c) {
            const float value = Widen(values[at + c]) - u[c];
            const float g = Pass(Widen(cotangents[at + c]), value, k[c], b[c], relu);
            Store(g * k[c] + value * m[c] + o[c], to + at + c);
          });
      });
    });
  });
}

// ---- pooling --------------------------------------------------------------------------------------------------------

// A pooling window (height, width), its steps, and the rows and columns before the images.
struct Places {
  int64_t height, width, down, across, top, left;
  explicit Places(Numbers numbers) {
    Check(numbers.size() == 6, "a pooling window has 6 numbers");
    height = numbers[0], width = numbers[1], down = numbers[2], across = numbers[3], top = numbers[4],
    left = numbers[5];
    for (const int64_t length : {height, width}) Check(length > 0 && length <= 256, "no such pooling window");
    for (const int64_t step : {down, across}) Check(step > 0 && step <= 1 << 30, "no such steps of a pooling window");
    Check(height * width <= 256 && top >= 0 && top < height && left >= 0 && left < width, "no such pooling window");
  }
};

struct Sizes {
  int64_t batch, height, width, channels;
  explicit Sizes(const Array& array) {
    const auto shape = array.dimensions();
    Check(shape.size() == 4, "pooling needs arrays (batch, height, width, channels)");
    batch = shape[0], height = shape[1], width = shape[2], channels = shape[3];
  }
};

void CheckSizes(const Sizes& in, const Sizes& out, const Places& window) {
  Check(in.batch == out.batch && in.channels == out.channels, "images and outputs of a pooling do not fit");
  Check((out.height - 1) * window.down - window.top < in.height && (out.width - 1) * window.across - window.left < in.width,
        "every window must see some of the images");
}

// Calls `begin()`, `see(input, position)` for all inputs in its window, and `end(output)`, for each output of a line.
template <typename Begin, typename See, typename End>
void SlideLine(int64_t line, const Sizes& in, const Sizes& out, const Places& window, Begin begin, See see, End end) {
  const int64_t image = line / out.height, top = line % out.height * window.down - window.top;
  for (int64_t j = 0; j < out.width; ++j) {
    const int64_t left = j * window.across - window.left;
    begin();
    for (int64_t row = std::max<int64_t>(top, 0); row < std::min(top + window.height, in.height); ++row)
      for (int64_t column = std::max<int64_t>(left, 0); column < std::min(left + window.width, in.width); ++column)
        see(((image * in.height + row) * in.width + column) * in.channels,
            static_cast<int32_t>((row - top) * window.width + column - left));
    end((line * out.width + j) * out.channels);
  }
}

// For each input of a line, the sum of `give(output, position, channel)` over the windows that contain it.
template <typename T, typename Give>
void GatherLine(int64_t line, const Sizes& in, const Sizes& out, const Places& window, float* sums, T* to, Give give) {
  const auto first = [](int64_t place, int64_t size, int64_t step) {
    return place < size ? 0 : (place - size) / step + 1;
  };
  const auto last = [](int64_t place, int64_t step, int64_t count) { return std::min(place / step, count - 1); };
  const int64_t image = line / in.height, row = line % in.height + window.top;
  for (int64_t j = 0; j < in.width; ++j) {
    const int64_t column = j + window.left;
    std::fill(sums, sums + in.channels, 0.0f);
    for (int64_t p = first(row, window.height, window.down); p <= last(row, window.down, out.height); ++p)
      for (int64_t q = first(column, window.width, window.across); q <= last(column, window.across, out.width); ++q) {
        const int64_t at = ((image * out.height + p) * out.width + q) * out.channels;
        const auto position =
            static_cast<int32_t>((row - p * window.down) * window.width + column - q * window.across);
        ForChannels(in.channels, [&](int64_t c) { sums[c] += give(at, position, c); });
      }
    ForChannels(in.channels, [&](int64_t c) { Store(sums[c], to + (line * in.width + j) * in.channels + c); });
  }
}

// The largest value in every window, and the position in its window of the first such, uint8; NaN is the largest.
ffi::Error MaxPool(Array x, ffi::Result<Array> y, ffi::Result<ffi::Buffer<ffi::U8>> positions, Numbers numbers,
                   int64_t threads) {
  return Guarded([&] {
    CheckTypes({&x, &*y});
    const Places window(numbers);
    const Sizes in(x), out(*y);
    CheckSizes(in, out, window);
    Check(positions->element_count() == y->element_count(), "every output has a position");
    WithType(x, [&](auto type) {
      using T = decltype(type);
      const T* const values = Data<T>(x);
      T* const maxima = Data<T>(*y);
      uint8_t* const winners = positions->typed_data();
      Divide(out.batch * out.height, threads, [&](int64_t begin, int64_t end, int64_t) {
        std::vector<float> best(out.channels);
        std::vector<int32_t> winner(out.channels);
        float* const b = best.data();
        int32_t* const w = winner.data();
        for (int64_t line = begin; line < end; ++line)
          SlideLine(
              line, in, out, window, [&] { std::fill(winner.begin(), winner.end(), -1); },
              [&](int64_t at, int32_t position) {
                ForChannels(out.channels, [&](int64_t c) {
                  const float value = Widen(values[at + c]);
                  const bool wins = w[c] < 0 || (!(value <= b[c]) && b[c] == b[c]);
                  b[c] = wins ? value : b[c];
                  w[c] = wins ? position : w[c];
                });
              },
              [&](int64_t at) {
                ForChannels(out.channels, [&](int64_t c) {
                  Store(b[c], maxima + at + c);
                  winners[at + c] = static_cast<uint8_t>(w[c]);
                });
              });
      });
    });
  });
}

ffi::Error MaxPoolGradient(Array cotangent, ffi::Buffer<ffi::U8> positions, ffi::Result<Array> gradient,
                           Numbers numbers, int64_t threads) {
  return Guarded([&] {
    CheckTypes({&cotangent, &*gradient});
    const Places window(numbers);
    const Sizes in(*gradient), out(cotangent);
    CheckSizes(in, out, window);
    Check(positions.element_count() == cotangent.element_count(), "every output has a position");
    WithType(cotangent, [&](auto type) {
      using T = decltype(type);
      const T* const cotangents = Data<T>(cotangent);
      const uint8_t* const winners = positions.typed_data();
      Divide(in.batch * in.height, threads, [&](int64_t begin, int64_t end, int64_t) {
        std::vector<float> sums(in.channels);
        for (int64_t line = begin; line < end; ++line)
          GatherLine(line, in, out, window, sums.data(), Data<T>(*gradient),
                     [&](int64_t at, int32_t position, int64_t c) {
                       return winners[at + c] == position ? Widen(cotangents[at + c]) : 0.0f;
                     });
      });
    });
  });
}

// The sum of every window.
ffi::Error SumPool(Array x, ffi::Result<Array> y, Numbers numbers, int64_t threads) {
  return Guarded([&] {
    CheckTypes({&x, &*y});
    const Places window(numbers);
    const Sizes in(x), out(*y);
    CheckSizes(in, out, window);
    WithType(x, [&](auto type) {
      using T = decltype(type);
      const T* const values = Data<T>(x);
      T* const to = Data<T>(*y);
      Divide(out.batch * out.height, threads, [&](int64_t begin, int64_t end, int64_t) {
        std::vector<float> sums(out.channels);
        float* const s = sums.data();
        for (int64_t line = begin; line < end; ++line)
          SlideLine(
              line, in, out, window, [&] { std::fill(sums.begin(), sums.end(), 0.0f); },
              [&](int64_t at, int32_t) { ForChannels(out.channels, [&](int64_t c) { s[c] += Widen(values[at + c]); }); },
              [&](int64_t at) { ForChannels(out.channels, [&](int64_t c) { Store(s[c], to + at + c); }); });
      });
    });
  });
}

ffi::Error SumPoolGradient(Array cotangent, ffi::Result<Array> gradient, Numbers numbers, int64_t threads) {
  return Guarded([&] {
    CheckTypes({&cotangent, &*gradient});
    const Places window(numbers);
    const Sizes in(*gradient), out(cotangent);
    CheckSizes(in, out, window);
    WithType(cotangent, [&](auto type) {
      using T = decltype(type);
      const T* const cotangents = Data<T>(cotangent);
      Divide(in.batch * in.height, threads, [&](int64_t begin, int64_t end, int64_t) {
        std::vector<float> sums(in.channels);
        for (int64_t line = begin; line < end; ++line)
          GatherLine(line, in, out, window, sums.data(), Data<T>(*gradient),
                     [&](int64_t at, int32_t, int64_t c) { return Widen(cotangents[at + c]); });
      });
    });
  });
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(convolution_outputs, Outputs, BindConvolution());
XLA_FFI_DEFINE_HANDLER_SYMBOL(convolution_image_gradient, ImageGradient, BindConvolution());
XLA_FFI_DEFINE_HANDLER_SYMBOL(convolution_kernel_gradient, KernelGradient, BindConvolution());
XLA_FFI_DEFINE_HANDLER_SYMBOL(channel_moments, Moments,
                              ffi::Ffi::Bind().Arg<Array>().Ret<Vector>().Attr<int64_t>("threads"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    channel_affine, Affine,
    ffi::Ffi::Bind()
        .Arg<Array>()
        .Arg<Vector>()
        .Arg<Vector>()
        .Arg<Vector>()
        .Ret<Array>()
        .Attr<bool>("relu")
        .Attr<int64_t>("threads"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(channel_affine_sums, AffineSums,
                              ffi::Ffi::Bind()
                                  .Arg<Array>()
                                  .Arg<Array>()
                                  .Arg<Vector>()
                                  .Arg<Vector>()
                                  .Arg<Vector>()
                                  .Ret<Vector>()
                                  .Attr<bool>("relu")
                                  .Attr<int64_t>("threads"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(channel_affine_gradient, AffineGradient,
                              ffi::Ffi::Bind()
                                  .Arg<Array>()
                                  .Arg<Array>()
                                  .Arg<Vector>()
                                  .Arg<Vector>()
                                  .Arg<Vector>()
                                  .Arg<Vector>()
                                  .Arg<Vector>()
                                  .Ret<Array>()
                                  .Attr<bool>("relu")
                                  .Attr<int64_t>("threads"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    max_pool, MaxPool,
    ffi::Ffi::Bind().Arg<Array>().Ret<Array>().Ret<ffi::Buffer<ffi::U8>>().Attr<Numbers>("window").Attr<int64_t>(
        "threads"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    max_pool_gradient, MaxPoolGradient,
    ffi::Ffi::Bind().Arg<Array>().Arg<ffi::Buffer<ffi::U8>>().Ret<Array>().Attr<Numbers>("window").Attr<int64_t>(
        "threads"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    sum_pool, SumPool,
    ffi::Ffi::Bind().Arg<Array>().Ret<Array>().Attr<Numbers>("window").Attr<int64_t>("threads"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    sum_pool_gradient, SumPoolGradient,
    ffi::Ffi::Bind().Arg<Array>().Ret<Array>().Attr<Numbers>("window").Attr<int64_t>("threads"));

extern "C" {
extern const int onednn_version[3];  // major, minor, patch
extern const int has_bfloat16;       // whether oneDNN can convolve bfloat16 on this CPU
}
const int onednn_version[3] = {dnnl_version()->major, dnnl_version()->minor, dnnl_version()->patch};
const int has_bfloat16 = (static_cast<int>(dnnl::get_effective_cpu_isa()) & dnnl_cpu_isa_avx512_core) == dnnl_cpu_isa_avx512_core;
