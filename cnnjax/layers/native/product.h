// Products of small matrices that are in the caches, and the vectors that they are computed with.

#pragma once

#include <cstdint>

// As many numbers as a register of this CPU holds.
#ifdef __AVX512F__
inline constexpr int64_t kLanes = 16;
#else
inline constexpr int64_t kLanes = 8;
#endif
using Lanes = float __attribute__((vector_size(kLanes * sizeof(float)), aligned(alignof(float)), may_alias));

inline const Lanes& Load(const float* from) { return *reinterpret_cast<const Lanes*>(from); }
inline void Save(const Lanes& value, float* to) { *reinterpret_cast<Lanes*>(to) = value; }

// A matrix whose numbers are `down` apart from row to row and `across` from column to column.
struct Matrix {
  const float* data;
  int64_t down, across;
};

inline constexpr int kRows = 6;                // of a product at once: twice as many registers hold sums
inline constexpr int64_t kPanel = 2 * kLanes;  // columns of a product at once

// Where a number of a matrix is whose columns are in panels of kPanel: all rows of a panel, then all rows of the next
// one. The last panel may have half as many columns.
inline int64_t PlaceInPanels(int64_t row, int64_t column, int64_t rows, int64_t columns) {
  const int64_t first = column / kPanel * kPanel, width = columns - first < kPanel ? columns - first : kPanel;
  return first * rows + row * width + column - first;
}

// Adds the product of `rows` rows of a matrix and of `vectors` * kLanes columns of another one, whose rows are `step`
// apart, to a part of a third one, whose rows are `width` apart; or sets it to the product.
template <int rows, int vectors, bool adds>
inline void MultiplyPart(Matrix a, const float* b, int64_t step, int64_t depth, int64_t width, float* to) {
  Lanes sums[rows][vectors], line[vectors];
#pragma GCC unroll 8
  for (int row = 0; row < rows; ++row)
#pragma GCC unroll 8
    for (int at = 0; at < vectors; ++at) sums[row][at] = adds ? Load(to + row * width + at * kLanes) : Lanes{};
  for (int64_t k = 0; k < depth; ++k) {
#pragma GCC unroll 8
    for (int at = 0; at < vectors; ++at) line[at] = Load(b + k * step + at * kLanes);
#pragma GCC unroll 8
    for (int row = 0; row < rows; ++row)
#pragma GCC unroll 8
      for (int at = 0; at < vectors; ++at) sums[row][at] += a.data[row * a.down + k * a.across] * line[at];
  }
#pragma GCC unroll 8
  for (int row = 0; row < rows; ++row)
#pragma GCC unroll 8
    for (int at = 0; at < vectors; ++at) Save(sums[row][at], to + row * width + at * kLanes);
}

// The same for all rows, of which there is an even number.
template <int vectors, bool adds>
inline void MultiplyColumns(Matrix a, const float* b, int64_t step, int64_t rows, int64_t depth, int64_t width,
                            float* to) {
  int64_t row = 0;
  const auto from = [&] { return Matrix{a.data + row * a.down, a.down, a.across}; };
  for (; row + kRows <= rows; row += kRows)
    MultiplyPart<kRows, vectors, adds>(from(), b, step, depth, width, to + row * width);
  for (; row + 4 <= rows; row += 4)
    MultiplyPart<4, vectors, adds>(from(), b, step, depth, width, to + row * width);
  for (; row < rows; row += 2) MultiplyPart<2, vectors, adds>(from(), b, step, depth, width, to + row * width);
}

// Sets a matrix (rows, width) to the product of a (rows, depth) and b (depth, width), which is in panels. There must be
// an even number of rows, and `width` must be a multiple of kLanes.
inline void MultiplyPanels(Matrix a, const float* b, int64_t rows, int64_t depth, int64_t width, float* to) {
  int64_t column = 0;
  for (; column + kPanel <= width; column += kPanel)
    MultiplyColumns<2, false>(a, b + column * depth, kPanel, rows, depth, width, to + column);
  if (column < width) MultiplyColumns<1, false>(a, b + column * depth, kLanes, rows, depth, width, to + column);
}

// Adds the product of a (rows, depth) and b (depth, width), which is not in panels, to a matrix (rows, width).
inline void AddProduct(Matrix a, const float* b, int64_t rows, int64_t depth, int64_t width, float* to) {
  int64_t column = 0;
  for (; column + kPanel <= width; column += kPanel)
    MultiplyColumns<2, true>(a, b + column, width, rows, depth, width, to + column);
  if (column < width) MultiplyColumns<1, true>(a, b + column, width, rows, depth, width, to + column);
}
