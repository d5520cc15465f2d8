// What the CPU and the CUDA kernel of gap_mse share: the call that leads to either.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <limits>
#include <optional>
#include <tuple>

#include "checks.h"

namespace gpe::gap_mse {

// A call whose arguments were checked. pooled [2,N,C] holds the means of a, then those of b.
struct Call {
  at::Tensor a, b, pooled, mse;

  int64_t count() const { return a.size(0) * a.size(1); }
};

inline Call checked(const at::Tensor& features_a, const std::optional<at::Tensor>& features_b) {
  expect_rank("features_a", features_a, 4);
  expect_positive("height of features_a", features_a.size(2));
  expect_positive("width of features_a", features_a.size(3));
  expect_no_tangent("features_a", features_a);
  if (features_b) expect_no_tangent("features_b", *features_b);
  const int64_t images = features_a.size(0), channels = features_a.size(1);
  const auto dtype = features_a.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const auto options = features_a.options().dtype(dtype);
  const at::Tensor mse = at::empty({}, options);
  if (features_b) {
    expect_shape("features_b", *features_b, features_a.sizes());
    expect_dtype("features_b", *features_b, features_a.scalar_type());
    expect_device("features_b", *features_b, features_a);
    return {features_a, *features_b, at::empty({2, images, channels}, options), mse};
  }
  TORCH_CHECK_VALUE(images % 2 == 0, "features_a: expected an even number of images, got ", images);
  return {features_a.narrow(0, 0, images / 2), features_a.narrow(0, images / 2, images / 2),
          at::empty({2, images / 2, channels}, options), mse};
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

}  // namespace gpe::gap_mse
