// What the algorithms of a convolution share: the problem that one solves, and what it makes of it.

#pragma once

#include <omp.h>

#include <memory>

#include "calls.h"
#include "oneapi/dnnl/dnnl.hpp"

using Dims = dnnl::memory::dims;
using Desc = dnnl::memory::desc;

inline constexpr size_t kAlignment = 64;

inline int64_t RoundUp(int64_t count, int64_t step) { return (count + step - 1) / step * step; }
inline size_t Align(size_t bytes) { return RoundUp(bytes, kAlignment); }

inline const dnnl::engine& Engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

inline dnnl::memory Place(const Desc& desc, void* data) { return dnnl::memory(desc, Engine(), data); }

// A window that slides over images: its steps, the zeros before and after them, and the distances of its positions;
// and whether it is computed by tiles.
struct Window {
  Numbers strides, low, high, dilation;
  int64_t groups, tiled, threads;
};

enum Mode : int64_t { kOutputs, kImageGradient, kKernelGradient };

// Everything that defines a convolution: its mode, the dtype and the shapes of its arrays, and the window.
struct Problem {
  Mode mode;
  ffi::DataType type;
  Numbers images, kernel, outputs;
  Window window;
};

// A convolution that is ready to be run by several threads at a time.
class Operation {
 public:
  virtual ~Operation() = default;

  // Whether it is one of oneDNN's loops over single numbers.
  virtual bool IsReference() const { return false; }
  // The scratch memory that it needs.
  virtual size_t CountBytes() const = 0;
  // Computes one of the arrays, by the mode, from the other two; `memory` is aligned.
  virtual void Run(void* images, void* kernel, void* outputs, char* memory) const = 0;
};

std::unique_ptr<Operation> MakeTiles(const Problem& problem);
