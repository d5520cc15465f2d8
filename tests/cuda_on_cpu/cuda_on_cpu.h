// CUDA's device side for g++, ahead of every kernel that emulator.py has translated. Each thread of
// a block is a fiber; barriers and warp collectives hold fibers until all have arrived. What CUDA
// leaves undefined is an error here, which names the block, the thread and the line.
#pragma once

#include <c10/core/Device.h>
#include <c10/macros/Macros.h>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <source_location>
#include <string>
#include <tuple>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline

namespace cuda_on_cpu {

using Site = std::source_location;

[[noreturn]] void fail(const std::string& what, const Site& site = Site::current());

template <std::integral T>
unsigned checked_size(T value) {
  if (value < 0 || static_cast<uint64_t>(value) > UINT32_MAX)
    fail("a dimension of a launch does not fit 32 bits");
  return static_cast<unsigned>(value);
}

}  // namespace cuda_on_cpu

struct uint3 {
  unsigned x, y, z;
};

struct dim3 {
  unsigned x = 1, y = 1, z = 1;

  dim3() = default;
  template <std::integral X, std::integral Y = int, std::integral Z = int>
  dim3(X x, Y y = 1, Z z = 1)
      : x(cuda_on_cpu::checked_size(x)),
        y(cuda_on_cpu::checked_size(y)),
        z(cuda_on_cpu::checked_size(z)) {}
};

using cudaStream_t = void*;

namespace cuda_on_cpu {

struct Block {
  uint3 index;
  dim3 size, grid;
};

extern Block block;
extern uint3 thread;  // of the fiber that runs now

int lane();
int thread_number();
void barrier(const Site& site);
enum class Kind { kBarrier, kSyncWarp, kMatchAny, kBallot, kShuffle };
uint64_t collective(Kind kind, unsigned mask, uint64_t value, int source, const Site& site);
void* shared_memory(const void* key, size_t size, size_t alignment);
void* dynamic_shared(size_t alignment);
void check_launch_bounds(unsigned threads);
void copy_later(void* to, const void* from, size_t bytes, const Site& site);
void copy_now();
void maybe_yield();  // where atomics meet, other threads may go first

template <typename T>
T& shared(const void* key) {
  return *static_cast<T*>(shared_memory(key, sizeof(T), alignof(T)));
}

struct Config {
  dim3 grid, block;
  size_t shared;

  Config(dim3 grid, dim3 block, size_t shared = 0, cudaStream_t = nullptr)
      : grid(grid), block(block), shared(shared) {}
};

void run_grid(const Config& config, const char* kernel, size_t bytes_of_arguments,
              const Site& site, void (*body)(void*), void* context);

template <typename Body, typename... Arguments>
void launch(const Config& config, const char* kernel, const Site& site, Body body,
            const Arguments&... arguments) {
  std::tuple<std::decay_t<Arguments>...> copies(arguments...);
  auto thread = [&] { std::apply(body, copies); };
  size_t bytes = 0;
  ((bytes = (bytes + alignof(Arguments) - 1) / alignof(Arguments) * alignof(Arguments) +
            sizeof(Arguments)),
   ...);
  const auto call = [](void* context) { (*static_cast<decltype(thread)*>(context))(); };
  run_grid(config, kernel, bytes, site, call, &thread);
}

template <typename T>
uint64_t to_bits(T value) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return bits;
}

template <typename T>
T from_bits(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

// What a result holds where CUDA leaves it undefined: NaN.
template <typename T>
T undefined_value() {
  return from_bits<T>(~uint64_t{0});
}

template <typename T>
T shuffle(unsigned mask, T value, int source, const Site& site) {
  return from_bits<T>(collective(Kind::kShuffle, mask, to_bits(value), source, site));
}

}  // namespace cuda_on_cpu

#define threadIdx (::cuda_on_cpu::thread)
#define blockIdx (::cuda_on_cpu::block.index)
#define blockDim (::cuda_on_cpu::block.size)
#define gridDim (::cuda_on_cpu::block.grid)

