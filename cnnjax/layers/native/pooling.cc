// The maximum and the sum of each window of images (batch, height, width, channels), and their gradients.

#include <vector>

#include "calls.h"

namespace {

struct Sizes {
  int64_t batch, height, width, channels;
  explicit Sizes(const Array& array) {
    const auto shape = array.dimensions();
    Check(shape.size() == 4, "pooling needs arrays (batch, height, width, channels)");
    batch = shape[0], height = shape[1], width = shape[2], channels = shape[3];
  }
};

// A window (height, width), its steps, the rows and columns before the images, and the sizes of images and outputs.
struct Pooling {
  int64_t height, width, down, across, top, left;
  Sizes in, out;

  Pooling(Numbers numbers, const Array& images, const Array& outputs) : in(images), out(outputs) {
    CheckTypes({&images, &outputs});
    Check(numbers.size() == 6, "a pooling window has 6 numbers");
    height = numbers[0], width = numbers[1], down = numbers[2], across = numbers[3], top = numbers[4],
    left = numbers[5];
    for (const int64_t length : {height, width}) Check(length > 0 && length <= 256, "no such pooling window");
    for (const int64_t step : {down, across}) Check(step > 0 && step <= 1 << 30, "no such steps of a pooling window");
    Check(height * width <= 256 && top >= 0 && top < height && left >= 0 && left < width, "no such pooling window");
    Check(in.batch == out.batch && in.channels == out.channels, "images and outputs of a pooling do not fit");
    Check((out.height - 1) * down - top < in.height && (out.width - 1) * across - left < in.width,
          "every window must see some of the images");
  }
};

// The sum of each window.
template <typename T>
class Sums {
 public:
  Sums(const T* values, T* to, int64_t channels) : values_(values), to_(to), sums_(channels) {}

  void Begin() { std::fill(sums_.begin(), sums_.end(), 0.0f); }
  void See(int64_t at, int32_t) {
    float* const s = sums_.data();
    ForChannels(sums_.size(), [=, values = values_](int64_t c) { s[c] += Widen(values[at + c]); });
  }
  void End(int64_t at) {
    const float* const s = sums_.data();
    ForChannels(sums_.size(), [=, to = to_](int64_t c) { Store(s[c], to + at + c); });
  }

 private:
  const T* const values_;
  T* const to_;
  std::vector<float> sums_;
};

// The largest value of each window, and the position in its window of the first such; NaN is the largest.
template <typename T>
class Maxima {
 public:
  Maxima(const T* values, T* to, uint8_t* positions, int64_t channels)
      : values_(values), to_(to), positions_(positions), best_(channels), winner_(channels) {}

  void Begin() { std::fill(winner_.begin(), winner_.end(), -1); }
  void See(int64_t at, int32_t position) {
    float* const b = best_.data();
    int32_t* const w = winner_.data();
    ForChannels(best_.size(), [=, values = values_](int64_t c) {
      const float value = Widen(values[at + c]);
      const bool wins = w[c] < 0 || (!(value <= b[c]) && b[c] == b[c]);
      b[c] = wins ? value : b[c];
      w[c] = wins ? position : w[c];
    });
  }
  void End(int64_t at) {
    const float* const b = best_.data();
    const int32_t* const w = winner_.data();
    ForChannels(best_.size(), [=, to = to_, positions = positions_](int64_t c) {
      Store(b[c], to + at + c);
      positions[at + c] = static_cast<uint8_t>(w[c]);
    });
  }

