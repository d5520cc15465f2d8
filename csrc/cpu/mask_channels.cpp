#include "../mask_channels.h"

#include <torch/library.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "cpu.h"

namespace gpe::mask_channels {
namespace {

constexpr int kOut = 0, kIn = 1, kMasked = 2;  // operands of the iterator

// Runs f(U{}) with an unsigned integer as wide as an element: a zero is all bits 0 in any dtype.
template <typename Run>
void with_bits(int64_t size, Run run) {
  if (size == 1) return run(uint8_t{});
  if (size == 2) return run(uint16_t{});
  if (size == 4) return run(uint32_t{});
  TORCH_CHECK_TYPE(size == 8, "features: expected elements of at most 8 bytes, got ", size);
  run(uint64_t{});
}

// Elements side by side, a channel each.
template <typename U>
GPE_MULTIVERSION void select(U* out, const U* in, const bool* masked, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = masked[i] ? U(0) : in[i];
}

template <typename U>
void copy(char** data, const int64_t* strides, int64_t count) {
  U* out = reinterpret_cast<U*>(data[kOut]);
  const U* in = reinterpret_cast<const U*>(data[kIn]);
  const bool* masked = reinterpret_cast<const bool*>(data[kMasked]);
  const int64_t step_out = strides[kOut] / sizeof(U), step_in = strides[kIn] / sizeof(U);
  const bool dense = step_out == 1 && step_in == 1;
  if (strides[kMasked] == 0 && dense) {
    if (*masked) {
      std::fill(out, out + count, U(0));
    } else {
      std::copy(in, in + count, out);
    }
  } else if (strides[kMasked] == 1 && dense) {
    select(out, in, masked, count);
  } else {
    for (int64_t i = 0; i < count; ++i)
      out[i * step_out] = masked[i * strides[kMasked]] ? U(0) : in[i * step_in];
  }
}

template <typename U>
void zero(char* out, int64_t stride, int64_t count) {
  if (stride == sizeof(U)) {
    std::memset(out, 0, count * sizeof(U));
  } else {
    for (int64_t i = 0; i < count; ++i) *reinterpret_cast<U*>(out + i * stride) = 0;
  }
}

// The masked channels, to be found without a look at the others.
class Masked {
 public:
  explicit Masked(const at::Tensor& masked)
      : first_(masked.const_data_ptr<bool>()), stride_(masked.stride(1)) {
    for (int64_t c = 0; c < masked.size(1); ++c)
      if (first_[c * stride_]) channels_.push_back(c);
  }

  // Runs run(i) for each channel that is masked among `count`, of which i is counted from `begin`.
  template <typename Run>
  void each(const char* begin, int64_t count, Run run) const {
    const int64_t from = stride_ ? (reinterpret_cast<const bool*>(begin) - first_) / stride_ : 0;
    auto next = std::lower_bound(channels_.begin(), channels_.end(), from);
    for (; next != channels_.end() && *next < from + count; ++next) run(*next - from);
  }

 private:
  const bool* const first_;
  const int64_t stride_;
  std::vector<int64_t> channels_;
};

void write(const Call& call) {
  use_huge_pages(call.out);
  with_bits(call.out.element_size(), [&](auto bits) {
    using U = decltype(bits);
    auto iterator = call.iterator();
    iterator.for_each([&](char** base, const int64_t* strides, int64_t count, int64_t rows) {
      char* data[] = {base[kOut], base[kIn], base[kMasked]};
      for (int64_t row = 0; row < rows; ++row) {
        copy<U>(data, strides, count);
        for (const int operand : {kOut, kIn, kMasked}) data[operand] += strides[3 + operand];
      }
    });
  });
}

// Writes to the masked channels alone.
void write_in_place(const Call& call) {
  const Masked masked(call.masked);
  with_bits(call.out.element_size(), [&](auto bits) {
    using U = decltype(bits);
    auto iterator = call.iterator();
    iterator.for_each([&](char** base, const int64_t* strides, int64_t count, int64_t rows) {
      char* const out = base[kOut];
      const int64_t step = strides[kOut], row = strides[3 + kOut];
      if (strides[kMasked]) {  // a row goes through channels
        for (int64_t i = 0; i < rows; ++i)
          masked.each(base[kMasked], count,
                      [&](int64_t c) { zero<U>(out + i * row + c * step, step, 1); });
      } else if (strides[3 + kMasked]) {  // a row is of one channel, and the next of the next
        masked.each(base[kMasked], rows,
                    [&](int64_t c) { zero<U>(out + c * row, step, count); });
      } else if (*reinterpret_cast<const bool*>(base[kMasked])) {
        for (int64_t i = 0; i < rows; ++i) zero<U>(out + i * row, step, count);
      }
    });
  });
}

}  // namespace

TORCH_LIBRARY_IMPL(gpe, CPU, library) {
  library.impl("mask_channels", &mask_channels<write>);
  library.impl("mask_channels_", &mask_channels_<write_in_place>);
}

}  // namespace gpe::mask_channels
