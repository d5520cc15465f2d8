#include "../mask_channels.h"

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "rows.h"

namespace gpe::mask_channels {
namespace {

// Runs run(U{}) with an unsigned integer as wide as an element: a zero is all bits 0 in any dtype.
template <typename Run>
void with_bits(int64_t size, Run run) {
  if (size == 1) return run(uint8_t{});
  if (size == 2) return run(uint16_t{});
  if (size == 4) return run(uint32_t{});
  TORCH_CHECK_TYPE(size == 8, "features: expected elements of at most 8 bytes, got ", size);
  run(uint64_t{});
}

// Neighbours are of one channel: a row of threads to a plane, a vector to a thread at a time.
template <int kSize, typename U>
__global__ void __launch_bounds__(kThreads)
    write_planes(U* out, const U* in, const bool* masked, int64_t mask_stride, int64_t planes,
                 int64_t channels, int64_t pixels) {
  using Pixels = Vector<U, kSize>;
  const int64_t plane = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (plane >= planes) return;
  const bool zero = masked[plane % channels * mask_stride];
  if (in == out && !zero) return;
  for (int64_t i = threadIdx.x * kSize; i < pixels; i += blockDim.x * kSize) {
    Pixels vector = {};
    if (!zero) vector = *reinterpret_cast<const Pixels*>(in + plane * pixels + i);
    *reinterpret_cast<Pixels*>(out + plane * pixels + i) = vector;
  }
}

// Neighbours are of one channel, or of two: a thread to a vector, which may cross the edge between
// planes of at least its size. An image has `size` elements.
template <int kSize, typename U>
__global__ void __launch_bounds__(kThreads)
    write_small_planes(U* out, const U* in, const bool* masked, int64_t mask_stride, int size,
                       int pixels) {
  using Elements = Vector<U, kSize>;
  const int i = (blockIdx.y * kThreads + threadIdx.x) * kSize;
  if (i >= size) return;
  const int channel = i / pixels;
  const int edge = (channel + 1) * pixels - i;  // where the next channel begins
  const bool zero = masked[channel * mask_stride];
  const bool next_zero = edge < kSize ? masked[(channel + 1) * mask_stride] : zero;
  if (in == out && !zero && !next_zero) return;
  const int64_t at = int64_t{blockIdx.x} * size + i;
  Elements vector = {};
  if (!zero || !next_zero) vector = *reinterpret_cast<const Elements*>(in + at);
#pragma unroll
  for (int j = 0; j < kSize; ++j)
    if (j < edge ? zero : next_zero) vector.values[j] = 0;
  *reinterpret_cast<Elements*>(out + at) = vector;
}

// Neighbours are of one pixel: a row of threads to it.
template <int kSize, typename U>
__global__ void __launch_bounds__(kThreads)
    write_pixels(U* out, const U* in, const bool* masked, int64_t mask_stride, int64_t pixels,
                 int64_t channels) {
  using Channels = Vector<U, kSize>;
  const int64_t pixel = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (pixel >= pixels) return;
  for (int64_t i = threadIdx.x * kSize; i < channels; i += blockDim.x * kSize) {
    bool any = in != out;
#pragma unroll
    for (int j = 0; j < kSize; ++j) any |= masked[(i + j) * mask_stride];
    if (!any) continue;
    Channels vector = *reinterpret_cast<const Channels*>(in + pixel * channels + i);
#pragma unroll
    for (int j = 0; j < kSize; ++j)
      if (masked[(i + j) * mask_stride]) vector.values[j] = 0;
    *reinterpret_cast<Channels*>(out + pixel * channels + i) = vector;
  }
}

constexpr int64_t kMostBlocksDown = 65535;  // of a grid
constexpr int kMostDimensions = 8;

// Tensors of any strides, in bytes; their dimensions are merged where they can be.
struct Strided {
  int dimensions;
  int64_t count, sizes[kMostDimensions], strides[3][kMostDimensions];
  char *out, *in, *masked;

