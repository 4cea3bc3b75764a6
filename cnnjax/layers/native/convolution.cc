// Convolutions by oneDNN or by tiles: the outputs, and the gradients of the images and of the kernel.
//
// Images and outputs are (batch, *spatial, channels), kernels (*window, channels / groups, filters). There is no state
// but a cache of what was prepared, which all threads share.

#include "convolution.h"

#include <list>
#include <map>
#include <mutex>
#include <string>
#include <utility>

XLA_FFI_REGISTER_STRUCT_ATTR_DECODING(Window, StructMember<Numbers>("strides"), StructMember<Numbers>("low"),
                                      StructMember<Numbers>("high"), StructMember<Numbers>("dilation"),
                                      StructMember<int64_t>("groups"), StructMember<int64_t>("tiled"),
                                      StructMember<int64_t>("threads"));

namespace {

Dims RowMajorStrides(const Dims& shape) {
  Dims strides(shape.size(), 1);
  for (size_t axis = shape.size() - 1; axis > 0; --axis) strides[axis - 1] = strides[axis] * shape[axis];
  return strides;
}

void CheckShapes(const Problem& problem) {
  const auto& [mode, type, images, kernel, outputs, window] = problem;
  const size_t axes = images.size();
  Check(axes >= 3 && axes <= 5 && kernel.size() == axes && outputs.size() == axes, "arrays need 3 to 5 axes");
  for (const auto& numbers : {window.strides, window.low, window.high, window.dilation})
    Check(numbers.size() == axes - 2, "a window has one number for each spatial axis");
  Check(window.groups > 0 && images.back() == kernel[axes - 2] * window.groups && kernel.back() % window.groups == 0 &&
            outputs.back() == kernel.back() && images[0] == outputs[0],
        "images, kernel, outputs and groups do not fit");
  CheckThreads(window.threads);
}

dnnl::memory::data_type TypeOf(ffi::DataType type) {
  return type == ffi::F32 ? dnnl::memory::data_type::f32 : dnnl::memory::data_type::bf16;
}

// Activations (batch, *spatial, channels), whose axes oneDNN numbers as (batch, channels, *spatial).
Desc DescribeActivations(Numbers shape, ffi::DataType type) {
  const Dims stored(shape.begin(), shape.end()), strides = RowMajorStrides(stored);
  Dims sizes{stored.front(), stored.back()}, steps{strides.front(), strides.back()};
  sizes.insert(sizes.end(), stored.begin() + 1, stored.end() - 1);
  steps.insert(steps.end(), strides.begin() + 1, strides.end() - 1);
  return Desc(sizes, TypeOf(type), steps);
}

// A kernel (*window, channels / groups, filters), whose axes are ([groups,] filters, channels, *window) there.
Desc DescribeKernel(Numbers shape, ffi::DataType type, int64_t groups) {
  const Dims stored(shape.begin(), shape.end()), strides = RowMajorStrides(stored);
  const size_t window = stored.size() - 2;
  Dims sizes{stored[window + 1] / groups, stored[window]}, steps{1, strides[window]};
  if (groups > 1) {
    sizes.insert(sizes.begin(), groups);
    steps.insert(steps.begin(), sizes[1]);
  }
  sizes.insert(sizes.end(), stored.begin(), stored.begin() + window);
  steps.insert(steps.end(), strides.begin(), strides.begin() + window);
  return Desc(sizes, TypeOf(type), steps);
}

// A primitive of oneDNN, and the change of layout of the kernel that it needs, if any.
class Direct : public Operation {
 public:
  explicit Direct(const Problem& problem)
      : mode_(problem.mode),
        images_(DescribeActivations(problem.images, problem.type)),
        given_kernel_(DescribeKernel(problem.kernel, problem.type, problem.window.groups)),
        outputs_(DescribeActivations(problem.outputs, problem.type)) {
    const auto& window = problem.window;
    const auto direct = dnnl::algorithm::convolution_direct;
    const Dims strides(window.strides.begin(), window.strides.end()), low(window.low.begin(), window.low.end()),
        high(window.high.begin(), window.high.end());
    Dims gaps(window.dilation.begin(), window.dilation.end());
    for (auto& gap : gaps) --gap;
    const Desc any(given_kernel_.get_dims(), given_kernel_.get_data_type(), dnnl::memory::format_tag::any);
    dnnl::primitive_attr attributes;
    attributes.set_fpmath_mode(dnnl::fpmath_mode::strict);  // whatever $ONEDNN_DEFAULT_FPMATH_MODE says
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);  // as several threads run one primitive at a time
    omp_set_num_threads(static_cast<int>(window.threads));        // for primitives depend on the number of threads
    const dnnl::convolution_forward::primitive_desc forward(Engine(), dnnl::prop_kind::forward_training, direct,
                                                            images_, any, outputs_, strides, gaps, low, high,
                                                            attributes);
    const auto keep = [this](const auto& description, const Desc& kernel) {
      primitive_ = dnnl::primitive(description);
      kernel_ = kernel;
      scratch_ = description.scratchpad_desc();
      is_reference_ = std::string(description.impl_info_str()).find("ref") != std::string::npos;
    };
    if (mode_ == kOutputs) {
      keep(forward, forward.weights_desc());
    } else if (mode_ == kImageGradient) {
      const dnnl::convolution_backward_data::primitive_desc backward(Engine(), direct, images_, any, outputs_, strides,
                                                                     gaps, low, high, forward, attributes);
      keep(backward, backward.weights_desc());
    } else {
      const dnnl::convolution_backward_weights::primitive_desc backward(Engine(), direct, images_, any, outputs_,
                                                                        strides, gaps, low, high, forward, attributes);
      keep(backward, backward.diff_weights_desc());
    }
    if (kernel_ != given_kernel_) {
      const bool is_result = mode_ == kKernelGradient;
      const dnnl::reorder::primitive_desc change(Engine(), is_result ? kernel_ : given_kernel_, Engine(),
                                                 is_result ? given_kernel_ : kernel_, attributes);
      change_ = dnnl::reorder(change);
      change_scratch_ = change.scratchpad_desc();
    }
  }

