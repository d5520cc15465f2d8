// Global average pooling of two feature maps on a GPU: what gap_mse and flip_difference begin with.
#pragma once

#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_pipeline.h>

#include <cub/block/block_reduce.cuh>
#include <cub/warp/warp_reduce.cuh>

#include <algorithm>

#include "../pooling.h"

namespace gpe::pooling {
namespace {

// The means of a and of b, a pair of latents to a group of threads, and the squared errors of each
// block, in an order that depends on shapes and strides alone. Where there are too few latents to
// fill a GPU, or too many pixels for sums in float, pixels are split: then the sums of the splits
// are taken, and summed once more as channels-last maps with a pixel for each split.
constexpr int kThreads = 256;
constexpr int kWarp = 32;
constexpr int kVectorBytes = 16;
constexpr int kUnroll = 4;
constexpr int64_t kWantedThreads = 1 << 18;
// Of a split. In channels-last maps a thread adds up an eighth of it, here 128 numbers in a chain
// of 32 additions, or a constant would drift by more than a few units in the last place.
constexpr int64_t kFewestPixels = 64, kMostPixels = 1024;

inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

template <typename T, int kSize>
struct alignas(sizeof(T) * kSize) Vector {
  T values[kSize];
};

template <typename T>
struct Arguments {
  Maps maps_a, maps_b;  // they differ in their strides alone
  const T *a, *b;
  int64_t splits = 1, split_pixels = 0;
  Accumulate<T>* sums = nullptr;    // [2N,splits,C]
  Accumulate<T>* errors = nullptr;  // of each block; null where there are splits
  Accumulate<T> scale = 1;          // of the sums: one over the pixels where there are no splits

  __device__ int64_t latents() const { return maps_a.images * maps_a.channels; }

