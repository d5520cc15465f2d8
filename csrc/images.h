// What the kernels that read images share: where pixels lie, and how they are normalised.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <type_traits>

#include "host_device.h"

namespace gpe {

// Where the pixels of one plane lie among the images, which may be strided in any way.
struct Strides {
  int64_t image, channel, row, column;

  static Strides of(const at::Tensor& images) {
    return {images.stride(0), images.stride(1), images.stride(2), images.stride(3)};
  }
};

// Type of the arithmetic, of scale and of shift.
template <typename In, typename Out>
using Accumulate =
    std::conditional_t<std::is_same_v<In, double> || std::is_same_v<Out, double>, double, float>;

// One pixel: uint8 is scaled to [0, 1] and normalised in one step. The build turns the contraction
// into a fused multiply-add off, so that every device rounds alike.
template <typename Out, typename In>
GPE_HOST_DEVICE Out normalise(In pixel, Accumulate<In, Out> scale, Accumulate<In, Out> shift) {
  return static_cast<Out>(static_cast<Accumulate<In, Out>>(pixel) * scale + shift);
}

}  // namespace gpe
