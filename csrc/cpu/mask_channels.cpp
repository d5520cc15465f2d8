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

// Writes to the masked channels alone.
template <typename U>
void clear(char** data, const int64_t* strides, int64_t count, const bool* first,
           const std::vector<int64_t>& channels) {
  U* out = reinterpret_cast<U*>(data[kOut]);
  const bool* masked = reinterpret_cast<const bool*>(data[kMasked]);
  const int64_t step = strides[kOut] / sizeof(U);
  if (strides[kMasked] == 0) {
    if (!*masked) return;
    if (step == 1) {
      std::fill(out, out + count, U(0));
    } else {
      for (int64_t i = 0; i < count; ++i) out[i * step] = 0;
    }
  } else {
    const int64_t begin = (masked - first) / strides[kMasked];
    auto next = std::lower_bound(channels.begin(), channels.end(), begin);
    for (; next != channels.end() && *next < begin + count; ++next)
      out[(*next - begin) * step] = 0;
  }
}

// Runs run(data, strides, count) for each row of elements, on all threads.
template <typename Run>
void for_rows(const Call& call, Run run) {
  auto iterator = call.iterator();
  iterator.for_each([&](char** base, const int64_t* strides, int64_t count, int64_t rows) {
    char* data[] = {base[kOut], base[kIn], base[kMasked]};
    for (int64_t row = 0; row < rows; ++row) {
      run(data, strides, count);
      for (const int operand : {kOut, kIn, kMasked}) data[operand] += strides[3 + operand];
    }
  });
}

void write(const Call& call) {
  use_huge_pages(call.out);
  with_bits(call.out.element_size(), [&](auto bits) {
    using U = decltype(bits);
    for_rows(call, copy<U>);
  });
}

void write_in_place(const Call& call) {
  const int64_t count = call.masked.size(1), stride = call.masked.stride(1);
  const bool* masked = call.masked.const_data_ptr<bool>();
  std::vector<int64_t> channels;
  for (int64_t c = 0; c < count; ++c)
    if (masked[c * stride]) channels.push_back(c);
  with_bits(call.out.element_size(), [&](auto bits) {
    using U = decltype(bits);
    for_rows(call, [&](char** data, const int64_t* strides, int64_t size) {
      clear<U>(data, strides, size, masked, channels);
    });
  });
}

}  // namespace

TORCH_LIBRARY_IMPL(gpe, CPU, library) {
  library.impl("mask_channels", &mask_channels<write>);
  library.impl("mask_channels_", &mask_channels_<write_in_place>);
}

}  // namespace gpe::mask_channels