  // Writes the sums of a and b; returns their squared error.
  __device__ Accumulate<T> finish(int64_t image, int64_t split, int64_t channel, Accumulate<T> a,
                                  Accumulate<T> b) const {
    const int64_t i = (image * splits + split) * maps_a.channels + channel;
    a *= scale;
    b *= scale;
    sums[i] = a;
    sums[i + splits * latents()] = b;
    return (a - b) * (a - b);
  }
};

// Two by two, so that the sums grow by an addition each kUnroll pixels.
template <typename T, int kSize>
__device__ Accumulate<T> sum_of(const Vector<T, kSize> (&pixels)[kUnroll], int i) {
  using A = Accumulate<T>;
  static_assert(kUnroll == 4);
  return (static_cast<A>(pixels[0].values[i]) + static_cast<A>(pixels[1].values[i])) +
         (static_cast<A>(pixels[2].values[i]) + static_cast<A>(pixels[3].values[i]));
}

// Adds every `step`th vector of a split to the sums, from pixel `first` of the split on.
template <int kSize, typename T>
__device__ void add_pixels(const Arguments<T>& arguments, const T* a, const T* b, int64_t split,
                           int first, int step, Accumulate<T>* sums_a, Accumulate<T>* sums_b) {
  using Pixels = Vector<T, kSize>;
  const Maps &maps_a = arguments.maps_a, &maps_b = arguments.maps_b;
  const auto add = [&](auto offset_a, auto offset_b) {
    const int64_t begin = split * arguments.split_pixels;
    const int64_t end = min(maps_a.pixels(), begin + arguments.split_pixels);
    for (int64_t pixel = begin + first; pixel < end; pixel += kUnroll * step) {
      Pixels next_a[kUnroll] = {}, next_b[kUnroll] = {};
#pragma unroll
      for (int j = 0; j < kUnroll; ++j) {  // all loads first, the last ones too
        if (pixel + j * step >= end) continue;
        next_a[j] = *reinterpret_cast<const Pixels*>(a + offset_a(pixel + j * step));
        next_b[j] = *reinterpret_cast<const Pixels*>(b + offset_b(pixel + j * step));
      }
#pragma unroll
      for (int i = 0; i < kSize; ++i) {
        sums_a[i] += sum_of(next_a, i);
        sums_b[i] += sum_of(next_b, i);
      }
    }
  };
  if (maps_a.runs == 1 && maps_b.runs == 1) {  // no division
    add([&](int64_t pixel) { return pixel * maps_a.pixel_stride; },
        [&](int64_t pixel) { return pixel * maps_b.pixel_stride; });
  } else {
    add([&](int64_t pixel) { return maps_a.pixel(pixel); },
        [&](int64_t pixel) { return maps_b.pixel(pixel); });
  }
}

// Adds up the squared errors that the threads of a block have seen.
template <typename T>
__device__ void finish_block(const Arguments<T>& arguments, Accumulate<T> error) {
  using Reduce = cub::BlockReduce<Accumulate<T>, kThreads>;
  __shared__ typename Reduce::TempStorage storage;
  if (arguments.errors == nullptr) return;
  const Accumulate<T> sum = Reduce(storage).Sum(error);
  if (threadIdx.x == 0) arguments.errors[blockIdx.x] = sum;
}

// Neighbours in memory are pixels: kGroup threads to the plane of a channel.
template <int kSize, int kGroup, typename T>
__global__ void __launch_bounds__(kThreads) pool_planes(Arguments<T> arguments) {
  using A = Accumulate<T>;
  using Reduce = cub::WarpReduce<A, kGroup>;
  __shared__ typename Reduce::TempStorage storage[2][kThreads / kGroup];
  const Maps &maps_a = arguments.maps_a, &maps_b = arguments.maps_b;
  const int group = threadIdx.x / kGroup, lane = threadIdx.x % kGroup;
  const int64_t task = static_cast<int64_t>(blockIdx.x) * (kThreads / kGroup) + group;
  const int64_t split = task % arguments.splits, latent = task / arguments.splits;
  A error = 0;
  if (latent < arguments.latents()) {
    const int64_t image = latent / maps_a.channels, channel = latent % maps_a.channels;
    const T* a = arguments.a + image * maps_a.image_stride + channel * maps_a.channel_stride;
    const T* b = arguments.b + image * maps_b.image_stride + channel * maps_b.channel_stride;
    A sums_a[kSize] = {}, sums_b[kSize] = {};
    add_pixels<kSize>(arguments, a, b, split, lane * kSize, kGroup * kSize, sums_a, sums_b);
#pragma unroll
    for (int i = 1; i < kSize; ++i) {
      sums_a[0] += sums_a[i];
      sums_b[0] += sums_b[i];
    }
    const A sum_a = Reduce(storage[0][group]).Sum(sums_a[0]);
    const A sum_b = Reduce(storage[1][group]).Sum(sums_b[0]);
    if (lane == 0) error = arguments.finish(image, split, channel, sum_a, sum_b);
  }
  finish_block(arguments, error);
}

// Planes without gaps whose vectors would cross their edges, of 7x7 pixels for example: a block
// brings some of them to shared memory in vectors, wherever they begin, and then adds them up.
template <typename T>
struct SmallPlanes {
  static constexpr int kSize = kVectorBytes / sizeof(T);
  static constexpr int kGroup = sizeof(T);  // threads to a plane
  static constexpr int kPlanes = kThreads / kGroup;  // of a block
  using Pixels = Vector<T, kSize>;

  static bool fit(const Maps& maps, const T* data) {
    return maps.runs == 1 && maps.pixel_stride == 1 && maps.pixels() <= kFewestPixels &&
           maps.channel_stride == maps.pixels() &&
           maps.image_stride == maps.channels * maps.pixels() && maps.image_stride % kSize == 0 &&
           reinterpret_cast<uintptr_t>(data) % kVectorBytes == 0;
  }

