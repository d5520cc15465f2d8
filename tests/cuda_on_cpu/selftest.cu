// Kernels of 96 threads, right ones and some with one mistake: what the emulator must see.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <cub/block/block_reduce.cuh>

namespace gpe::selftest {
namespace {

constexpr int kThreads = 96;
using Reduce = cub::BlockReduce<float, kThreads>;

template <bool kBarrier>
__global__ void __launch_bounds__(kThreads) reversed(const float* in, float* out) {
  __shared__ float place[kThreads];
  place[threadIdx.x] = in[threadIdx.x];
  if constexpr (kBarrier) __syncthreads();
  out[threadIdx.x] = place[kThreads - 1 - threadIdx.x];
}

// Thread 0 has the sum, the others what the last lane of the warp before has.
__global__ void collectives(const float* in, float* out) {
  __shared__ typename Reduce::TempStorage storage;
  const int lane = threadIdx.x % 32;
  const float last = __shfl_sync(~0u, in[threadIdx.x], 31);
  const unsigned same = __match_any_sync(~0u, lane / 4), even = __ballot_sync(~0u, lane % 2 == 0);
  const float sum = Reduce(storage).Sum(in[threadIdx.x] + __popc(same) * __popc(even));
  out[threadIdx.x] = threadIdx.x == 0 ? sum : last;
}

__global__ void not_all_reach_the_barrier(const float*, float* out) {
  if (threadIdx.x < 40) __syncthreads();
  out[threadIdx.x] = 1;
}

__global__ void two_barriers(const float*, float* out) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = 1;
}

__global__ void lane_left_out(const float*, float* out) {
  out[threadIdx.x] = __ballot_sync(0x0000ffff, 1);
}

__global__ void lane_exited(const float*, float* out) {
  if (threadIdx.x % 32 == 5) return;
  out[threadIdx.x] = __match_any_sync(0xffffffff, 1);
}

__global__ void lane_elsewhere(const float*, float* out) {
  if (threadIdx.x % 32 == 5) {
    __syncthreads();
  } else {
    out[threadIdx.x] = __ballot_sync(0xffffffff, 1);
  }
}

__global__ void shuffle_from_outside(const float*, float* out) {
  if (threadIdx.x % 32 < 16) out[threadIdx.x] = __shfl_sync(0x0000ffff, 1.0f, 20);
}

__global__ void same_place(const float*, float* out) {
  out[threadIdx.x] = 0;
  out[threadIdx.x / 2] = threadIdx.x;
}

__global__ void uninitialised(const float*, float* out) {
  __shared__ float sum;
  if (threadIdx.x == 0) sum += 1;
  __syncthreads();
  out[threadIdx.x] = sum;
}

template <bool kWait>
__global__ void fetched(const float* in, float* out) {
  __shared__ float place[kThreads];
  __pipeline_memcpy_async(place + threadIdx.x, in + threadIdx.x, sizeof(float));
  if constexpr (kWait) __pipeline_wait_prior(0);
  out[threadIdx.x] = place[threadIdx.x];
}

__global__ void wrong_thread_of_the_sum(const float*, float* out) {
  __shared__ typename Reduce::TempStorage storage;
  out[threadIdx.x] = Reduce(storage).Sum(1.0f);  // only the first thread's is defined
}

at::Tensor selftest(const at::Tensor& in, c10::string_view name) {
  const at::Tensor out = at::empty({kThreads}, in.options());
  const float* from = in.const_data_ptr<float>();
  float* to = out.mutable_data_ptr<float>();
  if (name == "reversed") reversed<true><<<2, kThreads>>>(from, to);
  if (name == "reversed without barrier") reversed<false><<<1, kThreads>>>(from, to);
  if (name == "collectives") collectives<<<1, kThreads>>>(from, to);
  if (name == "not all reach the barrier") not_all_reach_the_barrier<<<1, kThreads>>>(from, to);
  if (name == "two barriers") two_barriers<<<1, kThreads>>>(from, to);
  if (name == "lane left out") lane_left_out<<<1, kThreads>>>(from, to);
  if (name == "lane exited") lane_exited<<<1, kThreads>>>(from, to);
  if (name == "lane elsewhere") lane_elsewhere<<<1, kThreads>>>(from, to);
  if (name == "shuffle from outside") shuffle_from_outside<<<1, kThreads>>>(from, to);
  if (name == "same place") same_place<<<1, kThreads>>>(from, to);
  if (name == "uninitialised") uninitialised<<<1, kThreads>>>(from, to);
  if (name == "fetched") fetched<true><<<1, kThreads>>>(from, to);
  if (name == "not waited for") fetched<false><<<1, kThreads>>>(from, to);
  if (name == "wrong thread of the sum") wrong_thread_of_the_sum<<<1, kThreads>>>(from, to);
  if (name == "too many threads") reversed<true><<<1, 128>>>(from, to);
  if (name == "no blocks") reversed<true><<<in.numel() - kThreads, kThreads>>>(from, to);
  if (name == "too many rows") reversed<true><<<dim3(1, 65536), kThreads>>>(from, to);
  if (name == "too large a grid") reversed<true><<<(int64_t{1} << 32) + 1, kThreads>>>(from, to);
  if (name == "too much shared memory") reversed<true><<<1, kThreads, 49153>>>(from, to);
  return out;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(gpe, library) {
  library.def("selftest(Tensor input, str name) -> Tensor", &selftest);
}

}  // namespace gpe::selftest
