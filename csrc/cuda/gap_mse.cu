#include "../gap_mse.h"

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <cub/block/block_reduce.cuh>

#include "pooling.h"

namespace gpe::gap_mse {
namespace {

using pooling::kThreads;

// The second pass, in an order of its own as well.
template <typename A>
__global__ void __launch_bounds__(kThreads)
    mean_of_errors(const A* errors, int64_t blocks, int64_t latents, A* mse) {
  using Reduce = cub::BlockReduce<double, kThreads>;
  __shared__ typename Reduce::TempStorage storage;
  double sum = 0;
  for (int64_t i = threadIdx.x; i < blocks; i += kThreads) sum += errors[i];
  sum = Reduce(storage).Sum(sum);
  if (threadIdx.x == 0) *mse = sum / latents;
}

void run(const Call& call) {
  const c10::cuda::CUDAGuard guard(call.a.device());
  pooling::with_dtype(call.a, [&](auto type) {
    using A = pooling::Accumulate<decltype(type)>;
    const double scale = 1.0 / (call.a.size(2) * call.a.size(3));
    const at::Tensor errors =
        pooling::Pool<decltype(type)>(call.a, call.b, scale, call.pooled).run();
    mean_of_errors<<<1, kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(
        errors.const_data_ptr<A>(), errors.numel(), call.count(), call.mse.mutable_data_ptr<A>());
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  });
}

}  // namespace

TORCH_LIBRARY_IMPL(gpe, CUDA, library) { library.impl("gap_mse", &gap_mse<run>); }

}  // namespace gpe::gap_mse
