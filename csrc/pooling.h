// What all kernels that pool feature maps share: where the pixels of a channel lie.
#pragma once

#include <ATen/Dispatch.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <type_traits>
#include <utility>

#include "host_device.h"

namespace gpe::pooling {

// Type of the sums, of the latents and of their mean squared error.
template <typename T>
using Accumulate = std::conditional_t<std::is_same_v<T, double>, double, float>;

// Feature maps in memory, strided in any way. The pixels of a channel are `runs` runs of
// `run_length`; where H and W can be walked as one, there is a single run.
struct Maps {
  int64_t images, channels;
  int64_t image_stride, channel_stride;
  int64_t runs, run_stride, run_length, pixel_stride;

  GPE_HOST_DEVICE int64_t pixels() const { return runs * run_length; }

  GPE_HOST_DEVICE int64_t pixel(int64_t index) const {
    if (runs == 1) return index * pixel_stride;
    return index / run_length * run_stride + index % run_length * pixel_stride;
  }

  // Whether neighbours in memory are channels, as in channels-last, and not pixels.
  GPE_HOST_DEVICE bool channels_last() const {
    return channel_stride == 1 && (pixel_stride != 1 || run_length == 1);
  }
};

inline Maps maps_of(const at::Tensor& features) {
  int64_t height = features.size(2), row = features.stride(2);
  int64_t width = features.size(3), column = features.stride(3);
  if (row < column) {
    std::swap(height, width);
    std::swap(row, column);
  }
  if (height == 1 || width == 1 || row == width * column) {
    if (width == 1) column = row;
    width *= height;
    height = 1;
  }
  return {features.size(0), features.size(1), features.stride(0), features.stride(1),
          height,           row,              width,              column};
}

// Calls run(T{}) with the type of the features.
template <typename Run>
void with_dtype(const at::Tensor& features, Run run) {
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, features.scalar_type(),
                                  "pooling of features", [&] { run(scalar_t{}); });
}

}  // namespace gpe::pooling