 private:
  const T* const values_;
  T* const to_;
  uint8_t* const positions_;
  std::vector<float> best_;
  std::vector<int32_t> winner_;
};

// Slides the window: for each output, `Begin()`, `See(input, position)` for all inputs in its window, `End(output)`.
template <typename Reduction>
void Slide(const Pooling& p, int64_t threads, const Reduction& prototype) {
  Divide(p.out.batch * p.out.height, threads, [&](int64_t begin, int64_t end, int64_t) {
    Reduction reduction = prototype;
    for (int64_t line = begin; line < end; ++line) {
      const int64_t image = line / p.out.height, top = line % p.out.height * p.down - p.top;
      for (int64_t j = 0; j < p.out.width; ++j) {
        const int64_t left = j * p.across - p.left;
        reduction.Begin();
        for (int64_t row = std::max<int64_t>(top, 0); row < std::min(top + p.height, p.in.height); ++row)
          for (int64_t column = std::max<int64_t>(left, 0); column < std::min(left + p.width, p.in.width); ++column)
            reduction.See(((image * p.in.height + row) * p.in.width + column) * p.in.channels,
                    static_cast<int32_t>((row - top) * p.width + column - left));
        reduction.End((line * p.out.width + j) * p.out.channels);
      }
    }
  });
}

// Gives each input the cotangents of those windows that contain it and for which `takes(number, position)`.
template <typename Takes>
void Gather(const Pooling& p, int64_t threads, const Array& cotangent, const Array& gradient, Takes takes) {
  const auto first = [](int64_t place, int64_t size, int64_t step) {
    return place < size ? 0 : (place - size) / step + 1;
  };
  const auto last = [](int64_t place, int64_t step, int64_t count) { return std::min(place / step, count - 1); };
  WithType(cotangent, [&](auto type) {
    using T = decltype(type);
    const T* const cotangents = Data<T>(cotangent);
    T* const to = Data<T>(gradient);
    Divide(p.in.batch * p.in.height, threads, [&](int64_t begin, int64_t end, int64_t) {
      std::vector<float> numbers(p.in.channels);
      float* const sums = numbers.data();
      for (int64_t line = begin; line < end; ++line) {
        const int64_t image = line / p.in.height, row = line % p.in.height + p.top;
        for (int64_t j = 0; j < p.in.width; ++j) {
          const int64_t column = j + p.left;
          std::fill(numbers.begin(), numbers.end(), 0.0f);
          for (int64_t y = first(row, p.height, p.down); y <= last(row, p.down, p.out.height); ++y)
            for (int64_t x = first(column, p.width, p.across); x <= last(column, p.across, p.out.width); ++x) {
              const int64_t at = ((image * p.out.height + y) * p.out.width + x) * p.out.channels;
              const auto position = static_cast<int32_t>((row - y * p.down) * p.width + column - x * p.across);
              ForChannels(p.in.channels, [=](int64_t c) {
                const float g = Widen(cotangents[at + c]);  // always: GCC 12 vectorises a conditional read wrongly
                sums[c] += takes(at + c, position) ? g : 0.0f;
              });
            }
          T* const pixel = to + (line * p.in.width + j) * p.in.channels;
          ForChannels(p.in.channels, [=](int64_t c) { Store(sums[c], pixel + c); });
        }
      }
    });
  });
}

void MaxPool(Array x, ffi::Result<Array> y, ffi::Result<Bytes> positions, PoolingNumbers window, Threads threads) {
  const Pooling pooling(*window, x, *y);
  Check(positions->element_count() == y->element_count(), "every output has a position");
  WithType(x, [&](auto type) {
    using T = decltype(type);
    Slide(pooling, *threads, Maxima<T>(Data<T>(x), Data<T>(*y), positions->typed_data(), pooling.in.channels));
  });
}

void MaxPoolGradient(Array cotangent, Bytes positions, ffi::Result<Array> gradient, PoolingNumbers window,
                     Threads threads) {
  const Pooling pooling(*window, *gradient, cotangent);
  Check(positions.element_count() == cotangent.element_count(), "every output has a position");
  const uint8_t* const winners = positions.typed_data();
  Gather(pooling, *threads, cotangent, *gradient,
         [=](int64_t at, int32_t position) { return winners[at] == position; });
}

void SumPool(Array x, ffi::Result<Array> y, PoolingNumbers window, Threads threads) {
  const Pooling pooling(*window, x, *y);
  WithType(x, [&](auto type) {
    using T = decltype(type);
    Slide(pooling, *threads, Sums<T>(Data<T>(x), Data<T>(*y), pooling.in.channels));
  });
}

void SumPoolGradient(Array cotangent, ffi::Result<Array> gradient, PoolingNumbers window, Threads threads) {
  const Pooling pooling(*window, *gradient, cotangent);
  Gather(pooling, *threads, cotangent, *gradient, [](int64_t, int32_t) { return true; });
}

}  // namespace

DEFINE_CUSTOM_CALL(max_pool, MaxPool);
DEFINE_CUSTOM_CALL(max_pool_gradient, MaxPoolGradient);
DEFINE_CUSTOM_CALL(sum_pool, SumPool);
DEFINE_CUSTOM_CALL(sum_pool_gradient, SumPoolGradient);
