// Global average pooling on the CPU: what gap_mse and flip_difference begin with.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/macros/Macros.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "../pooling.h"
#include "cpu.h"

namespace gpe::pooling {
namespace {

// Every sum has an order of its own, whatever part of the work a thread gets: blocks are added up in
// Accumulate<T>, in lanes that fit a vector, and the sums of blocks in double.
constexpr int64_t kLanes = 16;
constexpr int64_t kPixels = 8;         // at once, where neighbours are channels
constexpr int64_t kShortPixel = 2048;  // bytes
constexpr int64_t kAddends = 32;       // of a lane
constexpr int64_t kBlock = kLanes * kAddends, kPixelBlock = kPixels * kAddends;

// Lanes are added up by halves.
template <int64_t kHalf = kLanes / 2, typename A>
C10_ALWAYS_INLINE A sum_of_lanes(A* lanes) {
  for (int64_t i = 0; i < kHalf; ++i) lanes[i] += lanes[i + kHalf];
  if constexpr (kHalf > 1) return sum_of_lanes<kHalf / 2>(lanes);
  return lanes[0];
}

// Adds fewer than 2 * kStep addends, by halves as well: loops of a length that the compiler knows.
template <int64_t kStep = kLanes / 2, typename A>
C10_ALWAYS_INLINE void add_rest(A* lanes, const A* addends, int64_t count) {
  if (count >= kStep) {
    for (int64_t i = 0; i < kStep; ++i) lanes[i] += addends[i];
    addends += kStep;
    count -= kStep;
  }
  if constexpr (kStep > 1) add_rest<kStep / 2>(lanes, addends, count);
}

template <typename A>
C10_ALWAYS_INLINE A sum_of_block(const A* addends, int64_t count) {
  // Of plain arrays g++ makes something much slower.
  typedef A Vector __attribute__((vector_size(kLanes * sizeof(A))));
  Vector sums = {};
  for (; count >= kLanes; addends += kLanes, count -= kLanes) {
    Vector next;
    std::memcpy(&next, addends, sizeof(next));
    sums += next;
  }
  A lanes[kLanes];
  std::memcpy(lanes, &sums, sizeof(lanes));
  add_rest(lanes, addends, count);
  return sum_of_lanes(lanes);
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

template <typename T, typename A>
C10_ALWAYS_INLINE void add_lanes(A* sums, const T* pixels) {
  if constexpr (std::is_same_v<T, A>) {
    typedef A Vector __attribute__((vector_size(kLanes * sizeof(A))));
    Vector sum, pixel;
    std::memcpy(&sum, sums, sizeof(sum));
    std::memcpy(&pixel, pixels, sizeof(pixel));
    sum += pixel;
    std::memcpy(sums, &sum, sizeof(sum));
  } else {
    for (int64_t i = 0; i < kLanes; ++i) sums[i] += A(pixels[i]);
  }
}

// Writes the sums of `size` pixels of `count` channels, which are neighbours in memory. Of pixels
// with many channels some are added at once, so that the sums are read and written less often.
// Pixels with few are read one by one, as they lie, and fetched ahead: no stretch of memory would
// be long enough for the processor to do it by itself.
template <typename T>
C10_ALWAYS_INLINE void sum_pixels(const T* pixels, int64_t size, int64_t stride, int64_t count,
                                  Accumulate<T>* __restrict sums) {
  using A = Accumulate<T>;
  std::fill(sums, sums + count, A(0));
  if (stride * int64_t(sizeof(T)) > kShortPixel) {
    for (; size >= kPixels; size -= kPixels, pixels += kPixels * stride) {
      for (int64_t c = 0; c < count; ++c) {
        const T* p = pixels + c;
        sums[c] += ((A(p[0]) + A(p[stride])) + (A(p[2 * stride]) + A(p[3 * stride]))) +
                   ((A(p[4 * stride]) + A(p[5 * stride])) + (A(p[6 * stride]) + A(p[7 * stride])));
      }
    }
  }
  for (; size > 0; --size, pixels += stride) {
    int64_t c = 0;
    for (; c + kLanes <= count; c += kLanes) {
      __builtin_prefetch(pixels + c + 2 * stride);
      add_lanes(sums + c, pixels + c);
    }
    for (; c < count; ++c) sums[c] += A(pixels[c]);
  }
}

// The same as pool_planes where channels are neighbours: side by side, some pixels at once. `sums` is
// memory for `count` numbers, for more than one block of pixels.
template <typename T>
GPE_MULTIVERSION void pool_pixels(const T* image, const Maps& maps, int64_t count,
                                  Accumulate<T>* __restrict means, double* __restrict sums) {
  const double scale = 1.0 / maps.pixels();
  const int64_t stride = maps.pixel_stride;
  if (maps.pixels() <= kPixelBlock && maps.runs == 1) {
    sum_pixels(image, maps.run_length, stride, count, means);
    for (int64_t c = 0; c < count; ++c) means[c] *= scale;
    return;
  }
  std::fill(sums, sums + count, 0.0);
  for (int64_t run = 0; run < maps.runs; ++run) {
    const T* pixels = image + run * maps.run_stride;
    for (int64_t i = 0; i < maps.run_length; i += kPixelBlock) {
      const int64_t size = std::min(kPixelBlock, maps.run_length - i);
      sum_pixels(pixels + i * stride, size, stride, count, means);
      for (int64_t c = 0; c < count; ++c) sums[c] += means[c];
    }
  }
  for (int64_t c = 0; c < count; ++c) means[c] = sums[c] * scale;
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
    std::vector<double> sums(maps_.channels_last() ? channels : 0);
    for (int64_t next; begin < end; begin = next) {
      const int64_t image = begin / channels, first = begin % channels;
      next = std::min(end, (image + 1) * channels);
      const T* from = features_ + image * maps_.image_stride + first * maps_.channel_stride;
      if (maps_.channels_last()) {
        pool_pixels(from, maps_, next - begin, pooled + begin, sums.data());
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
