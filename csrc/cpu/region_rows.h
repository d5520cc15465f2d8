// The loops of region_confusion along a row, which do the work; a file of its own for their length.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "../region_confusion.h"
#include "cpu.h"

namespace gpe::region_confusion {

// Vectors spell out what between() computes: g++ would take apart those it hands to a function.
constexpr int64_t kLanes = 16;
constexpr int64_t kTables = 2;  // in turn: neighbours often are the same pair, and would wait

inline int64_t padded(int64_t length) { return (length + kLanes - 1) / kLanes * kLanes; }

template <typename A>
using Whole = std::conditional_t<sizeof(A) == 8, int64_t, int32_t>;

// Adds the codes of `count` labels or predictions, times `scale`, to the pairs.
template <typename T, typename Pair>
GPE_MULTIVERSION static void add_codes(const T* values, int64_t stride, int64_t count,
                                       Codes codes, int64_t scale, Pair* __restrict pairs) {
  if constexpr (sizeof(T) <= 2) {  // in narrow numbers, more at a time
    const bool fits = codes.ignore_index >= INT16_MIN && codes.ignore_index <= UINT16_MAX;
    const int32_t ignore_index = fits ? codes.ignore_index : INT32_MIN;
    const int32_t classes = codes.classes, step = scale;
    const int32_t ignored = codes.ignored * scale, wrong = codes.wrong * scale;
    const auto code = [&](int32_t value) {
      const int32_t other = value == ignore_index ? ignored : wrong;
      return value == ignore_index || value < 0 || value >= classes ? other : value * step;
    };
    if (stride == 1) {
      for (int64_t i = 0; i < count; ++i) pairs[i] += code(values[i]);
    } else {
      for (int64_t i = 0; i < count; ++i) pairs[i] += code(values[i * stride]);
    }
  } else {
    for (int64_t i = 0; i < count; ++i) pairs[i] += codes(as_int64(values[i * stride])) * scale;
  }
}

template <typename T, typename A>
GPE_MULTIVERSION static void read_row(const T* from, int64_t stride, int64_t count,
                                      A* __restrict to) {
  if (stride == 1) {
    for (int64_t i = 0; i < count; ++i) to[i] = from[i];
  } else {
    for (int64_t i = 0; i < count; ++i) to[i] = from[i * stride];
  }
}

// A row of logits, in between two rows of the low resolution, and the class that wins in each of
// `columns` columns. All rows have `columns` numbers for each class, a multiple of kLanes.
template <typename A>
GPE_MULTIVERSION static void mix_rows(const A* low, const A* high, A weight, int64_t classes,
                                      int64_t columns, A* __restrict mixed,
                                      Whole<A>* __restrict winners) {
  typedef A Values __attribute__((vector_size(kLanes * sizeof(A))));
  typedef Whole<A> Classes __attribute__((vector_size(kLanes * sizeof(A))));
  const A rest = 1 - weight;
  for (int64_t c = 0; c < columns; c += kLanes) {
    Values best = {};
    Classes winner = {};
    for (int64_t k = 0; k < classes; ++k) {
      Values value, other;
      std::memcpy(&value, low + k * columns + c, sizeof(value));
      if (weight > 0) {
        std::memcpy(&other, high + k * columns + c, sizeof(other));
        value = rest * value + weight * other;
      }
      std::memcpy(mixed + k * columns + c, &value, sizeof(value));
      if (k == 0) {
        best = value;
      } else {
        const Classes better = value > best;
        best = better ? value : best;
        winner = better ? Classes{} + static_cast<Whole<A>>(k) : winner;
      }
    }
    std::memcpy(winners + c, &winner, sizeof(winner));
  }
}

// Pixels [begin, end) of a row that lie between the same two columns of the logits.
struct Segment {
  int64_t begin, end, low, high;
};

// Writes the class that wins at each pixel; both arrays go on for kLanes after the last segment.
template <typename A, typename Pair>
GPE_MULTIVERSION static void win_segments(const std::vector<Segment>& segments, const A* weights,
                                          const A* mixed, const Whole<A>* winners,
                                          int64_t classes, int64_t columns,
                                          Pair* __restrict pairs) {
  typedef A Values __attribute__((vector_size(kLanes * sizeof(A))));
  typedef Whole<A> Classes __attribute__((vector_size(kLanes * sizeof(A))));
  typedef Pair Pairs __attribute__((vector_size(kLanes * sizeof(Pair))));
  for (const Segment& segment : segments) {
    const Whole<A> first = winners[segment.low], last = winners[segment.high];
    const A *low = mixed + segment.low, *high = mixed + segment.high;
    for (int64_t x = segment.begin; x < segment.end; x += kLanes) {
      Pairs row = Pairs{} + static_cast<Pair>(first);
      if (first != last) {
        Values weight;
        std::memcpy(&weight, weights + x, sizeof(weight));
        const Values rest = 1 - weight;
        Values best = rest * low[0] + weight * high[0];
        Classes winner = {};
        for (int64_t k = 1; k < classes; ++k) {
          const Values value = rest * low[k * columns] + weight * high[k * columns];
          const Classes better = value > best;
          best = better ? value : best;
          winner = better ? Classes{} + static_cast<Whole<A>>(k) : winner;
        }
        row = __builtin_convertvector(winner, Pairs);
      }
      std::memcpy(pairs + x, &row, sizeof(row));
    }
  }
}

// Counts pairs in tables of `size`, one after the other.
template <typename Pair>
GPE_MULTIVERSION static void count_pairs(const Pair* pairs, int64_t count, int64_t size,
                                         uint32_t* __restrict tables) {
  typedef Pair Pairs __attribute__((vector_size(kLanes * sizeof(Pair))));
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    Pairs some;
    std::memcpy(&some, pairs + i, sizeof(some));
    const auto differ = some != Pairs{} + pairs[i];
    std::array<uint64_t, kLanes * sizeof(Pair) / sizeof(uint64_t)> bits;
    std::memcpy(&bits, &differ, sizeof(differ));
    uint64_t any = 0;
    for (const uint64_t part : bits) any |= part;
    if (any == 0) {
      tables[pairs[i]] += kLanes;
    } else {
      for (int64_t j = 0; j < kLanes; ++j) ++tables[j % kTables * size + pairs[i + j]];
    }
  }
  for (; i < count; ++i) ++tables[pairs[i]];
}

template <typename T>
GPE_MULTIVERSION static int64_t not_finite(const T* values, int64_t count, int64_t stride) {
  using A = Accumulate<T>;
  int64_t sum = 0;
  for (int64_t i = 0; i < count; ++i)
    sum += !(std::abs(static_cast<A>(values[i * stride])) <= std::numeric_limits<A>::max());
  return sum;
}

}  // namespace gpe::region_confusion
