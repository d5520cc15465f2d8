#include "../gap_mse.h"

#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "pooling.h"

namespace gpe::gap_mse {
namespace {

using pooling::Accumulate;
using pooling::kBlock;
using pooling::Pool;

constexpr int64_t kPairs = 1 << 17;  // of latents: fewer are not worth a second thread

template <typename A>
GPE_MULTIVERSION double sum_of_squared_errors(const A* a, const A* b, int64_t count) {
  double sum = 0;
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t size = std::min(kBlock, count - begin);
    A squares[kBlock];
    for (int64_t i = 0; i < size; ++i) {
      const A error = a[begin + i] - b[begin + i];
      squares[i] = error * error;
    }
    sum += pooling::sum_of_block(squares, size);
  }
  return sum;
}

template <typename A>
double mean_squared_error(const A* a, const A* b, int64_t count) {
  std::vector<double> errors((count + kPairs - 1) / kPairs);
  at::parallel_for(0, errors.size(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      errors[i] = sum_of_squared_errors(a + i * kPairs, b + i * kPairs,
                                        std::min(kPairs, count - i * kPairs));
  });
  double sum = 0;
  for (const double error : errors) sum += error;
  return sum / count;
}

void run(const Call& call) {
  pooling::with_dtype(call.a, [&](auto type) {
    using T = decltype(type);
    using A = Accumulate<T>;
    const Pool<T> pool_a(call.a), pool_b(call.b);
    const int64_t count = call.count();
    A* z_a = call.pooled.mutable_data_ptr<A>();
    A* z_b = z_a + count;
    const auto grain = grain_size(pool_a.maps().pixels());
    // Threads share either map: one of them may be in the cache, and the other not.
    at::parallel_for(0, count, grain, [&](int64_t begin, int64_t end) {
      pool_a(begin, end, z_a);
      pool_b(begin, end, z_b);
    });
    *call.mse.mutable_data_ptr<A>() = mean_squared_error(z_a, z_b, count);
  });
}

}  // namespace

TORCH_LIBRARY_IMPL(gpe, CPU, library) { library.impl("gap_mse", &gap_mse<run>); }

}  // namespace gpe::gap_mse