  explicit Strided(const at::TensorIterator& iterator)
      : dimensions(iterator.ndim()),
        count(iterator.numel()),
        out(static_cast<char*>(iterator.data_ptr(0))),
        in(static_cast<char*>(iterator.data_ptr(1))),
        masked(static_cast<char*>(iterator.data_ptr(2))) {
    TORCH_CHECK_VALUE(dimensions <= kMostDimensions, "features: expected at most ",
                      kMostDimensions, " dimensions where they are not dense, got ", dimensions);
    for (int i = 0; i < dimensions; ++i) {
      sizes[i] = iterator.shape()[i];
      for (int operand = 0; operand < 3; ++operand)
        strides[operand][i] = iterator.strides(operand)[i];
    }
  }
};

template <typename U>
__global__ void __launch_bounds__(kThreads) write_strided(Strided tensors) {
  int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= tensors.count) return;
  int64_t out = 0, in = 0, masked = 0;
  for (int i = 0; i < tensors.dimensions; ++i) {
    const int64_t at = index % tensors.sizes[i];
    index /= tensors.sizes[i];
    out += at * tensors.strides[0][i];
    in += at * tensors.strides[1][i];
    masked += at * tensors.strides[2][i];
  }
  const bool zero = *reinterpret_cast<const bool*>(tensors.masked + masked);
  *reinterpret_cast<U*>(tensors.out + out) =
      zero ? U(0) : *reinterpret_cast<const U*>(tensors.in + in);
}

// A row of `vectors` to threadIdx.y, for `count` rows.
template <typename Launch>
void launch_rows(int64_t count, int64_t vectors, Launch launch) {
  const dim3 threads = threads_for_row(vectors);
  const int64_t blocks = (count + threads.y - 1) / threads.y;
  TORCH_CHECK_VALUE(blocks <= INT32_MAX, "features: too many for one launch");
  launch(dim3(blocks), threads, c10::cuda::getCurrentCUDAStream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

bool channels_last(const at::Tensor& features) {
  return features.dim() > 2 && features.movedim(1, -1).is_contiguous();
}

template <typename U>
void write_dense(const Call& call, bool pixels_inside) {
  constexpr int kSize = kVectorBytes / sizeof(U);
  const int64_t channels = call.out.size(1), stride = call.masked.stride(1);
  const int64_t row = pixels_inside ? channels : call.out[0][0].numel();
  const int64_t count = call.out.numel() / row;
  U* out = static_cast<U*>(call.out.mutable_data_ptr());
  const U* in = static_cast<const U*>(call.features.const_data_ptr());
  const bool* masked = call.masked.const_data_ptr<bool>();
  const auto run = [&](auto size) {
    constexpr int kVector = decltype(size)::value;
    launch_rows(count, row / kVector, [&](dim3 blocks, dim3 threads, auto stream) {
      if (pixels_inside) {
        write_pixels<kVector><<<blocks, threads, 0, stream>>>(out, in, masked, stride, count, row);
      } else {
        write_planes<kVector><<<blocks, threads, 0, stream>>>(out, in, masked, stride, count,
                                                              channels, row);
      }
    });
  };
  const bool vectors = aligned(out) && aligned(in);
  const int64_t images = call.out.size(0), image = channels * row;
  if (vectors && row % kSize == 0) {
    run(std::integral_constant<int, kSize>());
  } else if (vectors && !pixels_inside && row > kSize && image % kSize == 0 &&
             images <= INT32_MAX && image <= kMostBlocksDown * kThreads * kSize) {
    const dim3 blocks(images, (image / kSize + kThreads - 1) / kThreads);
    write_small_planes<kSize><<<blocks, kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(
        out, in, masked, stride, static_cast<int>(image), static_cast<int>(row));
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  } else {
    run(std::integral_constant<int, 1>());
  }
}

void write(const Call& call) {
  const c10::cuda::CUDAGuard guard(call.out.device());
  with_bits(call.out.element_size(), [&](auto bits) {
    using U = decltype(bits);
    const bool same = call.out.strides() == call.features.strides();
    if (same && call.out.is_contiguous()) return write_dense<U>(call, false);
    if (same && channels_last(call.out)) return write_dense<U>(call, true);
    const Strided tensors(call.iterator());
    const int64_t blocks = (tensors.count + kThreads - 1) / kThreads;
    TORCH_CHECK_VALUE(blocks <= INT32_MAX, "features: too many for one launch");
    write_strided<U><<<blocks, kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(tensors);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  });
}

}  // namespace

TORCH_LIBRARY_IMPL(gpe, CUDA, library) {
  library.impl("mask_channels", &mask_channels<write>);
  library.impl("mask_channels_", &mask_channels_<write>);
}

}  // namespace gpe::mask_channels
