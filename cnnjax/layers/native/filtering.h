// Minimal filtering of a window of three taps, along one axis: how the inputs of a tile of four outputs, and the taps,
// are transformed to points, and their products at the points to outputs. Each form also has the transposed transforms,
// which gradients need.
//
// The matrices are those of Toom and Cook, as `cnnjax/layers/minimal_filtering.py` makes them. Winograd, "Arithmetic
// complexity of computations", 1980; Lavin and Gray, "Fast algorithms for convolutional neural networks", 2016.

#pragma once

#include "product.h"

inline constexpr int kTaps = 3, kTile = 4;

// Each transform reads kFrom numbers and writes kTo numbers.

// Saves the sum and the difference of the even and the odd powers at a point, which are those of it and its negative.
inline void SaveSigns(const Lanes& even, const Lanes& odd, Lanes* to) {
  to[0] = even + odd;
  to[1] = even - odd;
}

// Steps of 1: the points 0, 1, -1, 2, -2 and infinity, 6 products instead of 12.
struct Steps1 {
  static constexpr int kStep = 1, kPoints = 6, kWeights = 6;

  // B^T
  struct Inputs {
    static constexpr int kFrom = 6, kTo = kPoints;
    static void Transform(const Lanes* from, Lanes* to) {
      const Lanes a = from[0], b = from[1], c = from[2], d = from[3], e = from[4], f = from[5];
      to[0] = 4.0f * a - 5.0f * c + e;
      SaveSigns(e - 4.0f * c, d - 4.0f * b, to + 1);
      SaveSigns(e - c, 2.0f * (d - b), to + 3);
      to[5] = 4.0f * b - 5.0f * d + f;
    }
  };

  // A^T
  struct Outputs {
    static constexpr int kFrom = kPoints, kTo = kTile;
    static void Transform(const Lanes* from, Lanes* to) {
      const Lanes even = from[1] + from[2], odd = from[1] - from[2],
                  far_even = from[3] + from[4], far_odd = from[3] - from[4];
      to[0] = from[0] + even + far_even;
      to[1] = odd + 2.0f * far_odd;
      to[2] = even + 4.0f * far_even;
      to[3] = odd + 8.0f * far_odd + from[5];
    }
  };

  // A
  struct OutputCotangents {
    static constexpr int kFrom = kTile, kTo = kPoints;
    static void Transform(const Lanes* from, Lanes* to) {
      const Lanes a = from[0], b = from[1], c = from[2], d = from[3];
      to[0] = a;
      SaveSigns(a + c, b + d, to + 1);
      SaveSigns(a + 4.0f * c, 2.0f * b + 8.0f * d, to + 3);
      to[5] = d;
    }
  };

  // G
  struct Taps {
    static constexpr int kFrom = kTaps, kTo = kWeights;
    static void Transform(const Lanes* from, Lanes* to) {
      const Lanes a = from[0], b = from[1], c = from[2];
      to[0] = a * (1.0f / 4);
      SaveSigns((a + c) * (-1.0f / 6), b * (-1.0f / 6), to + 1);
      SaveSigns(a * (1.0f / 24) + c * (1.0f / 6), b * (1.0f / 12), to + 3);
      to[5] = c;
    }
  };

  // G^T
  struct TapCotangents {
    static constexpr int kFrom = kWeights, kTo = kTaps;
    static void Transform(const Lanes* from, Lanes* to) {
      const Lanes even = from[1] + from[2], odd = from[2] - from[1],
                  far_even = from[3] + from[4], far_odd = from[3] - from[4];
      to[0] = from[0] * (1.0f / 4) - even * (1.0f / 6) + far_even * (1.0f / 24);
      to[1] = odd * (1.0f / 6) + far_odd * (1.0f / 12);
      to[2] = (far_even - even) * (1.0f / 6) + from[5];
    }
  };

  // The gradient of the inputs is the convolution of the cotangents with the turned taps.
  using Cotangents = Inputs;
  using InputCotangents = Outputs;
};

