// Global average pooling on the CPU: what gap_mse and flip_difference begin with.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/macros/Macros.h>

#include <algorithm>
#include <cstring>

#include "../pooling.h"
#include "cpu.h"

namespace gpe::pooling {
namespace {

// Every sum has an order of its own, whatever part of the work a thread gets: blocks of pixels are
// added up in Accumulate<T>, and the sums of blocks in double.
constexpr int64_t kBlock = 512;       // pixels that are neighbours in memory
constexpr int64_t kPixelBlock = 256;  // pixels whose channels are
constexpr int64_t kTile = 2048;       // channels whose sums stay close to the processor

// Left to itself, g++ adds one number after the other, since the order is not its to choose.
template <typename A, int kSize>
struct Lanes {
  typedef A Vector __attribute__((vector_size(kSize * sizeof(A))));

  Vector sums = {};

  C10_ALWAYS_INLINE void add(const A* addends) {
    Vector next;
    std::memcpy(&next, addends, sizeof(next));
    sums += next;
  }

  C10_ALWAYS_INLINE void store(A* to) const { std::memcpy(to, &sums, sizeof(sums)); }
};

template <typename A>
C10_ALWAYS_INLINE A sum_of_block(const A* addends, int64_t count) {
  Lanes<A, 8> even, odd;
  for (; count >= 16; addends += 16, count -= 16) {
    even.add(addends);
    odd.add(addends + 8);
  }
  if (count >= 8) {
    even.add(addends);
    addends += 8;
    count -= 8;
  }
  even.sums += odd.sums;
  Lanes<A, 4> half;
  std::memcpy(&half.sums, &even.sums, sizeof(half.sums));
  half.add(reinterpret_cast<const A*>(&even.sums) + 4);
  if (count >= 4) {
    half.add(addends);
    addends += 4;
    count -= 4;
  }
  A sum = (half.sums[0] + half.sums[2]) + (half.sums[1] + half.sums[3]);
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

// Adds `size` pixels of `count` channels, which are neighbours in memory, to the sums.
template <typename T>
C10_ALWAYS_INLINE void add_pixels(const T* pixels, int64_t size, int64_t stride, int64_t count,
                                  Accumulate<T>* __restrict sums) {
  using A = Accumulate<T>;
  for (; size > 0; --size, pixels += stride) {
    int64_t c = 0;
    if constexpr (std::is_same_v<T, A>) {
      for (; c + 32 <= count; c += 32) {
        Lanes<A, 8> lanes[4];
        for (int i = 0; i < 4; ++i) {
          lanes[i].add(sums + c + 8 * i);
          lanes[i].add(pixels + c + 8 * i);
        }
        for (int i = 0; i < 4; ++i) lanes[i].store(sums + c + 8 * i);
      }
    }
    for (; c < count; ++c) sums[c] += A(pixels[c]);
  }
}

// The same as pool_planes where channels are neighbours: side by side.
template <typename T>
GPE_MULTIVERSION void pool_pixels(const T* image, const Maps& maps, int64_t count,
                                  Accumulate<T>* __restrict means) {
  using A = Accumulate<T>;
  const double scale = 1.0 / maps.pixels();
  const int64_t stride = maps.pixel_stride;
  for (int64_t first = 0; first < count; first += kTile) {
    const int64_t channels = std::min(kTile, count - first);
    A block[kTile];
    double sums[kTile];
    std::fill(sums, sums + channels, 0.0);
    for (int64_t run = 0; run < maps.runs; ++run) {
      const T* pixels = image + first + run * maps.run_stride;
      for (int64_t i = 0; i < maps.run_length; i += kPixelBlock) {
        const int64_t size = std::min(kPixelBlock, maps.run_length - i);
        std::fill(block, block + channels, A(0));
        add_pixels(pixels + i * stride, size, stride, channels, block);
        for (int64_t c = 0; c < channels; ++c) sums[c] += block[c];
      }
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
