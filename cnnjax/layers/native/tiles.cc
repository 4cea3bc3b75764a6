// Minimal filtering of 3x3 windows at stride 1: a tile of 4x4 outputs takes 36 products instead of 144.
//
// Tiles of 6x6 inputs, and the window, are transformed to 36 points. There the outputs of all tiles are matrix products
// over the channels, which are transformed back. Tiles go through in blocks that stay in the caches.
//
// Winograd, "Arithmetic complexity of computations", 1980; the matrices are those of Lavin and Gray, "Fast algorithms
// for convolutional neural networks", 2016, for F(4x4, 3x3).

#include "convolution.h"
#include "product.h"

namespace {

constexpr int64_t kTaps = 3, kTile = 4, kPlaces = kTaps + kTile - 1, kPoints = kPlaces * kPlaces;
constexpr int64_t kBlockBytes = 1 << 20;  // of a block of tiles at all points, before and after the products
constexpr int64_t kChannels = 16;         // channels and filters are multiples of it
constexpr int64_t kGap = 16;  // between the points of a block, which would else share few places in the caches

// Saves the points 1, -1, 2 and -2, from the even and the odd powers at the points 1 and 2.
void SaveSigns(const Lanes& even, const Lanes& odd, const Lanes& far_even, const Lanes& far_odd, Lanes* to, int stride) {
  to[stride] = even + odd;
  to[2 * stride] = even - odd;
  to[3 * stride] = far_even + far_odd;
  to[4 * stride] = far_even - far_odd;
}

// Each transform reads numbers that are `step` apart, and writes numbers that are `stride` apart.

// B^T: 6 inputs to 6 points.
struct Inputs {
  static constexpr int kFrom = kPlaces, kTo = kPlaces;
  static void Transform(const Lanes* from, int step, Lanes* to, int stride) {
    const Lanes a = from[0], b = from[step], c = from[2 * step], d = from[3 * step], e = from[4 * step],
                f = from[5 * step];
    const Lanes even = e - 4.0f * c, odd = d - 4.0f * b, far_even = e - c, far_odd = 2.0f * (d - b);
    to[0] = 4.0f * a - 5.0f * c + e;
    SaveSigns(even, odd, far_even, far_odd, to, stride);
    to[5 * stride] = 4.0f * b - 5.0f * d + f;
  }
};

// A^T: 6 points to 4 outputs.
struct Outputs {
  static constexpr int kFrom = kPlaces, kTo = kTile;
  static void Transform(const Lanes* from, int step, Lanes* to, int stride) {
    const Lanes even = from[step] + from[2 * step], odd = from[step] - from[2 * step],
                far_even = from[3 * step] + from[4 * step], far_odd = from[3 * step] - from[4 * step];
    to[0] = from[0] + even + far_even;
    to[stride] = odd + 2.0f * far_odd;
    to[2 * stride] = even + 4.0f * far_even;
    to[3 * stride] = odd + 8.0f * far_odd + from[5 * step];
  }
};

// A: cotangents of 4 outputs to 6 points.
struct OutputCotangents {
  static constexpr int kFrom = kTile, kTo = kPlaces;
  static void Transform(const Lanes* from, int step, Lanes* to, int stride) {
    const Lanes a = from[0], b = from[step], c = from[2 * step], d = from[3 * step];
    const Lanes even = a + c, odd = b + d, far_even = a + 4.0f * c, far_odd = 2.0f * b + 8.0f * d;
    to[0] = a;
    SaveSigns(even, odd, far_even, far_odd, to, stride);
    to[5 * stride] = d;
  }
};

// G: 3 taps to 6 points.
struct Taps {
  static constexpr int kFrom = kTaps, kTo = kPlaces;
  static void Transform(const Lanes* from, int step, Lanes* to, int stride) {
    const Lanes a = from[0], b = from[step], c = from[2 * step];
    const Lanes even = (a + c) * (-1.0f / 6), odd = b * (-1.0f / 6), far_even = a * (1.0f / 24) + c * (1.0f / 6),
                far_odd = b * (1.0f / 12);
    to[0] = a * (1.0f / 4);
    SaveSigns(even, odd, far_even, far_odd, to, stride);
    to[5 * stride] = c;
  }
};

// G^T: cotangents at 6 points to those of 3 taps.
struct TapCotangents {
  static constexpr int kFrom = kPlaces, kTo = kTaps;
  static void Transform(const Lanes* from, int step, Lanes* to, int stride) {
    const Lanes even = from[step] + from[2 * step], odd = from[2 * step] - from[step],
                far_even = from[3 * step] + from[4 * step], far_odd = from[3 * step] - from[4 * step];
    to[0] = from[0] * (1.0f / 4) - even * (1.0f / 6) + far_even * (1.0f / 24);
    to[stride] = odd * (1.0f / 6) + far_odd * (1.0f / 12);
    to[2 * stride] = (far_even - even) * (1.0f / 6) + from[5 * step];
  }
};

// Transforms a square of numbers down and across.
template <typename T>
void TransformSquare(const Lanes* from, Lanes* to) {
  Lanes lines[T::kTo * T::kFrom];
  for (int column = 0; column < T::kFrom; ++column) T::Transform(from + column, T::kFrom, lines + column, T::kFrom);
  for (int row = 0; row < T::kTo; ++row) T::Transform(lines + row * T::kFrom, 1, to + row * T::kTo, 1);
}

// Images (batch, height, width, channels).
struct Images {
  float* data;
  int64_t height, width, channels;