#undef CUDA_KERNEL_ASSERT
#define CUDA_KERNEL_ASSERT(condition) \
  (static_cast<bool>(condition) ? void() : ::cuda_on_cpu::fail("device-side assert: " #condition))

inline void __syncthreads(cuda_on_cpu::Site site = cuda_on_cpu::Site::current()) {
  cuda_on_cpu::barrier(site);
}

inline void __syncwarp(unsigned mask = ~0u, cuda_on_cpu::Site site = cuda_on_cpu::Site::current()) {
  cuda_on_cpu::collective(cuda_on_cpu::Kind::kSyncWarp, mask, 0, 0, site);
}

// Asynchronous copies arrive when their thread waits, no sooner.
inline void __pipeline_memcpy_async(void* shared, const void* global, size_t bytes,
                                    cuda_on_cpu::Site site = cuda_on_cpu::Site::current()) {
  cuda_on_cpu::copy_later(shared, global, bytes, site);
}

inline void __pipeline_commit() {}
inline void __pipeline_wait_prior(int) { cuda_on_cpu::copy_now(); }

template <typename T>
unsigned __match_any_sync(unsigned mask, T value,
                          cuda_on_cpu::Site site = cuda_on_cpu::Site::current()) {
  using namespace cuda_on_cpu;
  return static_cast<unsigned>(collective(Kind::kMatchAny, mask, to_bits(value), 0, site));
}

inline unsigned __ballot_sync(unsigned mask, bool predicate,
                              cuda_on_cpu::Site site = cuda_on_cpu::Site::current()) {
  using namespace cuda_on_cpu;
  return static_cast<unsigned>(collective(Kind::kBallot, mask, predicate, 0, site));
}

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32,
              cuda_on_cpu::Site site = cuda_on_cpu::Site::current()) {
  const int first = cuda_on_cpu::lane() / width * width;
  return cuda_on_cpu::shuffle(mask, value, first + (source & (width - 1)), site);
}

template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                   cuda_on_cpu::Site site = cuda_on_cpu::Site::current()) {
  const int lane = cuda_on_cpu::lane(), source = lane + static_cast<int>(delta);
  return cuda_on_cpu::shuffle(mask, value, source / width == lane / width ? source : lane, site);
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32,
                  cuda_on_cpu::Site site = cuda_on_cpu::Site::current()) {
  const int lane = cuda_on_cpu::lane(), source = lane ^ lanes;
  return cuda_on_cpu::shuffle(mask, value, source / width > lane / width ? lane : source, site);
}

inline int __ffs(int value) { return __builtin_ffs(value); }
inline int __popc(unsigned value) { return __builtin_popcount(value); }

// Fibers switch nowhere within an atomic. The types are those that CUDA has, but for floats, whose
// order would matter.
#define CUDA_ON_CPU_ATOMIC_ADD(T)        \
  inline T atomicAdd(T* address, T value) { \
    cuda_on_cpu::maybe_yield();          \
    const T before = *address;           \
    *address = before + value;           \
    return before;                       \
  }
CUDA_ON_CPU_ATOMIC_ADD(int)
CUDA_ON_CPU_ATOMIC_ADD(unsigned)
CUDA_ON_CPU_ATOMIC_ADD(unsigned long long)
#undef CUDA_ON_CPU_ATOMIC_ADD

using std::isfinite;

template <typename A, typename B>
constexpr std::common_type_t<A, B> min(A a, B b) {
  return b < a ? b : a;
}

template <typename A, typename B>
constexpr std::common_type_t<A, B> max(A a, B b) {
  return a < b ? b : a;
}

// Streams and guards do nothing: a launch runs at once, and throws by itself.
#define C10_CUDA_KERNEL_LAUNCH_CHECK() void()

namespace c10::cuda {

struct CUDAGuard {
  explicit CUDAGuard(c10::Device) {}
  ~CUDAGuard() {}
};

inline cudaStream_t getCurrentCUDAStream() { return nullptr; }

}  // namespace c10::cuda

// Sums in the order of CUB, so that a GPU gives the same bits.
namespace cub {

template <typename T, int kLanes = 32>
class WarpReduce {
  static_assert(kLanes <= 32 && (kLanes & (kLanes - 1)) == 0);

 public:
  struct TempStorage {};

  explicit WarpReduce(TempStorage&) {}

  // Valid in the first lane.
  T Sum(T value, cuda_on_cpu::Site site = cuda_on_cpu::Site::current()) {
    const T sum = sum_of_lanes(value, site);
    return cuda_on_cpu::lane() % kLanes == 0 ? sum : cuda_on_cpu::undefined_value<T>();
  }

  static T sum_of_lanes(T value, cuda_on_cpu::Site site) {
    const unsigned lanes = ~0u >> (32 - kLanes);
    const unsigned mask = lanes << (cuda_on_cpu::lane() / kLanes * kLanes);
    for (int offset = 1; offset < kLanes; offset *= 2) {
      const T other = __shfl_down_sync(mask, value, offset, kLanes, site);
      if (cuda_on_cpu::lane() % kLanes + offset < kLanes) value = value + other;
    }
    return value;
  }
};

template <typename T, int kThreads>
class BlockReduce {
  static_assert(kThreads % 32 == 0);

 public:
  struct TempStorage {
    T sums[kThreads / 32];
  };

  explicit BlockReduce(TempStorage& storage) : storage_(storage) {}

  // Valid in the first thread.
  T Sum(T value, cuda_on_cpu::Site site = cuda_on_cpu::Site::current()) {
    if (blockDim.x * blockDim.y * blockDim.z != kThreads)
      cuda_on_cpu::fail("BlockReduce is for blocks of another size", site);
    T sum = WarpReduce<T>::sum_of_lanes(value, site);
    const int thread = cuda_on_cpu::thread_number();
    if (thread % 32 == 0) storage_.sums[thread / 32] = sum;
    cuda_on_cpu::barrier(site);
    if (thread != 0) return cuda_on_cpu::undefined_value<T>();
    for (int warp = 1; warp < kThreads / 32; ++warp) sum = sum + storage_.sums[warp];
    return sum;
  }

 private:
  TempStorage& storage_;
};

}  // namespace cub
