// What CPU kernels have in common.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>

#ifdef __linux__
#include <sys/mman.h>
#endif

// A function compiled for AVX-512, AVX2 and the baseline; the loader picks one for the processor it
// finds, so that one binary serves all.
#if defined(__x86_64__) && defined(__linux__) && defined(__has_attribute) && \
    !defined(GPE_MULTIVERSION)
#if __has_attribute(target_clones)
#define GPE_MULTIVERSION __attribute__((target_clones("avx512f", "avx2", "default")))
#endif
#endif
#ifndef GPE_MULTIVERSION
#define GPE_MULTIVERSION
#endif

namespace gpe {

// How many items of `elements` each a thread should at least get, for at::parallel_for.
inline int64_t grain_size(int64_t elements) {
  constexpr int64_t kWorthAThread = 32768;
  return std::max<int64_t>(1, kWorthAThread / std::max<int64_t>(1, elements));
}

// Fresh memory costs a page fault each 4 KB, more than writing it does. Asks for 2 MB pages.
inline void use_huge_pages(const at::Tensor& fresh) {
#ifdef MADV_HUGEPAGE
  constexpr uintptr_t kHugePage = 2 << 20;
  const auto begin = reinterpret_cast<uintptr_t>(fresh.const_data_ptr());
  const uintptr_t first = (begin + kHugePage - 1) / kHugePage * kHugePage;
  const uintptr_t last = (begin + fresh.nbytes()) / kHugePage * kHugePage;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

}  // namespace gpe