// Steps of 2: the even inputs meet the first and the last tap, at the points 0, 1, -1, 2 and infinity; the odd ones
// meet the middle tap alone, which is one weight for four products; 9 products instead of 12.
//
// In the gradient of the inputs, `starts_odd` says that the first input of a tile is one that the middle tap meets.
template <bool starts_odd>
struct Steps2 {
  static constexpr int kStep = 2, kPoints = 9, kWeights = 6;

  // Evaluates five numbers that are `step` apart, for two taps.
  template <int step>
  static void Evaluate(const Lanes* from, Lanes* to) {
    const Lanes a = from[0], b = from[step], c = from[2 * step], d = from[3 * step], e = from[4 * step];
    to[0] = 2.0f * (a - c) - b + d;
    to[1] = d - c - 2.0f * b;
    to[2] = d - 3.0f * c + 2.0f * b;
    to[3] = d - b;
    to[4] = 2.0f * (b - d) - c + e;
  }

  // Interpolates four numbers, to be `stride` apart, from five points.
  template <int stride>
  static void Interpolate(const Lanes* from, Lanes* to) {
    const Lanes even = from[1] + from[2], odd = from[1] - from[2], far = from[3];
    to[0] = from[0] + even + far;
    to[stride] = odd + 2.0f * far;
    to[2 * stride] = even + 4.0f * far;
    to[3 * stride] = odd + 8.0f * far + from[4];
  }

  template <int step, int stride>
  static void Copy(const Lanes* from, Lanes* to) {
#pragma GCC unroll 4
    for (int at = 0; at < kTile; ++at) to[at * stride] = from[at * step];
  }

  struct Inputs {
    static constexpr int kFrom = 9, kTo = kPoints;
    static void Transform(const Lanes* from, Lanes* to) {
      Evaluate<2>(from, to);
      Copy<2, 1>(from + 1, to + 5);
    }
  };

  struct Outputs {
    static constexpr int kFrom = kPoints, kTo = kTile;
    static void Transform(const Lanes* from, Lanes* to) {
      Interpolate<1>(from, to);
#pragma GCC unroll 4
      for (int at = 0; at < kTile; ++at) to[at] += from[5 + at];
    }
  };

  struct OutputCotangents {
    static constexpr int kFrom = kTile, kTo = kPoints;
    static void Transform(const Lanes* from, Lanes* to) {
      const Lanes a = from[0], b = from[1], c = from[2], d = from[3];
      to[0] = a;
      SaveSigns(a + c, b + d, to + 1);
      to[3] = a + 2.0f * b + 4.0f * c + 8.0f * d;
      to[4] = d;
      Copy<1, 1>(from, to + 5);
    }
  };

  struct Taps {
    static constexpr int kFrom = kTaps, kTo = kWeights;
    static void Transform(const Lanes* from, Lanes* to) {
      const Lanes a = from[0], b = from[2];
      to[0] = a * (1.0f / 2);
      to[1] = (a + b) * (-1.0f / 2);
      to[2] = (b - a) * (1.0f / 6);
      to[3] = a * (1.0f / 6) + b * (1.0f / 3);
      to[4] = b;
      to[5] = from[1];
    }
  };

  struct TapCotangents {
    static constexpr int kFrom = kWeights, kTo = kTaps;
    static void Transform(const Lanes* from, Lanes* to) {
      const Lanes half = from[1] * (1.0f / 2), sixth = from[2] * (1.0f / 6), far = from[3];
      to[0] = from[0] * (1.0f / 2) - half - sixth + far * (1.0f / 6);
      to[1] = from[5];
      to[2] = sixth - half + far * (1.0f / 3) + from[4];
    }
  };

  struct Cotangents {
    static constexpr int kFrom = 5, kTo = kPoints;
    static void Transform(const Lanes* from, Lanes* to) {
      Evaluate<1>(from, to);
      Copy<1, 1>(starts_odd ? from : from + 1, to + 5);
    }
  };

  struct InputCotangents {
    static constexpr int kFrom = kPoints, kTo = 2 * kTile;
    static void Transform(const Lanes* from, Lanes* to) {
      Interpolate<2>(from, starts_odd ? to + 1 : to);
      Copy<1, 2>(from + 5, starts_odd ? to : to + 1);
    }
  };
};
