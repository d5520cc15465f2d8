// Global average pooling on the CPU: what gap_mse and flip_difference begin with.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/macros/Macros.h>

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "../pooling.h"
#include "cpu.h"

namespace gpe::pooling {
namespace {

// Every sum has an order of its own, whatever part of the work a thread gets: eight pixels are added
// up in pairs in Accumulate<T>, and those sums in double. One after the other in float, equal numbers
// would be off by the same rounding each time.
constexpr int64_t kBlock = 512;  // pixels that are widened at once
constexpr int64_t kInPairs = 8;  // pixels
constexpr int64_t kTile = 2048;  // channels whose sums stay close to the processor
constexpr int64_t kLanes = 8;

// Left to itself, g++ adds one number after the other, since the order is not its to choose.
template <typename A, int64_t kSize = kLanes>
using Lanes __attribute__((vector_size(kSize * sizeof(A)))) = A;

// Wide vectors as results have an ABI of their own, which does not matter to what is always inlined.
#pragma GCC diagnostic ignored "-Wpsabi"

template <typename Vector, typename A>
C10_ALWAYS_INLINE Vector lanes_at(const A* numbers) {
  Vector lanes;
  std::memcpy(&lanes, numbers, sizeof(lanes));
  return lanes;
}

// Of kCount numbers or vectors, a power of two, `step` apart.
template <int64_t kCount, typename Sum, typename T>
C10_ALWAYS_INLINE Sum sum_in_pairs(const T* from, int64_t step) {
  if constexpr (kCount > 1) {
    constexpr int64_t kHalf = kCount / 2;
    return sum_in_pairs<kHalf, Sum>(from, step) + sum_in_pairs<kHalf, Sum>(from + kHalf * step, step);
  } else if constexpr (std::is_arithmetic_v<Sum>) {
    return Sum(*from);
  } else {
    return lanes_at<Sum>(from);
  }
}

template <int64_t kVectors, typename A>
C10_ALWAYS_INLINE void add_vectors(const A*& addends, int64_t& count, Lanes<double>& lanes) {
  lanes += __builtin_convertvector((sum_in_pairs<kVectors, Lanes<A>>(addends, kLanes)),
                                   Lanes<double>);
  addends += kVectors * kLanes;
  count -= kVectors * kLanes;
}

template <typename A>
C10_ALWAYS_INLINE double sum_of_block(const A* addends, int64_t count) {
  Lanes<double> lanes = {};
  while (count >= 8 * kLanes) add_vectors<8>(addends, count, lanes);
  if (count >= 4 * kLanes) add_vectors<4>(addends, count, lanes);
  if (count >= 2 * kLanes) add_vectors<2>(addends, count, lanes);
  if (count >= kLanes) add_vectors<1>(addends, count, lanes);
  const double* each = reinterpret_cast<const double*>(&lanes);
  const auto half = lanes_at<Lanes<double, 4>>(each) + lanes_at<Lanes<double, 4>>(each + 4);
  double sum = (half[0] + half[2]) + (half[1] + half[3]);
  for (; count > 0; --count) sum += *addends++;
  return sum;
}

template <typename T>
C10_ALWAYS_INLINE double sum_of_run(const T* pixels, int64_t count, int64_t stride) {
  using A = Accumulate<T>;
  double sum = 0;
  for (; count > 0; pixels += kBlock * stride, count -= kBlock) {
    const int64_t size = std::min(count, kBlock);
    if constexpr (std::is_same_v<T, A>) {
      if (stride == 1) {
        sum += sum_of_block(pixels, size);
        continue;
      }
    }
    A block[kBlock];
    if (stride == 1) {
      for (int64_t i = 0; i < size; ++i) block[i] = A(pixels[i]);
    } else {
      for (int64_t i = 0; i < size; ++i) block[i] = A(pixels[i * stride]);
    }
    sum += sum_of_block(block, size);
  }
  return sum;
}

// Means of `count` channels of an image, one after the other.
template <typename T>
GPE_MULTIVERSION void pool_planes(const T* image, const Maps& maps, int64_t count,
                                  Accumulate<T>* __restrict means) {
  const double scale = 1.0 / maps.pixels();
  for (int64_t channel = 0; channel < count; ++channel) {
    const T* pixels = image + channel * maps.channel_stride;
    double sum = 0;
    for (int64_t run = 0; run < maps.runs; ++run)
      sum += sum_of_run(pixels + run * maps.run_stride, maps.run_length, maps.pixel_stride);
    means[channel] = sum * scale;
  }
}

// Adds kPixels pixels of `count` channels, which are neighbours in memory, to the sums.
template <int64_t kPixels, typename T>
C10_ALWAYS_INLINE void add_pixels(const T* pixels, int64_t stride, int64_t count,
                                  double* __restrict sums) {
  using A = Accumulate<T>;
  int64_t c = 0;
  if constexpr (std::is_same_v<T, A>) {
    for (; c + kLanes <= count; c += kLanes) {
      const auto added = __builtin_convertvector(
          (sum_in_pairs<kPixels, Lanes<A>>(pixels + c, stride)), Lanes<double>);
      const auto sum = lanes_at<Lanes<double>>(sums + c) + added;
      std::memcpy(sums + c, &sum, sizeof(sum));
    }
  }
  for (; c < count; ++c) sums[c] += sum_in_pairs<kPixels, A>(pixels + c, stride);
}

// The same as pool_planes where channels are neighbours: side by side.
template <typename T>
GPE_MULTIVERSION void pool_pixels(const T* image, const Maps& maps, int64_t count,
                                  Accumulate<T>* __restrict means) {
  const double scale = 1.0 / maps.pixels();
  const int64_t stride = maps.pixel_stride;
  for (int64_t first = 0; first < count; first += kTile) {
    const int64_t channels = std::min(kTile, count - first);
    double sums[kTile];
    std::fill(sums, sums + channels, 0.0);
    for (int64_t run = 0; run < maps.runs; ++run) {
      const T* pixels = image + first + run * maps.run_stride;
      int64_t i = 0;
      for (; i + kInPairs <= maps.run_length; i += kInPairs)
        add_pixels<kInPairs>(pixels + i * stride, stride, channels, sums);
      for (; i < maps.run_length; ++i)
        add_pixels<1>(pixels + i * stride, stride, channels, sums);
    }
    for (int64_t c = 0; c < channels; ++c) means[first + c] = sums[c] * scale;
  }
}

// Latents [begin, end) of an image.
template <typename T>
class Pool {
 public:
  explicit Pool(const at::Tensor& features)
      : maps_(maps_of(features)), features_(features.const_data_ptr<T>()) {}

  const Maps& maps() const { return maps_; }

  void operator()(int64_t begin, int64_t end, Accumulate<T>* pooled) const {
    const int64_t channels = maps_.channels;
    for (int64_t next; begin < end; begin = next) {
      const int64_t image = begin / channels, first = begin % channels;
      next = std::min(end, (image + 1) * channels);
      const T* from = features_ + image * maps_.image_stride + first * maps_.channel_stride;
      if (maps_.channels_last()) {
        pool_pixels(from, maps_, next - begin, pooled + begin);
      } else {
        pool_planes(from, maps_, next - begin, pooled + begin);
      }
    }
  }

 private:
  const Maps maps_;
  const T* const features_;
};

}  // namespace
}  // namespace gpe::pooling