  // Those that belong to `count` elements; they arrive with the next wait.
  static __device__ void fetch(const T* elements, int count, Pixels* shared) {
    for (int i = threadIdx.x; i < count / kSize; i += kThreads)
      __pipeline_memcpy_async(shared + i, elements + i * kSize, kVectorBytes);
  }
};

template <typename T>
__global__ void __launch_bounds__(kThreads) pool_small_planes(Arguments<T> arguments) {
  using Small = SmallPlanes<T>;
  using A = Accumulate<T>;
  using Reduce = cub::WarpReduce<A, Small::kGroup>;
  __shared__ typename Reduce::TempStorage storage[2][Small::kPlanes];
  __shared__ typename Small::Pixels shared[2][Small::kPlanes * kFewestPixels / Small::kSize];
  const int pixels = static_cast<int>(arguments.maps_a.pixels());
  const int64_t first = static_cast<int64_t>(blockIdx.x) * Small::kPlanes;
  const int planes = static_cast<int>(min(arguments.latents() - first, int64_t{Small::kPlanes}));
  Small::fetch(arguments.a + first * pixels, planes * pixels, shared[0]);
  Small::fetch(arguments.b + first * pixels, planes * pixels, shared[1]);
  __pipeline_commit();
  __pipeline_wait_prior(0);
  __syncthreads();

  const int plane = threadIdx.x / Small::kGroup, lane = threadIdx.x % Small::kGroup;
  A error = 0;
  if (plane < planes) {
    const T* a = reinterpret_cast<const T*>(shared[0]) + plane * pixels;
    const T* b = reinterpret_cast<const T*>(shared[1]) + plane * pixels;
    A sum_a = 0, sum_b = 0;
    for (int i = lane; i < pixels; i += Small::kGroup) {
      sum_a += static_cast<A>(a[i]);
      sum_b += static_cast<A>(b[i]);
    }
    sum_a = Reduce(storage[0][plane]).Sum(sum_a);
    sum_b = Reduce(storage[1][plane]).Sum(sum_b);
    // Latents follow each other as if all were of one image.
    if (lane == 0) error = arguments.finish(0, 0, first + plane, sum_a, sum_b);
  }
  finish_block(arguments, error);
}

// Neighbours in memory are channels: a warp to kWarp * kSize of them, the warps of a block to pixels.
template <int kSize, typename T>
__global__ void __launch_bounds__(kThreads) pool_pixels(Arguments<T> arguments) {
  using A = Accumulate<T>;
  constexpr int kWarps = kThreads / kWarp, kTile = kWarp * kSize;
  __shared__ A sums[2][kWarps][kTile];
  const Maps &maps_a = arguments.maps_a, &maps_b = arguments.maps_b;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int64_t tiles = (maps_a.channels + kTile - 1) / kTile;
  const int64_t tile = blockIdx.x % tiles, split = blockIdx.x / tiles % arguments.splits;
  const int64_t image = blockIdx.x / tiles / arguments.splits;
  const int64_t channel = tile * kTile + lane * kSize;
  A sums_a[kSize] = {}, sums_b[kSize] = {};
  if (channel < maps_a.channels) {
    const T* a = arguments.a + image * maps_a.image_stride + channel;
    const T* b = arguments.b + image * maps_b.image_stride + channel;
    add_pixels<kSize>(arguments, a, b, split, warp, kWarps, sums_a, sums_b);
  }
#pragma unroll
  for (int i = 0; i < kSize; ++i) {
    sums[0][warp][i * kWarp + lane] = sums_a[i];
    sums[1][warp][i * kWarp + lane] = sums_b[i];
  }
  __syncthreads();
  A error = 0;
  for (int i = threadIdx.x; i < kTile; i += kThreads) {
    const int64_t own = tile * kTile + i % kWarp * kSize + i / kWarp;
    if (own >= maps_a.channels) continue;
    A sum_a = 0, sum_b = 0;
#pragma unroll
    for (int j = 0; j < kWarps; ++j) {
      sum_a += sums[0][j][i];
      sum_b += sums[1][j][i];
    }
    error += arguments.finish(image, split, own, sum_a, sum_b);
  }
  finish_block(arguments, error);
}

// Whether a vector never crosses an edge and always lies on a multiple of its size.
template <int kSize, typename T>
bool vectors_fit(const Maps& maps, const T* data) {
  const bool along_channels = maps.channels_last();
  const int64_t length = along_channels ? maps.channels : maps.run_length;
  const int64_t step = along_channels ? maps.pixel_stride : maps.channel_stride;
  const bool dense = along_channels || maps.pixel_stride == 1;
  return dense && length % kSize == 0 && step % kSize == 0 && maps.image_stride % kSize == 0 &&
         (maps.runs == 1 || maps.run_stride % kSize == 0) &&
         reinterpret_cast<uintptr_t>(data) % (kSize * sizeof(T)) == 0;
}

// As many threads to a plane as leave some loads to each.
template <typename Launch>
void with_group(int64_t vectors, Launch launch) {
  const int64_t threads = divide_up(vectors, kUnroll);
  if (threads <= 4) return launch(std::integral_constant<int, 4>());
  if (threads <= 8) return launch(std::integral_constant<int, 8>());
  if (threads <= 16) return launch(std::integral_constant<int, 16>());
  launch(std::integral_constant<int, kWarp>());
}

// Takes sums over pixels, times `scale`, into pooled, [2N,C] or [2,N,C].
template <typename T>
class Pool {
 public:
  using A = Accumulate<T>;

