// What the CPU and the CUDA kernel of flip_difference share: the call that leads to either.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <optional>
#include <tuple>

#include "checks.h"

namespace gpe::flip_difference {

// A call whose arguments were checked. pooled [2N,C] holds the means of the features, then those of
// the mirrored ones; the totals hold what was summed before.
struct Call {
  at::Tensor features, mirrored, pooled, difference, total, absolute_total;
};

inline at::Tensor total_so_far(const char* name, const std::optional<at::Tensor>& total,
                               const at::Tensor& features) {
  const int64_t channels = features.size(1);
  if (!total) return at::zeros({channels}, features.options().dtype(at::kDouble));
  expect_vector(name, *total, at::kDouble, channels, features);
  expect_no_tangent(name, *total);
  return total->clone(at::MemoryFormat::Contiguous);
}

// The operator of torch.ops.gpe, for the kernel of a device.
template <void (*kKernel)(const Call&)>
std::tuple<at::Tensor, at::Tensor, at::Tensor> flip_difference(
    const at::Tensor& features, const at::Tensor& mirrored, const std::optional<at::Tensor>& total,
    const std::optional<at::Tensor>& absolute_total) {
  expect_rank("features", features, 4);
  expect_positive("height of features", features.size(2));
  expect_positive("width of features", features.size(3));
  expect_tensor("mirrored", mirrored, features.scalar_type(), features.sizes(), features);
  expect_no_tangent("features", features);
  expect_no_tangent("mirrored", mirrored);
  const int64_t images = features.size(0), channels = features.size(1);
  const auto dtype = features.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const auto options = features.options().dtype(dtype);
  const Call call{features,
                  mirrored,
                  at::empty({2 * images, channels}, options),
                  at::empty({images, channels}, options),
                  total_so_far("total", total, features),
                  total_so_far("absolute_total", absolute_total, features)};
  if (call.difference.numel() > 0) kKernel(call);
  return {call.difference, call.total, call.absolute_total};
}

}  // namespace gpe::flip_difference
