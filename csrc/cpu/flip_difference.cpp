#include "../flip_difference.h"

#include <ATen/Parallel.h>
#include <torch/library.h>

#include <cmath>

#include "pooling.h"

namespace gpe::flip_difference {
namespace {

using pooling::Accumulate;
using pooling::Pool;

// The differences of channels [begin, end), image by image: so the sums do not depend on how images
// are cut into batches.
template <typename A>
GPE_MULTIVERSION void subtract(const A* __restrict pooled, const A* __restrict mirrored,
                               int64_t images, int64_t channels, int64_t begin, int64_t end,
                               A* __restrict difference, double* __restrict total,
                               double* __restrict absolute_total) {
  for (int64_t image = 0; image < images; ++image) {
    const int64_t row = image * channels;
    for (int64_t c = begin; c < end; ++c) {
      const A d = pooled[row + c] - mirrored[row + c];
      difference[row + c] = d;
      total[c] += d;
      absolute_total[c] += std::abs(d);
    }
  }
}

void run(const Call& call) {
  pooling::with_dtype(call.features, [&](auto type) {
    using T = decltype(type);
    using A = Accumulate<T>;
    const Pool<T> pool(call.features), pool_mirrored(call.mirrored);
    const int64_t images = call.features.size(0), channels = call.features.size(1);
    const int64_t count = images * channels;
    A* z = call.pooled.mutable_data_ptr<A>();
    A* z_mirrored = z + count;
    const auto grain = grain_size(pool.maps().pixels());
    // Threads share either map: one of them may be in the cache, and the other not.
    at::parallel_for(0, count, grain, [&](int64_t begin, int64_t end) {
      pool(begin, end, z);
      pool_mirrored(begin, end, z_mirrored);
    });
    A* difference = call.difference.mutable_data_ptr<A>();
    double* total = call.total.mutable_data_ptr<double>();
    double* absolute_total = call.absolute_total.mutable_data_ptr<double>();
    at::parallel_for(0, channels, grain_size(images), [&](int64_t begin, int64_t end) {
      subtract(z, z_mirrored, images, channels, begin, end, difference, total, absolute_total);
    });
  });
}

}  // namespace

TORCH_LIBRARY_IMPL(gpe, CPU, library) { library.impl("flip_difference", &flip_difference<run>); }

}  // namespace gpe::flip_difference
