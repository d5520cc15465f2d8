// Argument checks shared by all kernels: enough to keep a direct call of torch.ops.gpe.* inside its
// tensors' memory. The public functions in gpe/ops check first, and say more.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <c10/util/Exception.h>
#include <c10/util/safe_numerics.h>

#include <cstdint>
#include <utility>

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

// Of a result: torch takes any number for a dtype.
inline void expect_floating(const char* name, at::ScalarType dtype) {
  TORCH_CHECK_TYPE(dtype == at::kFloat || dtype == at::kDouble || dtype == at::kHalf ||
                       dtype == at::kBFloat16,
                   name, ": expected a floating-point dtype, got number ", static_cast<int>(dtype));
}

inline void expect_pair(const char* name, at::IntArrayRef values) {
  TORCH_CHECK_VALUE(values.size() == 2, name, ": expected two integers, got ", values);
}

inline int64_t product(const char* name, int64_t a, int64_t b) {
  int64_t result = 0;
  TORCH_CHECK_VALUE(!c10::mul_overflows(a, b, &result), name, ": expected less, ", a, " times ", b,
                    " exceeds 64 bits");
  return result;
}

// These kernels have no forward-mode derivative, which must not pass for one that is zero.
inline void expect_no_tangent(const char* name, const at::Tensor& tensor) {
  TORCH_CHECK_NOT_IMPLEMENTED(!tensor._fw_grad(0).defined(), name, ": expected no forward-mode "
                              "gradient, which the functions of gpe take and this operator does not");
}

// Tells autograd of a write. Nothing here has a gradient for what is written in place.
inline void mark_written(const char* name, const at::Tensor& tensor) {
  TORCH_CHECK_VALUE(!(at::GradMode::is_enabled() && tensor.requires_grad()), name,
                    ": expected a tensor that requires no gradient");
  expect_no_tangent(name, tensor);
  if (!tensor.is_inference()) tensor.unsafeGetTensorImpl()->bump_version();
}

// Where a tensor's first byte lies, and the byte behind its last.
inline std::pair<uintptr_t, uintptr_t> bytes_of(const at::Tensor& tensor) {
  const auto first = reinterpret_cast<uintptr_t>(tensor.const_data_ptr());
  int64_t last = tensor.numel() > 0;
  for (int64_t i = 0; last && i < tensor.dim(); ++i)
    last += (tensor.size(i) - 1) * tensor.stride(i);
  return {first, first + last * tensor.element_size()};
}

inline void expect_apart(const char* name, const at::Tensor& tensor, const at::Tensor& written) {
  const auto [first, last] = bytes_of(tensor);
  const auto [begin, end] = bytes_of(written);
  TORCH_CHECK_VALUE(last <= begin || end <= first, name, ": expected memory apart from what is written");
}

}  // namespace gpe
