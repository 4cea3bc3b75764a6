// oneDNN's convolutions: the outputs, and the gradients of the images and of the kernel.
//
// Images and outputs are (batch, *spatial, channels), kernels (*window, channels / groups, filters). There is no state
// but a cache of oneDNN's primitives, which all threads share.

#include <omp.h>

#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "calls.h"
#include "oneapi/dnnl/dnnl.hpp"

namespace {

using Dims = dnnl::memory::dims;
using Desc = dnnl::memory::desc;

// A window that slides over images: its steps, the zeros before and after them, and the distances of its positions.
struct Window {
  Numbers strides, low, high, dilation;
  int64_t groups, threads;
};

}  // namespace

XLA_FFI_REGISTER_STRUCT_ATTR_DECODING(Window, StructMember<Numbers>("strides"), StructMember<Numbers>("low"),
                                      StructMember<Numbers>("high"), StructMember<Numbers>("dilation"),
                                      StructMember<int64_t>("groups"), StructMember<int64_t>("threads"));

namespace {

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
  const auto keep = [&made](const auto& description, const Desc& kernel) {
    made.primitive = dnnl::primitive(description);
    made.kernel = kernel;
    made.scratch = description.scratchpad_desc();
  };
  if (mode == kOutputs) {
    keep(forward, forward.weights_desc());
  } else if (mode == kImageGradient) {
    const dnnl::convolution_backward_data::primitive_desc backward(Engine(), direct, images, any, outputs, strides,
                                                                   gaps, low, high, forward, attributes);
    keep(backward, backward.weights_desc());
  } else {
    const dnnl::convolution_backward_weights::primitive_desc backward(Engine(), direct, images, any, outputs, strides,
                                                                      gaps, low, high, forward, attributes);
    keep(backward, backward.diff_weights_desc());
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

void Convolve(Mode mode, const Array& images, const Array& kernel, const Array& outputs, const Window& window) {
  CheckShapes(images, kernel, outputs, window);
  CheckThreads(window.threads);
  const Desc x = DescribeActivations(images), w = DescribeKernel(kernel, window.groups),
             y = DescribeActivations(outputs);
  Dims key{mode, window.groups, window.threads};
  for (const auto* array : {&images, &kernel, &outputs}) Append(*array, &key);
  for (const auto* numbers : {&window.strides, &window.low, &window.high, &window.dilation})
    key.insert(key.end(), numbers->begin(), numbers->end());
  omp_set_num_threads(static_cast<int>(window.threads));
  const auto made = Convolutions().Get(key, [&] { return Prepare(mode, x, w, y, window); });

  const size_t scratch = Align(std::max(made->scratch.get_size(), made->change_scratch.get_size()));
  char* const memory = Workspace(scratch + (made->change ? made->kernel.get_size() : 0));
  const auto place = [](const Desc& desc, void* data) { return dnnl::memory(desc, Engine(), data); };
  const dnnl::memory given = place(w, kernel.untyped_data());
  const dnnl::memory changed = made->change ? place(made->kernel, memory + scratch) : given;
  const auto change = [&](dnnl::stream& stream, const dnnl::memory& from, const dnnl::memory& to) {
    made->change.execute(stream, {{DNNL_ARG_FROM, from},
                                  {DNNL_ARG_TO, to},
                                  {DNNL_ARG_SCRATCHPAD, place(made->change_scratch, memory)}});
  };
  dnnl::stream stream(Engine());
  if (made->change && mode != kKernelGradient) change(stream, given, changed);
  made->primitive.execute(
      stream, {{mode == kImageGradient ? DNNL_ARG_DIFF_SRC : DNNL_ARG_SRC, place(x, images.untyped_data())},
               {mode == kKernelGradient ? DNNL_ARG_DIFF_WEIGHTS : DNNL_ARG_WEIGHTS, changed},
               {mode == kOutputs ? DNNL_ARG_DST : DNNL_ARG_DIFF_DST, place(y, outputs.untyped_data())},
               {DNNL_ARG_SCRATCHPAD, place(made->scratch, memory)}});
  if (made->change && mode == kKernelGradient) change(stream, changed, given);
  stream.wait();
}

void Outputs(Array images, Array kernel, ffi::Result<Array> outputs, Window window) {
  Convolve(kOutputs, images, kernel, *outputs, window);
}

void ImageGradient(Array cotangent, Array kernel, ffi::Result<Array> images, Window window) {
  Convolve(kImageGradient, *images, kernel, cotangent, window);
}

void KernelGradient(Array images, Array cotangent, ffi::Result<Array> kernel, Window window) {
  Convolve(kKernelGradient, images, *kernel, cotangent, window);
}

}  // namespace

DEFINE_CUSTOM_CALL(convolution_outputs, Outputs);
DEFINE_CUSTOM_CALL(convolution_image_gradient, ImageGradient);
DEFINE_CUSTOM_CALL(convolution_kernel_gradient, KernelGradient);

extern "C" {
extern const int onednn_version[3];  // major, minor, patch
extern const int has_bfloat16;       // whether oneDNN can convolve bfloat16 on this CPU
}
const int onednn_version[3] = {dnnl_version()->major, dnnl_version()->minor, dnnl_version()->patch};
const int has_bfloat16 =
    (static_cast<int>(dnnl::get_effective_cpu_isa()) & dnnl_cpu_isa_avx512_core) == dnnl_cpu_isa_avx512_core;