  bool IsReference() const override { return is_reference_; }

  size_t CountBytes() const override { return CountScratch() + (change_ ? kernel_.get_size() : 0); }

  void Run(void* images, void* kernel, void* outputs, char* memory) const override {
    const dnnl::memory given = Place(given_kernel_, kernel);
    const dnnl::memory changed = change_ ? Place(kernel_, memory + CountScratch()) : given;
    const auto change = [&](dnnl::stream& stream, const dnnl::memory& from, const dnnl::memory& to) {
      change_.execute(stream, {{DNNL_ARG_FROM, from},
                               {DNNL_ARG_TO, to},
                               {DNNL_ARG_SCRATCHPAD, Place(change_scratch_, memory)}});
    };
    dnnl::stream stream(Engine());
    if (change_ && mode_ != kKernelGradient) change(stream, given, changed);
    primitive_.execute(stream,
                       {{mode_ == kImageGradient ? DNNL_ARG_DIFF_SRC : DNNL_ARG_SRC, Place(images_, images)},
                        {mode_ == kKernelGradient ? DNNL_ARG_DIFF_WEIGHTS : DNNL_ARG_WEIGHTS, changed},
                        {mode_ == kOutputs ? DNNL_ARG_DST : DNNL_ARG_DIFF_DST, Place(outputs_, outputs)},
                        {DNNL_ARG_SCRATCHPAD, Place(scratch_, memory)}});
    if (change_ && mode_ == kKernelGradient) change(stream, changed, given);
    stream.wait();
  }

 private:
  size_t CountScratch() const { return Align(std::max(scratch_.get_size(), change_scratch_.get_size())); }

  Mode mode_;
  Desc images_, given_kernel_, kernel_, outputs_, scratch_, change_scratch_;
  dnnl::primitive primitive_, change_;
  bool is_reference_;
};

// The operations that were used last, by everything that defines them.
class Cache {
 public:
  std::shared_ptr<const Operation> Get(const Problem& problem) {
    const Dims key = MakeKey(problem);
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = places_.find(key);
    if (found != places_.end()) {
      entries_.splice(entries_.begin(), entries_, found->second);
      return found->second->second;
    }
    if (problem.window.tiled)
      entries_.emplace_front(key, MakeTiles(problem));
    else
      entries_.emplace_front(key, std::make_shared<const Direct>(problem));
    places_[key] = entries_.begin();
    if (entries_.size() > kMost) {
      places_.erase(entries_.back().first);
      entries_.pop_back();
    }
    return entries_.front().second;
  }

