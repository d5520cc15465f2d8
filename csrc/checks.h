// Argument checks shared by all kernels: enough to keep a direct call of torch.ops.gpe.* inside its
// tensors' memory. The public functions in gpe/ops check first, and say more.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

namespace gpe {

inline void expect_rank(const char* name, const at::Tensor& tensor, int64_t rank) {
  TORCH_CHECK_VALUE(tensor.dim() == rank, name, ": expected ", rank, " dimensions, got shape ",
                    tensor.sizes());
}

inline void expect_shape(const char* name, const at::Tensor& tensor, at::IntArrayRef shape) {
  TORCH_CHECK_VALUE(tensor.sizes() == shape, name, ": expected shape ", shape, ", got ",
                    tensor.sizes());
}

inline void expect_dtype(const char* name, const at::Tensor& tensor, at::ScalarType dtype) {
  TORCH_CHECK_TYPE(tensor.scalar_type() == dtype, name, ": expected ", dtype, ", got ",
                   tensor.scalar_type());
}

inline void expect_device(const char* name, const at::Tensor& tensor, const at::Tensor& other) {
  TORCH_CHECK_VALUE(tensor.device() == other.device(), name, ": expected a tensor on ",
                    other.device(), ", got one on ", tensor.device());
}

inline void expect_tensor(const char* name, const at::Tensor& tensor, at::ScalarType dtype,
                          at::IntArrayRef shape, const at::Tensor& other) {
  expect_shape(name, tensor, shape);
  expect_dtype(name, tensor, dtype);
  expect_device(name, tensor, other);
}

inline void expect_vector(const char* name, const at::Tensor& tensor, at::ScalarType dtype,
                          int64_t length, const at::Tensor& other) {
  expect_tensor(name, tensor, dtype, {length}, other);
}

inline void expect_positive(const char* name, int64_t value) {
  TORCH_CHECK_VALUE(value >= 1, name, ": expected at least 1, got ", value);
}

}  // namespace gpe