  Images(float* data, const Dims& shape) : data(data), height(shape[1]), width(shape[2]), channels(shape[3]) {}
  float* At(int64_t image, int64_t row, int64_t column) const {
    return data + ((image * height + row) * width + column) * channels;
  }
};

// Pixels from `row` and `column` on, which may lie outside of the images.
struct Square {
  int64_t image, row, column;

  template <int kSize>
  bool IsInside(const Images& images) const {
    return row >= 0 && column >= 0 && row + kSize <= images.height && column + kSize <= images.width;
  }
};

// The tiles of all images; `At` says where the outputs of one are.
struct Grid {
  int64_t down, across, tiles;

  explicit Grid(const Dims& outputs)
      : down((outputs[1] + kTile - 1) / kTile),
        across((outputs[2] + kTile - 1) / kTile),
        tiles(outputs[0] * down * across) {}
  Square At(int64_t tile) const {
    const int64_t line = tile / across;
    return {line / down, line % down * kTile, tile % across * kTile};
  }
};

// Numbers at all points, (points, rows, columns) with a gap after every point.
struct Block {
  int64_t rows, columns;

  int64_t Stride() const { return rows * columns + kGap; }
  size_t Bytes() const { return Align(kPoints * Stride() * sizeof(float)); }
};

// Reads the channels from `channel` on of a square of kSize * kSize pixels; those outside of the images are zero.
template <int kSize>
void Read(const Images& images, Square square, int64_t channel, Lanes* pixels) {
  const auto [image, row, column] = square;
  if (square.IsInside<kSize>(images)) {
    const float* from = images.At(image, row, column) + channel;
    for (int y = 0; y < kSize; ++y, from += images.width * images.channels)
#pragma GCC unroll 8
      for (int x = 0; x < kSize; ++x) pixels[y * kSize + x] = Load(from + x * images.channels);
    return;
  }
  std::fill(pixels, pixels + kSize * kSize, Lanes{});
  for (int64_t y = std::max<int64_t>(-row, 0); y < std::min<int64_t>(kSize, images.height - row); ++y)
    for (int64_t x = std::max<int64_t>(-column, 0); x < std::min<int64_t>(kSize, images.width - column); ++x)
      pixels[y * kSize + x] = Load(images.At(image, row + y, column + x) + channel);
}

// Writes them, unless they are outside of the images.
template <int kSize>
void Write(const Lanes* pixels, const Images& images, Square square, int64_t channel) {
  const auto [image, row, column] = square;
  if (square.IsInside<kSize>(images)) {
    float* to = images.At(image, row, column) + channel;
    for (int y = 0; y < kSize; ++y, to += images.width * images.channels)
#pragma GCC unroll 8
      for (int x = 0; x < kSize; ++x) Save(pixels[y * kSize + x], to + x * images.channels);
    return;
  }
  for (int64_t y = 0; y < std::min<int64_t>(kSize, images.height - row); ++y)
    for (int64_t x = 0; x < std::min<int64_t>(kSize, images.width - column); ++x)
      Save(pixels[y * kSize + x], images.At(image, row + y, column + x) + channel);
}

// Cuts `last - first` tiles out of images, from `top` rows and `left` columns before where their outputs begin, and
// transforms them to the rows of a block; its other rows are zero.
template <typename T>
void Cut(const Images& images, const Grid& grid, int64_t top, int64_t left, int64_t first, int64_t last, Block block,
         float* to) {
  Lanes pixels[T::kFrom * T::kFrom], points[kPoints];
  for (int64_t index = 0; index < block.rows; ++index) {
    const auto [image, row, column] = grid.At(first + index);
    for (int64_t channel = 0; channel < images.channels; channel += kLanes) {
      if (first + index < last) {
        Read<T::kFrom>(images, {image, row - top, column - left}, channel, pixels);
        TransformSquare<T>(pixels, points);
      } else {
        std::fill(points, points + kPoints, Lanes{});
      }
      float* const start = to + index * block.columns + channel;
      for (int64_t point = 0; point < kPoints; ++point) Save(points[point], start + point * block.Stride());
    }
  }
}

// Transforms the rows of a block back to outputs, and writes those that are inside of the images.
void Join(const float* from, Block block, const Grid& grid, int64_t first, int64_t last, const Images& images) {
  Lanes points[kPoints], pixels[kTile * kTile];
  for (int64_t tile = first; tile < last; ++tile)
    for (int64_t channel = 0; channel < images.channels; channel += kLanes) {
      const float* const start = from + (tile - first) * block.columns + channel;
      for (int64_t point = 0; point < kPoints; ++point) points[point] = Load(start + point * block.Stride());
      TransformSquare<Outputs>(points, pixels);
      Write<kTile>(pixels, images, grid.At(tile), channel);
    }
}

// Transforms a kernel (3, 3, channels, filters) to a block (points, channels, filters). If it is turned, it is read
// as (3, 3, filters, channels), beginning with its last tap, as the gradient of images needs it.
void TransformKernel(const float* kernel, bool is_turned, Block block, float* to) {
  const int64_t count = block.rows * block.columns;
  for (int64_t row = 0; row < block.rows; ++row)
    for (int64_t column = 0; column < block.columns; column += kLanes) {
      Lanes taps[kTaps * kTaps], points[kPoints];
      for (int64_t tap = 0; tap < kTaps * kTaps; ++tap) {
        if (is_turned) {
          const float* from = kernel + (kTaps * kTaps - 1 - tap) * count + row;
          for (int64_t lane = 0; lane < kLanes; ++lane) taps[tap][lane] = from[(column + lane) * block.rows];
        } else {
          taps[tap] = Load(kernel + tap * count + row * block.columns + column);
        }
      }
      TransformSquare<Taps>(taps, points);
      for (int64_t point = 0; point < kPoints; ++point)
        Save(points[point], to + point * block.Stride() + row * block.columns + column);
    }
}

// Hands out parts of the scratch memory.
class Memory {
 public:
  explicit Memory(char* start) : next_(start) {}
  float* Take(size_t bytes) {
    char* const taken = next_;
    next_ += Align(bytes);
    return reinterpret_cast<float*>(taken);
  }

