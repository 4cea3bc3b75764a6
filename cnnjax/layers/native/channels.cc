// Loops over the rows of an array that treat each channel by itself: what batch normalisation and biases need.

#include <limits>
#include <vector>

#include "calls.h"

namespace {

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

int64_t CountRows(const Array& array) {
  const int64_t channels = array.dimensions().back();
  return channels ? static_cast<int64_t>(array.element_count()) / channels : 0;
}

// Runs `run(place, channel)` for all numbers of an array.
template <typename Run>
void ForNumbers(const Array& array, int64_t threads, Run run) {
  const int64_t channels = array.dimensions().back();
  Divide(CountRows(array), threads, [=](int64_t begin, int64_t end, int64_t) {
    for (int64_t at = begin * channels; at < end * channels; at += channels)
      ForChannels(channels, [=](int64_t c) { run(at + c, c); });
  });
}

// For each channel, the sums over all numbers of `add(place, channel, &first, &second)`: all first, then all second.
template <typename Add>
std::vector<double> SumChannels(const Array& array, int64_t threads, Add add) {
  CheckThreads(threads);
  constexpr int64_t kBlock = 256;  // rows that are added in float32, before their sum is added in float64
  const int64_t channels = array.dimensions().back();
  std::vector<double> totals(2 * channels * threads);
  Divide(CountRows(array), threads, [&](int64_t begin, int64_t end, int64_t part) {
    std::vector<float> block(2 * channels);
    float* const first = block.data();
    float* const second = first + channels;
    double* const total = totals.data() + 2 * channels * part;
    for (int64_t start = begin; start < end; start += kBlock) {
      std::fill(block.begin(), block.end(), 0.0f);
      for (int64_t row = start; row < std::min(end, start + kBlock); ++row)
        ForChannels(channels, [&](int64_t c) { add(row * channels + c, c, first + c, second + c); });
      for (int64_t c = 0; c < 2 * channels; ++c) total[c] += block[c];
    }
  });
  for (int64_t part = 1; part < threads; ++part)
    for (int64_t c = 0; c < 2 * channels; ++c) totals[c] += totals[2 * channels * part + c];
  totals.resize(2 * channels);
  return totals;
}

// The mean and the variance of each channel, float32 (2, channels).
void Moments(Array x, ffi::Result<Vector> moments, Threads threads) {
  CheckChannels({&x}, {});
  const int64_t channels = x.dimensions().back(), rows = CountRows(x);
  Check(static_cast<int64_t>(moments->element_count()) == 2 * channels, "a channel has two moments");
  WithType(x, [&](auto type) {
    const auto* const values = Data<decltype(type)>(x);
    // Of the distances to the first row, for squares of large values would hide a small variance.
    std::vector<float> origin(channels);
    if (rows) std::transform(values, values + channels, origin.begin(), [](auto value) { return Widen(value); });
    const float* const from = origin.data();
    const auto sums = SumChannels(x, *threads, [=](int64_t at, int64_t c, float* sum, float* squares) {
      const float value = Widen(values[at]) - from[c];
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
}

// y = (x - mean) * scale + bias, and 0 in place of what is negative if `relu`.
void Affine(Array x, Vector mean, Vector scale, Vector bias, ffi::Result<Array> y, Relu relu, Threads threads) {
  CheckChannels({&x, &*y}, {&mean, &scale, &bias});
  const float *const u = mean.typed_data(), *const k = scale.typed_data(), *const b = bias.typed_data();
  const float least = *relu ? 0.0f : -std::numeric_limits<float>::infinity();
  WithType(x, [&](auto type) {
    using T = decltype(type);
    const T* const from = Data<T>(x);
    T* const to = Data<T>(*y);
    ForNumbers(x, *threads, [=](int64_t at, int64_t c) {
      const float value = (Widen(from[at]) - u[c]) * k[c] + b[c];
      Store(value < least ? least : value, to + at);
    });
  });
}

// The cotangent before a ReLU: none where y = x * scale + bias is not positive.
inline float Pass(float cotangent, float x, float scale, float bias, bool relu) {
  return !relu || x * scale + bias > 0 ? cotangent : 0.0f;
}

// The sums of the cotangent g of `Affine`, as it is before the ReLU, and of g * (x - mean).
void AffineSums(Array x, Array cotangent, Vector mean, Vector scale, Vector bias, ffi::Result<Vector> sums, Relu relu,
                Threads threads) {
  CheckChannels({&x, &cotangent}, {&mean, &scale, &bias});
  Check(static_cast<int64_t>(sums->element_count()) == 2 * x.dimensions().back(), "a channel has two sums");
  const float *const u = mean.typed_data(), *const k = scale.typed_data(), *const b = bias.typed_data();
  WithType(x, [&, has_relu = *relu](auto type) {
    using T = decltype(type);
    const T *const values = Data<T>(x), *const cotangents = Data<T>(cotangent);
    const auto totals = SumChannels(x, *threads, [=](int64_t at, int64_t c, float* sum, float* products) {
      const float value = Widen(values[at]) - u[c];
      const float g = Pass(Widen(cotangents[at]), value, k[c], b[c], has_relu);
      *sum += g;
      *products += g * value;
    });
    std::transform(totals.begin(), totals.end(), sums->typed_data(), [](double sum) { return float(sum); });
  });
}

// g * scale + (x - mean) * slope + offset, where g is the cotangent of `Affine` as it is before the ReLU.
void AffineGradient(Array x, Array cotangent, Vector mean, Vector scale, Vector bias, Vector slope, Vector offset,
                    ffi::Result<Array> gradient, Relu relu, Threads threads) {
  CheckChannels({&x, &cotangent, &*gradient}, {&mean, &scale, &bias, &slope, &offset});
  const float *const u = mean.typed_data(), *const k = scale.typed_data(), *const b = bias.typed_data(),
                     *const m = slope.typed_data(), *const o = offset.typed_data();
  WithType(x, [&, has_relu = *relu](auto type) {
    using T = decltype(type);
    const T *const values = Data<T>(x), *const cotangents = Data<T>(cotangent);
    T* const to = Data<T>(*gradient);
    ForNumbers(x, *threads, [=](int64_t at, int64_t c) {
      const float value = Widen(values[at]) - u[c];
      const float g = Pass(Widen(cotangents[at]), value, k[c], b[c], has_relu);
      Store(g * k[c] + value * m[c] + o[c], to + at);
    });
  });
}

}  // namespace

DEFINE_CUSTOM_CALL(channel_moments, Moments);
DEFINE_CUSTOM_CALL(channel_affine, Affine);
DEFINE_CUSTOM_CALL(channel_affine_sums, AffineSums);
DEFINE_CUSTOM_CALL(channel_affine_gradient, AffineGradient);
