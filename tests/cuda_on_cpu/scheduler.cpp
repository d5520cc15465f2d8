// Blocks one after the other, their threads as fibers, in an order of choice.
#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <stdexcept>
#include <unordered_map>
#include <vector>

#include "cuda_on_cpu.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#else
inline void __sanitizer_start_switch_fiber(void**, const void*, size_t) {}
inline void __sanitizer_finish_switch_fiber(void*, const void**, size_t*) {}
#endif

namespace cuda_on_cpu {

Block block;
uint3 thread;

namespace {

enum class Order { kForward, kReversed, kRandom };
enum class State { kReady, kWaiting, kDone };

constexpr int kMostThreads = 1024, kWarp = 32;
constexpr size_t kStackBytes = 256 << 10, kSharedBytes = 48 << 10, kArgumentBytes = 4 << 10;

struct Copy {
  void* to;
  const void* from;
  size_t bytes;
};

// A thread of the block that runs now. Its fiber lives on and runs the same thread of later blocks.
struct Thread {
  uint3 index;
  State state;
  bool has_fiber = false;
  jmp_buf stopped;
  void* fake_stack = nullptr;  // the address sanitizer's
  std::vector<Copy> copies;    // that it has not waited for
  // While it waits:
  Kind kind;
  unsigned mask;
  uint64_t value;  // and what comes back
  int source;      // the lane that a shuffle reads
  Site site;
};

struct SharedObject {
  std::unique_ptr<char, void (*)(void*)> memory;
  size_t size;
};

struct Launch {
  const Config& config;
  const char* kernel;
  Site site;
  void (*body)(void*);
  void* context;
  std::unordered_map<const void*, SharedObject> shared = {};
  std::string error = {};
};

Order order = Order::kForward;
std::minstd_rand random_bits;
Thread threads[kMostThreads];
int thread_count = 0;  // of a block
Thread* current = nullptr;
Launch* now = nullptr;
jmp_buf scheduler;
const void* scheduler_stack = nullptr;
size_t scheduler_stack_size = 0;
void* scheduler_fake_stack = nullptr;

bool chance(unsigned one_in) { return order == Order::kRandom && random_bits() % one_in == 0; }

template <typename T>
void arrange(std::vector<T>& turns) {
  std::iota(turns.begin(), turns.end(), T(0));
  if (order == Order::kReversed) std::reverse(turns.begin(), turns.end());
  if (order == Order::kRandom) std::shuffle(turns.begin(), turns.end(), random_bits);
}

std::string name_of(uint3 index) {
  return "(" + std::to_string(index.x) + "," + std::to_string(index.y) + "," +
         std::to_string(index.z) + ")";
}

std::string where(const Site& site) {
  return std::string(site.file_name()) + ":" + std::to_string(site.line());
}

std::runtime_error complaint(const std::string& what) {
  const std::string begin = now ? now->kernel + (" launched at " + where(now->site)) + ": " : "";
  return std::runtime_error("cuda_on_cpu: " + begin + what);
}

// Fibers

char* stack_of(const Thread& thread) {
  static char* const stacks = [] {
    void* memory = mmap(nullptr, kMostThreads * kStackBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::runtime_error("cuda_on_cpu: no memory for stacks");
    return static_cast<char*>(memory);
  }();
  return stacks + (&thread - threads) * kStackBytes;
}

void leave() {
  __sanitizer_start_switch_fiber(&current->fake_stack, scheduler_stack, scheduler_stack_size);
  if (_setjmp(current->stopped) == 0) _longjmp(scheduler, 1);
  __sanitizer_finish_switch_fiber(current->fake_stack, &scheduler_stack, &scheduler_stack_size);
}

void live() {
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_size);
  for (;;) {
    now->body(now->context);
    current->state = State::kDone;
    leave();
  }
}

void resume(Thread& next) {
  current = &next;
  thread = next.index;
  char* const stack = stack_of(next);
  __sanitizer_start_switch_fiber(&scheduler_fake_stack, stack, kStackBytes);
  if (_setjmp(scheduler) == 0) {
    if (next.has_fiber) _longjmp(next.stopped, 1);
    next.has_fiber = true;
    ucontext_t fiber;
    getcontext(&fiber);
    fiber.uc_stack.ss_sp = stack;
    // At different cache lines, or all stacks would fight for the same ones.
    fiber.uc_stack.ss_size = kStackBytes - 64 * ((&next - threads) % 61);
    makecontext(&fiber, &live, 0);
    setcontext(&fiber);
  }
  __sanitizer_finish_switch_fiber(scheduler_fake_stack, nullptr, nullptr);
  current = nullptr;
  if (!now->error.empty()) throw complaint(now->error);
}

// Blocks

// Says which threads wait, and for what.
[[noreturn]] void report_deadlock() {
  constexpr const char* kNames[] = {"__syncthreads", "__syncwarp", "__match_any_sync", "a vote",
                                    "a shuffle"};
  std::map<std::string, std::string> groups;
  for (int i = 0; i < thread_count; ++i) {
    const Thread& thread = threads[i];
    std::string state = "exited";
    if (thread.state == State::kWaiting)
      state = "wait at " + std::string(kNames[int(thread.kind)]) + " in " + where(thread.site);
    groups[state] += " " + std::to_string(i);
  }
  std::string what = "deadlock in block " + name_of(block.index);
  for (const auto& [state, members] : groups) what += "; threads" + members + " " + state;
  throw complaint(what);
}

// All threads have come as far as they can.
void release_barrier() {
  const auto same = [](const Thread& a, const Thread& b) {
    return a.site.line() == b.site.line() && !std::strcmp(a.site.file_name(), b.site.file_name());
  };
  for (int i = 0; i < thread_count; ++i) {
    if (threads[i].state != State::kWaiting || threads[i].kind != Kind::kBarrier ||
        !same(threads[i], threads[0])) {
      report_deadlock();
    }
  }
  for (int i = 0; i < thread_count; ++i) threads[i].state = State::kReady;
}

// Runs the threads of a warp that are ready, once each; whether there were any.
bool advance_warp(int warp) {
  std::vector<int> lanes(std::min(kWarp, thread_count - warp * kWarp));
  arrange(lanes);
  bool any = false;
  for (const int lane : lanes) {
    Thread& thread = threads[warp * kWarp + lane];
    if (thread.state != State::kReady) continue;
    any = true;
    if (!chance(8)) resume(thread);  // else this lane lags behind
  }
  return any;
}

void run_block() {
  for (int i = 0; i < thread_count; ++i) {
    const unsigned x = i % block.size.x, y = i / block.size.x % block.size.y;
    threads[i].index = {x, y, i / block.size.x / block.size.y};
    threads[i].state = State::kReady;
    threads[i].copies.clear();
  }
  // Nobody may count on what shared memory held before: of floats it is NaN.
  for (auto& [key, object] : now->shared) std::memset(object.memory.get(), 0xff, object.size);
  std::vector<int> warps((thread_count + kWarp - 1) / kWarp);
  const auto done = [](const Thread& thread) { return thread.state == State::kDone; };
  while (!std::all_of(threads, threads + thread_count, done)) {
    bool any = false;
    arrange(warps);
    for (const int warp : warps)
      while (advance_warp(warp) && (any = true) && !chance(3)) {
      }
    if (!any) release_barrier();
  }
}

void check(const Config& config, size_t bytes_of_arguments) {
  const dim3 &grid = config.grid, &size = config.block;
  const auto expect = [](bool right, const char* what) {
    if (!right) throw complaint(what);
  };
  expect(grid.x > 0 && grid.y > 0 && grid.z > 0, "a grid without blocks");
  expect(grid.x <= INT32_MAX && grid.y <= UINT16_MAX && grid.z <= UINT16_MAX, "too large a grid");
  expect(size.x > 0 && size.y > 0 && size.z > 0, "blocks without threads");
  expect(size.z <= 64 && uint64_t{size.x} * size.y * size.z <= kMostThreads, "too large blocks");
  expect(config.shared <= kSharedBytes, "too much shared memory");
  expect(bytes_of_arguments <= kArgumentBytes, "too large arguments");
}

}  // namespace

void fail(const std::string& what, const Site& site) {
  if (!current) throw complaint(what);
  now->error = "block " + name_of(block.index) + " thread " + name_of(current->index) + " in " +
               where(site) + ": " + what;
  leave();
  std::abort();
}

int thread_number() { return static_cast<int>(current - threads); }

int lane() { return thread_number() % kWarp; }

void copy_later(void* to, const void* from, size_t bytes, const Site& site) {
  const auto aligned = [&](const void* at) { return reinterpret_cast<uintptr_t>(at) % bytes == 0; };
  if (bytes != 4 && bytes != 8 && bytes != 16) fail("a copy of another size", site);
  if (!aligned(to) || !aligned(from)) fail("a copy that is not aligned", site);
  current->copies.push_back({to, from, bytes});
}

void copy_now() {
  for (const auto& [to, from, bytes] : current->copies) std::memcpy(to, from, bytes);
  current->copies.clear();
}

void maybe_yield() {
  if (chance(16)) leave();
}

void barrier(const Site& site) {
  current->state = State::kWaiting;
  current->kind = Kind::kBarrier;
  current->site = site;
  leave();
}

// The last lane of the mask to come does the work for all.
uint64_t collective(Kind kind, unsigned mask, uint64_t value, int source, const Site& site) {
  Thread& me = *current;
  const int first = thread_number() / kWarp * kWarp;
  Thread* const warp = threads + first;
  const auto in_mask = [&](int lane) { return mask >> lane & 1; };
  if (!in_mask(lane())) fail("a lane that its own mask leaves out", site);
  if (kind == Kind::kShuffle && !in_mask(source)) fail("a shuffle from outside the mask", site);
  me.state = State::kWaiting;
  me.kind = kind;
  me.mask = mask;
  me.value = value;
  me.source = source;
  me.site = site;
  bool complete = true;
  for (int i = 0; i < kWarp; ++i) {
    if (!in_mask(i)) continue;
    if (first + i >= thread_count) fail("the mask names a lane that the block has not", site);
    if (warp[i].state == State::kDone)
      fail("the mask names lane " + std::to_string(i) + ", which has exited", site);
    complete &= warp[i].state == State::kWaiting && warp[i].kind == kind && warp[i].mask == mask;
  }
  if (!complete) {
    leave();
    return me.value;
  }
  uint64_t results[kWarp] = {};
  for (int i = 0; i < kWarp; ++i) {
    if (!in_mask(i)) continue;
    if (warp[i].site.line() != site.line()) fail("lanes meet that come from other lines", site);
    if (kind == Kind::kShuffle) results[i] = warp[warp[i].source].value;
    if (kind != Kind::kMatchAny && kind != Kind::kBallot) continue;
    for (int j = 0; j < kWarp; ++j) {
      const bool match = kind == Kind::kBallot ? warp[j].value : warp[j].value == warp[i].value;
      if (in_mask(j) && match) results[i] |= uint64_t{1} << j;
    }
  }
  for (int i = 0; i < kWarp; ++i) {
    if (!in_mask(i)) continue;
    warp[i].value = results[i];
    warp[i].state = State::kReady;
  }
  if (chance(2)) leave();
  return me.value;
}

// Of the exact size, so that the address sanitizer sees its end.
void* shared_memory(const void* key, size_t size, size_t alignment) {
  const auto found = now->shared.find(key);
  if (found != now->shared.end()) return found->second.memory.get();
  size_t total = size;
  for (const auto& [key, object] : now->shared) total += object.size;
  if (total > kSharedBytes) fail("too much shared memory");
  void* memory = nullptr;
  if (posix_memalign(&memory, std::max(alignment, sizeof(void*)), size)) std::abort();
  std::memset(memory, 0xff, size);
  now->shared.emplace(key, SharedObject{{static_cast<char*>(memory), &std::free}, size});
  return memory;
}

void* dynamic_shared(size_t alignment) {
  static const char key = 0;
  return shared_memory(&key, now->config.shared, alignment);
}

void check_launch_bounds(unsigned most) {
  if (static_cast<unsigned>(thread_count) > most)
    fail("more threads than __launch_bounds__ allows");
}

void run_grid(const Config& config, const char* kernel, size_t bytes_of_arguments,
              const Site& site, void (*body)(void*), void* context) {
  static std::mutex one_at_a_time;
  const std::lock_guard guard(one_at_a_time);
  Launch launch = {config, kernel, site, body, context};
  now = &launch;
  const struct Reset {
    ~Reset() { now = nullptr; }
  } reset;
  check(config, bytes_of_arguments);
  const dim3& grid = config.grid;
  block = {{}, config.block, grid};
  thread_count = static_cast<int>(config.block.x * config.block.y * config.block.z);
  std::vector<uint64_t> turns(uint64_t{grid.x} * grid.y * grid.z);
  arrange(turns);
  try {
    for (const uint64_t i : turns) {
      block.index = {static_cast<unsigned>(i % grid.x), static_cast<unsigned>(i / grid.x % grid.y),
                     static_cast<unsigned>(i / grid.x / grid.y)};
      run_block();
    }
  } catch (...) {
    for (Thread& thread : threads) thread.has_fiber = false;  // they stopped anywhere
    throw;
  }
}

}  // namespace cuda_on_cpu

// For ctypes: 0 forward, 1 reversed, 2 random.
extern "C" __attribute__((visibility("default"))) void cuda_on_cpu_set_order(int order,
                                                                             unsigned seed) {
  cuda_on_cpu::order = static_cast<cuda_on_cpu::Order>(order);
  cuda_on_cpu::random_bits.seed(seed + 1);
}