 private:
  char* next_;
};

class Tiles : public Operation {
 public:
  explicit Tiles(const Problem& problem)
      : mode_(problem.mode),
        threads_(problem.window.threads),
        images_(problem.images.begin(), problem.images.end()),
        outputs_(problem.outputs.begin(), problem.outputs.end()),
        grid_(outputs_),
        top_(problem.window.low[0]),
        left_(problem.window.low[1]),
        channels_(images_[3]),
        filters_(outputs_[3]) {
    if (mode_ == kImageGradient) {
      // A convolution of the cotangents with the kernel turned, at the tiles of the images.
      grid_ = Grid(images_);
      top_ = kTaps - 1 - top_;
      left_ = kTaps - 1 - left_;
      std::swap(channels_, filters_);
    }
    const int64_t share = std::max<int64_t>((grid_.tiles + threads_ - 1) / threads_, 1),
                  most = std::max<int64_t>(kBlockBytes / (kPoints * (channels_ + filters_) * sizeof(float)), 2 * kRows),
                  blocks = (share + most - 1) / most, rows = (share + blocks - 1) / blocks;
    cut_ = {RoundUp(rows, kRows), channels_};
    other_ = {cut_.rows, filters_};
    kernel_ = {channels_, filters_};
  }

  size_t CountBytes() const override {
    const size_t kernels = mode_ == kKernelGradient ? threads_ : 1;
    return kernels * kernel_.Bytes() + threads_ * CountOfThread();
  }

  void Run(void* images, void* kernel, void* outputs, char* memory) const override {
    auto* const x = static_cast<float*>(images);
    auto* const y = static_cast<float*>(outputs);
    if (mode_ == kKernelGradient)
      SumKernels({x, images_}, {y, outputs_}, static_cast<float*>(kernel), Memory(memory));
    else if (mode_ == kImageGradient)
      Filter({y, outputs_}, static_cast<float*>(kernel), {x, images_}, Memory(memory));
    else
      Filter({x, images_}, static_cast<float*>(kernel), {y, outputs_}, Memory(memory));
  }

