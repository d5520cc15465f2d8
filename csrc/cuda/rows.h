// What CUDA kernels that write planes of rows have in common: threadIdx.x runs along the row,
// threadIdx.y over rows, and a thread writes a vector at a time.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace gpe {

constexpr int kThreads = 256;
constexpr int kRowsPerBlock = 32;
constexpr int kVectorBytes = 16;

template <typename T, int kSize>
struct alignas(sizeof(T) * kSize) Vector {
  T values[kSize];
};

// Enough threads along a row for its vectors, at most a warp; the others take further rows.
inline dim3 threads_for_row(int64_t vectors) {
  int x = 1;
  while (x < 32 && x < vectors) x *= 2;
  return dim3(x, kThreads / x);
}

// A block for each kRowsPerBlock rows of a plane.
inline dim3 blocks_for_planes(int64_t planes, int64_t rows) {
  return dim3(planes, (rows + kRowsPerBlock - 1) / kRowsPerBlock);
}

inline bool fit_one_launch(int64_t planes, int64_t rows, int64_t row_size) {
  return planes <= INT32_MAX && row_size <= INT32_MAX && rows <= 65535 * kRowsPerBlock;
}

inline bool aligned(const void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % kVectorBytes == 0;
}

}  // namespace gpe
