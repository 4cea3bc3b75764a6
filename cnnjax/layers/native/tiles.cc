// Minimal filtering of 3x3 windows: at steps of 1 a tile of 4x4 outputs takes 36 products instead of 144, at steps of 2
// it takes 81.
//
// The inputs of tiles, and the window, are transformed to points. There the outputs of all tiles are matrix products
// over the channels, which are transformed back. Tiles go through in blocks that stay in the caches.

#include <array>
#include <vector>

#include "convolution.h"
#include "filtering.h"
#include "product.h"

namespace {

constexpr int64_t kBlockNumbers = 1 << 18;  // of a block of tiles at all points, before and after the products
constexpr int64_t kChannels = 16;           // channels and filters are multiples of it
constexpr int64_t kGap = 16;  // between the weights of a block, which would else share few places in the caches

// Transforms a square of numbers, which `load(row, column)` returns, down and across; `save(number, row, column)` takes
// what it becomes.
template <typename T, typename From, typename To>
inline void TransformSquare(From load, To save) {
  Lanes lines[T::kTo][T::kFrom];
  for (int column = 0; column < T::kFrom; ++column) {
    Lanes from[T::kFrom], to[T::kTo];
#pragma GCC unroll 16
    for (int row = 0; row < T::kFrom; ++row) from[row] = load(row, column);
    T::Transform(from, to);
#pragma GCC unroll 16
    for (int row = 0; row < T::kTo; ++row) lines[row][column] = to[row];
  }
  for (int row = 0; row < T::kTo; ++row) {
    Lanes to[T::kTo];
    T::Transform(lines[row], to);
#pragma GCC unroll 16
    for (int column = 0; column < T::kTo; ++column) save(to[column], row, column);
  }
}

// Images (batch, height, width, channels).
struct Images {
  float* data;
  int64_t height, width, channels;

  Images(float* data, const Dims& shape) : data(data), height(shape[1]), width(shape[2]), channels(shape[3]) {}
  float* At(int64_t image, int64_t row, int64_t column) const {
    return data + ((image * height + row) * width + column) * channels;
  }
  bool Has(int64_t row, int64_t column) const { return row >= 0 && column >= 0 && row < height && column < width; }
};

// Pixels from `row` and `column` on, which may lie outside of the images.
struct Square {
  int64_t image, row, column;
};

// The tiles of all images, down and across, of `size` pixels each; the last ones may reach beyond the images.
struct Grid {
  int64_t down, across, tiles;

  Grid(const Dims& images, int64_t size)
      : down((images[1] + size - 1) / size), across((images[2] + size - 1) / size), tiles(images[0] * down * across) {}
};

// The points of a square. Several of them may meet the same weight of the kernel, for along an axis the last weight is
// that of all further points; they follow one another.
template <typename Form>
struct Points {
  static constexpr int kWeights = Form::kWeights * Form::kWeights, kPoints = Form::kPoints * Form::kPoints;

  // The weights before that of a point, and the points before it.
  struct Place {
    int weight, point;
  };

  static constexpr std::array<Place, kPoints> Arrange() {
    std::array<Place, kPoints> places{};
    int next = 0;
    for (int weight = 0; weight < kWeights; ++weight)
      for (int point = 0; point < kPoints; ++point)
        if (FindWeight(point / Form::kPoints) * Form::kWeights + FindWeight(point % Form::kPoints) == weight)
          places[point] = {weight, next++};
    return places;
  }
  static constexpr int FindWeight(int point) { return std::min(point, Form::kWeights - 1); }

  static constexpr std::array<Place, kPoints> kPlaces = Arrange();

  // How many points meet a weight, and how many come before those.
  static constexpr std::array<int, kWeights + 1> kFirst = [] {
    std::array<int, kWeights + 1> first{};
    for (const auto& place : kPlaces) first[place.weight + 1] = std::max(first[place.weight + 1], place.point + 1);
    return first;
  }();
};

// A matrix (rows, columns) for every point; there is a gap after those of one weight.
struct Block {
  int64_t rows, columns;

  int64_t At(int weight, int point) const { return point * rows * columns + weight * kGap; }
  size_t Bytes(int weights, int points) const { return Align(At(weights, points) * sizeof(float)); }
};

// Where the matrices of all points of a block are.
template <typename Form>
std::array<int64_t, Points<Form>::kPoints> Locate(Block block) {
  std::array<int64_t, Points<Form>::kPoints> starts;
  for (size_t at = 0; at < starts.size(); ++at) {
    const auto [weight, point] = Points<Form>::kPlaces[at];
    starts[at] = block.At(weight, point);
  }
  return starts;
}

// The tiles of some images: squares of pixels, `step` after one another, the first of them `top` rows and `left`
// columns before an image.
struct Tiling {
  Images images;
  int64_t step, top, left;

