// What the CPU and the CUDA kernel of gap_mse share: where the pixels of a channel lie, and the call
// that leads to either.
#pragma once

#include <ATen/Dispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <cstdint>
#include <limits>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>

#include "checks.h"
#include "host_device.h"

namespace gpe::gap_mse {

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

// A call whose arguments were checked. pooled [2N,C] holds the means of a, then those of b.
struct Call {
  at::Tensor a, b, pooled, mse;

  int64_t count() const { return a.size(0) * a.size(1); }
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

inline Call checked(const at::Tensor& features_a, const std::optional<at::Tensor>& features_b) {
  expect_rank("features_a", features_a, 4);
  expect_positive("height of features_a", features_a.size(2));
  expect_positive("width of features_a", features_a.size(3));
  const int64_t images = features_a.size(0), channels = features_a.size(1);
  const auto dtype = features_a.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const auto options = features_a.options().dtype(dtype);
  const at::Tensor mse = at::empty({}, options);
  if (features_b) {
    expect_shape("features_b", *features_b, features_a.sizes());
    expect_dtype("features_b", *features_b, features_a.scalar_type());
    expect_device("features_b", *features_b, features_a);
    return {features_a, *features_b, at::empty({2 * images, channels}, options), mse};
  }
  TORCH_CHECK_VALUE(images % 2 == 0, "features_a: expected an even number of images, got ", images);
  return {features_a.narrow(0, 0, images / 2), features_a.narrow(0, images / 2, images / 2),
          at::empty({images, channels}, options), mse};
}

// The operator of torch.ops.gpe, for the kernel of a device.
template <void (*kKernel)(const Call&)>
std::tuple<at::Tensor, at::Tensor> gap_mse(const at::Tensor& features_a,
                                           const std::optional<at::Tensor>& features_b) {
  const Call call = checked(features_a, features_b);
  if (call.count() > 0) {
    kKernel(call);
  } else {
    call.mse.fill_(std::numeric_limits<double>::quiet_NaN());
  }
  return {call.pooled, call.mse};
}

// Calls run(T{}) with the type of the features.
template <typename Run>
void with_dtype(const Call& call, Run run) {
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, call.a.scalar_type(),
                                  "gap_mse features", [&] { run(scalar_t{}); });
}

}  // namespace gpe::gap_mse
