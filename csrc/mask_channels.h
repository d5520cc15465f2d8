// What the CPU and the CUDA kernel of mask_channels share: the calls that lead to either.
#pragma once

#include <ATen/TensorIterator.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>

#include <vector>

#include "checks.h"

namespace gpe::mask_channels {

// What is written to `out`, and where it comes from, which may be `out` itself. `masked` has the
// shape of both, without memory of its own: walking it, an iterator meets each element's channel.
struct Call {
  at::Tensor out, features, masked;

  at::TensorIterator iterator() const {
    return at::TensorIteratorConfig()
        .set_check_mem_overlap(true)
        .check_all_same_dtype(false)
        .resize_outputs(false)
        .add_output(out)
        .add_const_input(features)
        .add_const_input(masked)
        .build();
  }
};

inline Call checked(const at::Tensor& out, const at::Tensor& features, const at::Tensor& masked) {
  TORCH_CHECK_VALUE(features.dim() >= 2, "features: expected at least 2 dimensions, got shape ",
                    features.sizes());
  expect_vector("masked", masked, at::kBool, features.size(1), features);
  std::vector<int64_t> strides(features.dim(), 0);
  strides[1] = masked.stride(0);
  return {out, features, masked.as_strided(features.sizes(), strides)};
}

// The operators of torch.ops.gpe, for the kernels of a device.
template <void (*kKernel)(const Call&)>
at::Tensor mask_channels(const at::Tensor& features, const at::Tensor& masked) {
  expect_no_tangent("features", features);
  const at::Tensor out = at::empty_like(features);
  const Call call = checked(out, features, masked);
  if (out.numel() > 0) kKernel(call);
  return out;
}

template <void (*kKernel)(const Call&)>
void mask_channels_(at::Tensor& features, const at::Tensor& masked) {
  const Call call = checked(features, features, masked);
  expect_apart("masked", masked, features);
  mark_written("features", features);
  if (features.numel() > 0) kKernel(call);
}

}  // namespace gpe::mask_channels