  Square At(const Grid& grid, int64_t tile) const {
    const int64_t line = tile / grid.across;
    return {line / grid.down, line % grid.down * step - top, tile % grid.across * step - left};
  }
};

// Cuts `last - first` tiles out of images, with zeros where they reach outside, and transforms them to the rows of a
// block; its other rows are zero.
template <typename Form, typename T>
void Cut(const Tiling& tiling, const Grid& grid, int64_t first, int64_t last, Block block, const float* zeros,
         float* to) {
  const auto& images = tiling.images;
  const auto starts = Locate<Form>(block);
  for (int64_t tile = first; tile < last; ++tile, to += block.columns) {
    const auto [image, top, left] = tiling.At(grid, tile);
    const float* pixels[T::kFrom][T::kFrom];
    for (int64_t row = 0; row < T::kFrom; ++row)
      for (int64_t column = 0; column < T::kFrom; ++column)
        pixels[row][column] =
            images.Has(top + row, left + column) ? images.At(image, top + row, left + column) : zeros;
    for (int64_t channel = 0; channel < block.columns; channel += kLanes)
      TransformSquare<T>([&](int row, int column) {
                           const float* const pixel = pixels[row][column] + channel;
                           __builtin_prefetch(pixel + tiling.step * images.channels);  // of the next tile
                           return Load(pixel);
                         },
                         [&](const Lanes& number, int row, int column) {
                           Save(number, to + starts[row * T::kTo + column] + channel);
                         });
  }
  for (int64_t row = last - first; row < block.rows; ++row, to += block.columns)
    for (const int64_t start : starts) std::fill(to + start, to + start + block.columns, 0.0f);
}

// Transforms the rows of a block back to tiles, and writes what is inside of the images.
template <typename Form, typename T>
void Join(const float* from, Block block, const Grid& grid, int64_t first, int64_t last, const Tiling& tiling) {
  const auto& images = tiling.images;
  const auto starts = Locate<Form>(block);
  for (int64_t tile = first; tile < last; ++tile, from += block.columns) {
    const auto [image, top, left] = tiling.At(grid, tile);
    const bool is_whole = images.Has(top + T::kTo - 1, left + T::kTo - 1);
    for (int64_t channel = 0; channel < block.columns; channel += kLanes) {
      float* const start = images.At(image, top, left) + channel;
      const auto save = [&](const Lanes& number, int row, int column) {
        if (is_whole || images.Has(top + row, left + column))
          Save(number, start + (row * images.width + column) * images.channels);
      };
      TransformSquare<T>(
          [&](int row, int column) { return Load(from + starts[row * T::kFrom + column] + channel); }, save);
    }
  }
}

// Copies `width` columns of a kernel (3, 3, rows, columns), from `first` on, to (rows, 3, 3, width). If the kernel is
// turned, it is stored as (3, 3, columns, rows), beginning with its last tap, as the gradient of images needs it.
void CopyColumns(const float* kernel, bool is_turned, Block block, int64_t first, int64_t width, float* to) {
  constexpr int64_t taps = kTaps * kTaps;
  const int64_t count = block.rows * block.columns;
  for (int64_t tap = 0; tap < taps; ++tap, kernel += count) {
    if (is_turned) {
      for (int64_t column = 0; column < width; ++column)
        for (int64_t row = 0; row < block.rows; ++row)
          to[(row * taps + taps - 1 - tap) * width + column] = kernel[(first + column) * block.rows + row];
    } else {
      for (int64_t row = 0; row < block.rows; ++row)
        std::copy_n(kernel + row * block.columns + first, width, to + (row * taps + tap) * width);
    }
  }
}

// Transforms a kernel to a block (weights, rows, columns), whose matrices are in panels.
template <typename Form>
void TransformKernel(const float* kernel, bool is_turned, Block block, int64_t threads, float* to) {
  Divide((block.columns + kPanel - 1) / kPanel, threads, [&](int64_t begin, int64_t end, int64_t) {
    // A panel at a time, for the taps of one place are so far apart that they would share few places in the caches.
    std::vector<float> taps(block.rows * kTaps * kTaps * kPanel);
    for (int64_t first = begin * kPanel; first < std::min(end * kPanel, block.columns); first += kPanel) {
      const int64_t width = std::min(kPanel, block.columns - first);
      CopyColumns(kernel, is_turned, block, first, width, taps.data());
      for (int64_t row = 0; row < block.rows; ++row)
        for (int64_t column = 0; column < width; column += kLanes) {
          const float* const from = taps.data() + row * kTaps * kTaps * width + column;
          float* const start = to + PlaceInPanels(row, first + column, block.rows, block.columns);
          TransformSquare<typename Form::Taps>([&](int y, int x) { return Load(from + (y * kTaps + x) * width); },
                                               [&](const Lanes& number, int y, int x) {
                                                 const int weight = y * Form::kWeights + x;
                                                 Save(number, start + block.At(weight, weight));
                                               });
        }
    }
  });
}

template <typename Form>
class Tiles : public Operation {
 public:
  explicit Tiles(const Problem& problem)
      : mode_(problem.mode),
        threads_(problem.window.threads),
        images_(problem.images.begin(), problem.images.end()),
        outputs_(problem.outputs.begin(), problem.outputs.end()),
        top_(problem.window.low[0]),
        left_(problem.window.low[1]),
        grid_(mode_ == kImageGradient ? Grid(images_, Form::kStep * kTile) : Grid(outputs_, kTile)) {
    const bool is_back = mode_ == kImageGradient;
    const int64_t from = is_back ? outputs_[3] : images_[3], to = is_back ? images_[3] : outputs_[3];
    const int64_t share = std::max<int64_t>((grid_.tiles + threads_ - 1) / threads_, 1),
                  most = std::max<int64_t>(kWeights * from * to, kBlockNumbers) / (kPoints * (from + to)),
                  blocks = (share + most - 1) / most, rows = RoundUp((share + blocks - 1) / blocks, 2);
    cut_ = {rows, from};
    other_ = {rows, to};
    kernel_ = {from, to};
  }