  Pool(const at::Tensor& a, const at::Tensor& b, double scale, const at::Tensor& pooled)
      : arguments_{maps_of(a), maps_of(b), a.const_data_ptr<T>(), b.const_data_ptr<T>()},
        scale_(scale),
        pooled_(pooled) {}

  // Returns the squared errors of each block.
  at::Tensor run() {
    constexpr int kSize = kVectorBytes / sizeof(T);
    const Maps &a = arguments_.maps_a, &b = arguments_.maps_b;
    const bool vectors = a.channels_last() == b.channels_last() &&
                         vectors_fit<kSize>(a, arguments_.a) && vectors_fit<kSize>(b, arguments_.b);
    if (a.channels_last() && b.channels_last()) {
      vectors ? run_pixels<kSize>() : run_pixels<1>();
    } else if (vectors) {
      run_planes<kSize>();
    } else if (SmallPlanes<T>::fit(a, arguments_.a) && SmallPlanes<T>::fit(b, arguments_.b)) {
      launch(divide_up(a.images * a.channels, SmallPlanes<T>::kPlanes), pool_small_planes<T>);
    } else {
      run_planes<1>();
    }
    return errors_;
  }

 private:
  template <int kSize>
  void run_pixels() {
    const Maps& maps = arguments_.maps_a;
    const int64_t tiles = maps.images * divide_up(maps.channels, kWarp * kSize);
    split(tiles * kThreads, 1);
    launch(tiles * arguments_.splits, pool_pixels<kSize, T>);
  }

  template <int kSize>
  void run_planes() {
    const Maps& maps = arguments_.maps_a;
    const int64_t latents = maps.images * maps.channels;
    with_group(std::min(maps.pixels(), kMostPixels) / kSize, [&](auto group) {
      constexpr int kGroup = decltype(group)::value;
      split(latents * kGroup, kSize);
      launch(divide_up(latents * arguments_.splits, kThreads / kGroup),
             pool_planes<kSize, kGroup, T>);
    });
  }

  // As many splits, of a multiple of `unit` pixels, as keep a GPU busy and sums short.
  void split(int64_t threads, int64_t unit) {
    const int64_t pixels = arguments_.maps_a.pixels();
    const int64_t wanted =
        std::max(divide_up(pixels, kMostPixels),
                 std::min(divide_up(kWantedThreads, threads), divide_up(pixels, kFewestPixels)));
    arguments_.split_pixels = divide_up(divide_up(pixels, wanted), unit) * unit;
    arguments_.splits = divide_up(pixels, arguments_.split_pixels);
  }

  void launch(int64_t blocks, void (*kernel)(Arguments<T>)) {
    TORCH_CHECK_VALUE(blocks <= INT32_MAX, "features: too many for one launch");
    const auto stream = c10::cuda::getCurrentCUDAStream();
    const int64_t images = arguments_.maps_a.images, channels = arguments_.maps_a.channels;
    const int64_t splits = arguments_.splits;
    if (splits > 1) {
      const at::Tensor sums = at::empty({2 * images, splits, 1, channels}, pooled_.options());
      arguments_.sums = sums.mutable_data_ptr<A>();
      kernel<<<blocks, kThreads, 0, stream>>>(arguments_);
      C10_CUDA_KERNEL_LAUNCH_CHECK();
      const at::Tensor maps = sums.permute({0, 3, 1, 2});
      const at::Tensor a = maps.narrow(0, 0, images), b = maps.narrow(0, images, images);
      errors_ = Pool<A>(a, b, scale_, pooled_).run();
    } else {
      errors_ = at::empty({blocks}, pooled_.options());
      arguments_.sums = pooled_.mutable_data_ptr<A>();
      arguments_.errors = errors_.mutable_data_ptr<A>();
      arguments_.scale = scale_;
      kernel<<<blocks, kThreads, 0, stream>>>(arguments_);
      C10_CUDA_KERNEL_LAUNCH_CHECK();
    }
  }

  Arguments<T> arguments_;
  const double scale_;
  const at::Tensor pooled_;
  at::Tensor errors_;
};

}  // namespace
}  // namespace gpe::pooling
