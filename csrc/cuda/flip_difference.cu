#include "../flip_difference.h"

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "pooling.h"

namespace gpe::flip_difference {
namespace {

using pooling::kThreads;
using pooling::kWarp;

// A thread to a channel, image by image: so the sums do not depend on how images are cut into
// batches.
template <typename A>
__global__ void __launch_bounds__(kThreads)
    subtract(const A* __restrict__ pooled, const A* __restrict__ mirrored, int64_t images,
             int64_t channels, A* __restrict__ difference, double* __restrict__ total,
             double* __restrict__ absolute_total) {
  constexpr int kUnroll = 64 / sizeof(A);
  const int64_t channel = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (channel >= channels) return;
  double sum = total[channel], absolute_sum = absolute_total[channel];
  for (int64_t first = 0; first < images; first += kUnroll) {
    A left[kUnroll] = {}, right[kUnroll] = {};
#pragma unroll
    for (int j = 0; j < kUnroll; ++j) {  // all loads first: too few threads wait for them
      if (first + j >= images) continue;
      left[j] = pooled[(first + j) * channels + channel];
      right[j] = mirrored[(first + j) * channels + channel];
    }
#pragma unroll
    for (int j = 0; j < kUnroll; ++j) {
      if (first + j >= images) continue;
      const A d = left[j] - right[j];
      difference[(first + j) * channels + channel] = d;
      sum += d;
      absolute_sum += d < 0 ? -d : d;
    }
  }
  total[channel] = sum;
  absolute_total[channel] = absolute_sum;
}

void run(const Call& call) {
  const c10::cuda::CUDAGuard guard(call.features.device());
  pooling::with_dtype(call.features, [&](auto type) {
    using A = pooling::Accumulate<decltype(type)>;
    const int64_t images = call.features.size(0), channels = call.features.size(1);
    const double scale = 1.0 / (call.features.size(2) * call.features.size(3));
    pooling::Pool<decltype(type)>(call.features, call.mirrored, scale, call.pooled).run();
    const A* pooled = call.pooled.const_data_ptr<A>();
    // Small blocks, since there are few channels for so many multiprocessors.
    const int64_t blocks = pooling::divide_up(channels, kWarp);
    subtract<<<blocks, kWarp, 0, c10::cuda::getCurrentCUDAStream()>>>(
        pooled, pooled + images * channels, images, channels, call.difference.mutable_data_ptr<A>(),
        call.total.mutable_data_ptr<double>(), call.absolute_total.mutable_data_ptr<double>());
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  });
}

}  // namespace

TORCH_LIBRARY_IMPL(gpe, CUDA, library) { library.impl("flip_difference", &flip_difference<run>); }

}  // namespace gpe::flip_difference