 private:
  static Dims MakeKey(const Problem& problem) {
    const auto& [mode, type, images, kernel, outputs, window] = problem;
    const auto axes = static_cast<int64_t>(images.size());
    Dims key{mode, static_cast<int64_t>(type), window.groups, window.tiled, window.threads, axes};
    for (const auto& numbers : {images, kernel, outputs, window.strides, window.low, window.high, window.dilation})
      key.insert(key.end(), numbers.begin(), numbers.end());
    return key;
  }

  static constexpr size_t kMost = 1024;
  using Entry = std::pair<Dims, std::shared_ptr<const Operation>>;
  std::mutex mutex_;
  std::list<Entry> entries_;
  std::map<Dims, std::list<Entry>::iterator> places_;
};

std::shared_ptr<const Operation> Find(const Problem& problem) {
  static Cache* const cache = new Cache;  // never destroyed: threads may still compute while the process ends
  CheckShapes(problem);
  return cache->Get(problem);
}

void Convolve(Mode mode, const Array& images, const Array& kernel, const Array& outputs, Bytes& scratch,
              const Window& window) {
  CheckTypes({&images, &kernel, &outputs});
  const auto operation =
      Find({mode, images.element_type(), images.dimensions(), kernel.dimensions(), outputs.dimensions(), window});
  Check(scratch.element_count() >= operation->CountBytes() + kAlignment, "a convolution needs more scratch memory");
  auto* const memory = reinterpret_cast<char*>(Align(reinterpret_cast<uintptr_t>(scratch.untyped_data())));
  omp_set_num_threads(static_cast<int>(window.threads));
  operation->Run(images.untyped_data(), kernel.untyped_data(), outputs.untyped_data(), memory);
}

void Outputs(Array images, Array kernel, ffi::Result<Array> outputs, ffi::Result<Bytes> scratch, Window window) {
  Convolve(kOutputs, images, kernel, *outputs, *scratch, window);
}

void ImageGradient(Array cotangent, Array kernel, ffi::Result<Array> images, ffi::Result<Bytes> scratch,
                   Window window) {
  Convolve(kImageGradient, *images, kernel, cotangent, *scratch, window);
}

void KernelGradient(Array images, Array cotangent, ffi::Result<Array> kernel, ffi::Result<Bytes> scratch,
                    Window window) {
  Convolve(kKernelGradient, images, *kernel, cotangent, *scratch, window);
}

}  // namespace

DEFINE_CUSTOM_CALL(convolution_outputs, Outputs);
DEFINE_CUSTOM_CALL(convolution_image_gradient, ImageGradient);
DEFINE_CUSTOM_CALL(convolution_kernel_gradient, KernelGradient);

extern "C" {
extern const int onednn_version[3];  // major, minor, patch
extern const int has_bfloat16;       // whether oneDNN can convolve bfloat16 on this CPU

// The bytes of scratch memory that a convolution needs; -1 if oneDNN cannot do it, or only by its reference.
// `numbers` are the shapes of images, kernel and outputs, and the steps, zeros before and after, and dilation.
int64_t count_scratch(int64_t mode, int64_t is_bfloat16, int64_t axes, const int64_t* numbers, int64_t groups,
                      int64_t tiled, int64_t threads) {
  const auto take = [&numbers](size_t count) {
    numbers += count;
    return Numbers(numbers - count, count);
  };
  const size_t all = axes, spatial = axes - 2;
  const Problem problem{static_cast<Mode>(mode),
                        is_bfloat16 ? ffi::BF16 : ffi::F32,
                        take(all),
                        take(all),
                        take(all),
                        {take(spatial), take(spatial), take(spatial), take(spatial), groups, tiled, threads}};
  try {
    const auto operation = Find(problem);
    return operation->IsReference() ? -1 : static_cast<int64_t>(operation->CountBytes() + kAlignment);
  } catch (const std::exception&) {
    return -1;
  }
}
}
const int onednn_version[3] = {dnnl_version()->major, dnnl_version()->minor, dnnl_version()->patch};
const int has_bfloat16 =
    (static_cast<int>(dnnl::get_effective_cpu_isa()) & dnnl_cpu_isa_avx512_core) == dnnl_cpu_isa_avx512_core;