  size_t CountBytes() const override {
    const size_t kernels = mode_ == kKernelGradient ? threads_ : 1;
    return kernels * CountOfKernel() + threads_ * CountOfThread();
  }

  void Run(void* images, void* kernel, void* outputs, char* memory) const override {
    auto* const weights = static_cast<float*>(kernel);
    const Tiling inputs{{static_cast<float*>(images), images_}, Form::kStep * kTile, top_, left_},
        results{{static_cast<float*>(outputs), outputs_}, kTile, 0, 0};
    if (mode_ == kOutputs)
      return Filter<typename Form::Inputs, typename Form::Outputs>(inputs, weights, results, memory);
    if (mode_ == kKernelGradient) return SumKernels(inputs, results, weights, memory);
    const Tiling cotangents{results.images, kTile, (kTaps - 1 - top_) / Form::kStep, (kTaps - 1 - left_) / Form::kStep},
        gradients{inputs.images, Form::kStep * kTile, 0, 0};
    Filter<typename Form::Cotangents, typename Form::InputCotangents>(cotangents, weights, gradients, memory);
  }

 private:
  static constexpr int kWeights = Points<Form>::kWeights, kPoints = Points<Form>::kPoints;
  static constexpr auto kFirst = Points<Form>::kFirst;

  size_t CountOfThread() const { return cut_.Bytes(kWeights, kPoints) + other_.Bytes(kWeights, kPoints); }
  size_t CountOfKernel() const { return kernel_.Bytes(kWeights, kWeights); }

  // Convolves by transforms of the inputs and of their products.
  template <typename In, typename Out>
  void Filter(const Tiling& from, const float* kernel, const Tiling& to, char* memory) const {
    auto* const weights = reinterpret_cast<float*>(memory);
    const std::vector<float> zeros(from.images.channels);
    TransformKernel<Form>(kernel, mode_ == kImageGradient, kernel_, threads_, weights);
    ForBlocks(memory + CountOfKernel(), [&](int64_t first, int64_t last, float* cut, float* products, int64_t) {
      Cut<Form, In>(from, grid_, first, last, cut_, zeros.data(), cut);
      for (int at = 0; at < kWeights; ++at)
        MultiplyPanels({cut + cut_.At(at, kFirst[at]), cut_.columns, 1}, weights + kernel_.At(at, at), CountRows(at),
                       cut_.columns, other_.columns, products + other_.At(at, kFirst[at]));
      Join<Form, Out>(products, other_, grid_, first, last, to);
    });
  }