 private:
  size_t CountOfThread() const { return cut_.Bytes() + other_.Bytes(); }

  void Filter(const Images& from, const float* kernel, const Images& to, Memory memory) const {
    float* const weights = memory.Take(kernel_.Bytes());
    TransformKernel(kernel, mode_ == kImageGradient, kernel_, weights);
    ForBlocks(memory, [&](int64_t first, int64_t last, float* cut, float* products, int64_t) {
      Cut<Inputs>(from, grid_, top_, left_, first, last, cut_, cut);
      for (int64_t point = 0; point < kPoints; ++point)
        Multiply<false>({cut + point * cut_.Stride(), channels_, 1}, weights + point * kernel_.Stride(),
                        cut_.rows, channels_, filters_, products + point * other_.Stride());
      Join(products, other_, grid_, first, last, to);
    });
  }

  void SumKernels(const Images& images, const Images& cotangents, float* kernel, Memory memory) const {
    const int64_t size = kPoints * kernel_.Stride(), step = kernel_.Bytes() / sizeof(float);
    float* const sums = memory.Take(threads_ * kernel_.Bytes());
    std::fill(sums, sums + threads_ * step, 0.0f);
    ForBlocks(memory, [&](int64_t first, int64_t last, float* cut, float* other, int64_t part) {
      Cut<Inputs>(images, grid_, top_, left_, first, last, cut_, cut);
      Cut<OutputCotangents>(cotangents, grid_, 0, 0, first, last, other_, other);
      for (int64_t point = 0; point < kPoints; ++point)
        Multiply<true>({cut + point * cut_.Stride(), 1, channels_}, other + point * other_.Stride(),
                       channels_, cut_.rows, filters_, sums + part * step + point * kernel_.Stride());
    });
    for (int64_t part = 1; part < threads_; ++part)
      for (int64_t i = 0; i < size; ++i) sums[i] += sums[part * step + i];
    const int64_t count = channels_ * filters_;
    for (int64_t at = 0; at < count; at += kLanes) {
      Lanes points[kPoints], taps[kTaps * kTaps];
      for (int64_t point = 0; point < kPoints; ++point) points[point] = Load(sums + point * kernel_.Stride() + at);
      TransformSquare<TapCotangents>(points, taps);
      for (int64_t tap = 0; tap < kTaps * kTaps; ++tap) Save(taps[tap], kernel + tap * count + at);
    }
  }

  // Runs `run` for all blocks of tiles, with the memory of its thread.
  template <typename Run>
  void ForBlocks(Memory memory, Run run) const {
    auto* const start = reinterpret_cast<char*>(memory.Take(threads_ * CountOfThread()));
    Divide(grid_.tiles, threads_, [&](int64_t begin, int64_t end, int64_t part) {
      Memory own(start + part * CountOfThread());
      float* const cut = own.Take(cut_.Bytes());
      float* const other = own.Take(other_.Bytes());
      for (int64_t first = begin; first < end; first += cut_.rows)
        run(first, std::min(first + cut_.rows, end), cut, other, part);
    });
  }

  Mode mode_;
  int64_t threads_;
  Dims images_, outputs_;
  Grid grid_;
  int64_t top_, left_, channels_, filters_;
  Block cut_, other_, kernel_;  // of the inputs; of the outputs or their cotangents; of the kernel
};

}  // namespace

std::unique_ptr<Operation> MakeTiles(const Problem& problem) {
  const auto& window = problem.window;
  const auto is_multiple = [](int64_t count) { return count % kChannels == 0; };
  const auto are = [](Numbers numbers, auto test) { return std::all_of(numbers.begin(), numbers.end(), test); };
  Check(problem.type == ffi::F32 && problem.images.size() == 4, "tiles need float32 images of two spatial axes");
  Check(problem.kernel[0] == kTaps && problem.kernel[1] == kTaps && window.groups == 1, "tiles need a window of 3x3");
  Check(are(window.strides, [](int64_t step) { return step == 1; }) &&
            are(window.dilation, [](int64_t gap) { return gap == 1; }) &&
            are(window.low, [](int64_t zeros) { return zeros >= 0 && zeros < kTaps; }),
        "tiles need steps and dilation of 1 and less than 3 zeros before the images");
  for (int axis = 0; axis < 2; ++axis)
    Check(problem.outputs[axis + 1] == problem.images[axis + 1] + window.low[axis] + window.high[axis] - kTaps + 1,
          "the outputs of tiles must fit the images");
  Check(is_multiple(problem.images[3]) && is_multiple(problem.outputs[3]), "tiles need multiples of 16 channels");
  return std::make_unique<Tiles>(problem);
}