  void SumKernels(const Tiling& images, const Tiling& cotangents, float* kernel, char* memory) const {
    const int64_t step = CountOfKernel() / sizeof(float);
    auto* const sums = reinterpret_cast<float*>(memory);
    const std::vector<float> zeros(std::max(images.images.channels, cotangents.images.channels));
    std::fill(sums, sums + threads_ * step, 0.0f);
    ForBlocks(memory + threads_ * CountOfKernel(),
              [&](int64_t first, int64_t last, float* cut, float* other, int64_t part) {
                Cut<Form, typename Form::Inputs>(images, grid_, first, last, cut_, zeros.data(), cut);
                Cut<Form, typename Form::OutputCotangents>(cotangents, grid_, first, last, other_, zeros.data(), other);
                for (int at = 0; at < kWeights; ++at)
                  AddProduct({cut + cut_.At(at, kFirst[at]), 1, cut_.columns}, other + other_.At(at, kFirst[at]),
                             cut_.columns, CountRows(at), other_.columns, sums + part * step + kernel_.At(at, at));
              });
    const int64_t count = kernel_.rows * kernel_.columns;
    Divide(count / kChannels, threads_, [&](int64_t begin, int64_t end, int64_t) {
      for (int64_t first = begin * kChannels; first < end * kChannels; first += kChannels) {
        float taps[kTaps * kTaps][kChannels];
        for (int64_t lane = 0; lane < kChannels; lane += kLanes)
          TransformSquare<typename Form::TapCotangents>(
              [&](int row, int column) {
                const int weight = row * Form::kWeights + column;
                const float* const from = sums + kernel_.At(weight, weight) + first + lane;
                Lanes sum = Load(from);
                for (int64_t part = 1; part < threads_; ++part) sum += Load(from + part * step);
                return sum;
              },
              [&](const Lanes& number, int row, int column) { Save(number, taps[row * kTaps + column] + lane); });
        for (int64_t tap = 0; tap < kTaps * kTaps; ++tap)
          std::copy_n(taps[tap], kChannels, kernel + tap * count + first);
      }
    });
  }

  // The rows of a block at all points of a weight.
  int64_t CountRows(int weight) const { return (kFirst[weight + 1] - kFirst[weight]) * cut_.rows; }

  // Runs `run` for all blocks of tiles, with the memory of its thread.
  template <typename Run>
  void ForBlocks(char* memory, Run run) const {
    Divide(grid_.tiles, threads_, [&](int64_t begin, int64_t end, int64_t part) {
      char* const start = memory + part * CountOfThread();
      auto* const cut = reinterpret_cast<float*>(start);
      auto* const other = reinterpret_cast<float*>(start + cut_.Bytes(kWeights, kPoints));
      for (int64_t first = begin; first < end; first += cut_.rows)
        run(first, std::min(first + cut_.rows, end), cut, other, part);
    });
  }

  Mode mode_;
  int64_t threads_;
  Dims images_, outputs_;
  int64_t top_, left_;
  Grid grid_;
  Block cut_, other_, kernel_;  // of the inputs; of the outputs or their cotangents; of the kernel
};

}  // namespace

std::unique_ptr<Operation> MakeTiles(const Problem& problem) {
  const auto& window = problem.window;
  const int64_t step = window.strides[0];
  const auto is_multiple = [](int64_t count) { return count % kChannels == 0; };
  const auto are = [](Numbers numbers, auto test) { return std::all_of(numbers.begin(), numbers.end(), test); };
  Check(problem.type == ffi::F32 && problem.images.size() == 4, "tiles need float32 images of two spatial axes");
  Check(problem.kernel[0] == kTaps && problem.kernel[1] == kTaps && window.groups == 1, "tiles need a window of 3x3");
  Check((step == 1 || step == 2) && window.strides[1] == step &&
            are(window.dilation, [](int64_t gap) { return gap == 1; }) &&
            are(window.low, [](int64_t zeros) { return zeros >= 0 && zeros < kTaps; }),
        "tiles need equal steps of 1 or 2, dilation of 1 and less than 3 zeros before the images");
  for (int axis = 0; axis < 2; ++axis)
    Check(problem.outputs[axis + 1] ==
              (problem.images[axis + 1] + window.low[axis] + window.high[axis] - kTaps) / step + 1,
          "the outputs of tiles must fit the images");
  Check(is_multiple(problem.images[3]) && is_multiple(problem.outputs[3]), "tiles need multiples of 16 channels");
  if (step == 1) return std::make_unique<Tiles<Steps1>>(problem);
  const bool starts_odd = window.low[0] % 2;
  Check(starts_odd == window.low[1] % 2, "tiles at steps of 2 need even or odd zeros above and left of the images");
  if (starts_odd) return std::make_unique<Tiles<Steps2<true>>>(problem);
  return std::make_unique<Tiles<Steps2<false>>>(problem);
}
