#include "../region_confusion.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

namespace gpe::region_confusion {
namespace {

// Two passes. The first finds the class that wins at each pixel of the logits; where the same one
// wins at all four around an upsampled pixel, it wins there, since all classes are bilinear in
// between: few pixels look at all classes. The second counts, a block to a tile of pixels that lie
// in the same regions, in a table of its own. Counts are integers: their order does not matter.
constexpr int kWarp = 32, kWarps = 8, kThreads = kWarp * kWarps;
constexpr int kTileColumns = 512, kTileRows = 32;
constexpr int kMostRegions = 40;  // of one launch: they travel as an argument, of at most 4 KB
constexpr size_t kTableBytes = 48 << 10;  // that a block may have

using Winner = int16_t;  // classes are fewer than 2^15
using Count = unsigned long long;

inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Labels or predictions of any dtype, [N,H,W].
struct Integers {
  const void* data;
  c10::ScalarType dtype;
  int64_t image_stride, row_stride, column_stride;

  explicit Integers(const at::Tensor& tensor)
      : data(tensor.const_data_ptr()),
        dtype(tensor.scalar_type()),
        image_stride(tensor.stride(0)),
        row_stride(tensor.stride(1)),
        column_stride(tensor.stride(2)) {}

  __device__ int64_t operator()(int64_t image, int64_t y, int64_t x) const {
    const int64_t i = image * image_stride + y * row_stride + x * column_stride;
    switch (dtype) {
      case c10::ScalarType::Byte: return read<uint8_t>(i);
      case c10::ScalarType::Char: return read<int8_t>(i);
      case c10::ScalarType::Short: return read<int16_t>(i);
      case c10::ScalarType::Int: return read<int32_t>(i);
      case c10::ScalarType::UInt16: return read<uint16_t>(i);
      case c10::ScalarType::UInt32: return read<uint32_t>(i);
      case c10::ScalarType::UInt64: return read<uint64_t>(i);
      default: return read<int64_t>(i);
    }
  }

 private:
  template <typename T>
  __device__ int64_t read(int64_t i) const {
    return as_int64(static_cast<const T*>(data)[i]);
  }
};

template <typename T>
struct Logits {
  const T* data;
  int64_t images, classes, height, width;
  int64_t image_stride, class_stride, row_stride, column_stride;

  explicit Logits(const at::Tensor& logits)
      : data(logits.const_data_ptr<T>()),
        images(logits.size(0)),
        classes(logits.size(1)),
        height(logits.size(2)),
        width(logits.size(3)),
        image_stride(logits.stride(0)),
        class_stride(logits.stride(1)),
        row_stride(logits.stride(2)),
        column_stride(logits.stride(3)) {}

  __device__ const T* at(int64_t image, int64_t y, int64_t x) const {
    return data + image * image_stride + y * row_stride + x * column_stride;
  }
};

// The class that wins at each pixel of the logits, and how many logits are not finite.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    find_winners(Logits<T> logits, Winner* winners, Count* not_finite) {
  const int64_t pixel = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (pixel >= logits.images * logits.height * logits.width) return;
  const int64_t row = pixel / logits.width;
  const T* values = logits.at(row / logits.height, row % logits.height, pixel % logits.width);
  using A = Accumulate<T>;
  A best = 0;
  Winner winner = 0;
  int wrong = 0;
  const int classes = static_cast<int>(logits.classes);
  for (int k = 0; k < classes; ++k, values += logits.class_stride) {
    const A value = static_cast<A>(*values);
    if (k == 0 || value > best) {
      best = value;
      winner = k;
    }
    wrong += !isfinite(value);
  }
  winners[pixel] = winner;
  if (wrong > 0) atomicAdd(not_finite, Count(wrong));
}

// Predicts a pixel from logits.
template <typename T>
struct Upsampled {
  using A = Accumulate<T>;

  Logits<T> logits;
  const Winner* winners;  // [N,h,w]
  Axis<A> rows, columns;

  __device__ int64_t operator()(int64_t image, int64_t y, int64_t x) const {
    const Source<A> row = rows.at(y), column = columns.at(x);
    const Winner* upper = winners + (image * logits.height + row.low) * logits.width;
    const Winner* lower = winners + (image * logits.height + row.high) * logits.width;
    const Winner winner = upper[column.low], right = upper[column.high];  // all four at once
    const Winner below = lower[column.low], opposite = lower[column.high];
    if (right == winner && below == winner && opposite == winner) return winner;
    return look_at_all(logits.at(image, row.low, column.low),
                       logits.at(image, row.low, column.high),
                       logits.at(image, row.high, column.low),
                       logits.at(image, row.high, column.high), row.weight, column.weight);
  }

 private:
  __device__ int64_t look_at_all(const T* a, const T* b, const T* c, const T* d, A down,
                                 A across) const {
    A best = 0;
    int64_t winner = 0;
    for (int64_t k = 0; k < logits.classes; ++k) {
      const int64_t i = k * logits.class_stride;
      const A left = between(static_cast<A>(a[i]), static_cast<A>(c[i]), down);
      const A right = between(static_cast<A>(b[i]), static_cast<A>(d[i]), down);
      const A value = between(left, right, across);
      if (k == 0 || value > best) {
        best = value;
        winner = k;
      }
    }
    return winner;
  }
};

// Regions of one launch, and their borders: between two neighbours, pixels lie in the same regions.
struct Regions {
  int count = 0, row_borders = 0, column_borders = 0;
  Rectangle rectangles[kMostRegions];
  int tops[2 * kMostRegions], lefts[2 * kMostRegions];

  explicit Regions(const std::vector<Rectangle>& regions) {
    for (const Rectangle& region : regions) rectangles[count++] = region;
    for (const int64_t y : borders(regions, &Rectangle::top, &Rectangle::bottom))
      tops[row_borders++] = y;
    for (const int64_t x : borders(regions, &Rectangle::left, &Rectangle::right))
      lefts[column_borders++] = x;
  }
};

inline int64_t count_tiles(const int* borders, int count, int size) {
  int64_t tiles = 0;
  for (int i = 0; i + 1 < count; ++i) tiles += divide_up(borders[i + 1] - borders[i], size);
  return tiles;
}

// Where tile `index` begins and ends.
__device__ inline void find_tile(const int* borders, int index, int size, int* begin, int* end) {
  for (;; ++borders) {
    const int tiles = (borders[1] - borders[0] + size - 1) / size;
    if (index < tiles) break;
    index -= tiles;
  }
  *begin = borders[0] + index * size;
  *end = min(*begin + size, borders[1]);
}

template <typename Predict>
struct Arguments {
  Regions regions;
  Predict predict;
  Integers labels;
  Codes codes;
  int column_tiles;
  Count *confusion, *wrong;  // confusion of the first region of this launch
  bool* told;  // [N,H,W]: wrong pixels that an earlier launch counted; null where there is but one
  int64_t height, width;

  __device__ int64_t table_size() const { return codes.classes * codes.classes; }

  // Counts a wrong label (0) or prediction (1).
  __device__ void tell(int what, int64_t image, int64_t y, int64_t x) const {
    if (told != nullptr) {
      bool& before = told[(image * height + y) * width + x];
      if (before) return;
      before = true;
    }
    atomicAdd(wrong + what, Count(1));
  }
};

// kPrivate: a block has a table in shared memory.
template <bool kPrivate, typename Predict>
__global__ void __launch_bounds__(kThreads) count_tile(Arguments<Predict> arguments) {
  extern __shared__ unsigned int table[];
  const Regions& regions = arguments.regions;
  const int64_t size = arguments.table_size();
  const int image = blockIdx.x / arguments.column_tiles;
  int left, right, top, bottom;
  find_tile(regions.lefts, blockIdx.x % arguments.column_tiles, kTileColumns, &left, &right);
  find_tile(regions.tops, blockIdx.y, kTileRows, &top, &bottom);

  bool inside = false;
  for (int r = 0; r < regions.count; ++r) inside |= regions.rectangles[r].holds(top, left);
  if (!inside) return;

  const auto add_to_regions = [&](int64_t pair, Count count) {
    for (int r = 0; r < regions.count; ++r)
      if (regions.rectangles[r].holds(top, left))
        atomicAdd(arguments.confusion + r * size + pair, count);
  };
  if constexpr (kPrivate) {
    for (int i = threadIdx.x; i < size; i += kThreads) table[i] = 0;
    __syncthreads();
  }
  const int64_t classes = arguments.codes.classes;
  const int lane = threadIdx.x % kWarp;
  for (int y = top + threadIdx.x / kWarp; y < bottom; y += kWarps) {
    for (int first = left; first < right; first += kWarp) {  // all lanes of a warp alike
      const int x = first + lane;
      int64_t label = classes, prediction = 0;
      if (x < right) {
        label = arguments.codes(arguments.labels(image, y, x));
        if (label > classes) arguments.tell(0, image, y, x);
      }
      if (label < classes) {
        prediction = arguments.predict(image, y, x);
        if (prediction < 0 || prediction >= classes) {
          arguments.tell(1, image, y, x);
          label = classes;
        }
      }
      const int pair = label < classes ? label * classes + prediction : -1;
      const unsigned int same = __match_any_sync(0xffffffff, pair);
      if (pair < 0 || lane != __ffs(same) - 1) continue;
      if constexpr (kPrivate) {
        atomicAdd(table + pair, __popc(same));
      } else {
        add_to_regions(pair, __popc(same));
      }
    }
  }
  if constexpr (kPrivate) {
    __syncthreads();
    for (int i = threadIdx.x; i < size; i += kThreads)
      if (table[i] > 0) add_to_regions(i, table[i]);
  }
}

template <typename Predict>
void count_all(const Call& call, const Predict& predict) {
  const auto stream = c10::cuda::getCurrentCUDAStream();
  const int64_t size = call.classes * call.classes;
  Count* confusion = reinterpret_cast<Count*>(call.confusion.mutable_data_ptr<int64_t>());
  Count* wrong = reinterpret_cast<Count*>(call.wrong.mutable_data_ptr<int64_t>());
  const Codes codes = Codes::of_labels(call.classes, call.ignore_index);
  at::Tensor told;
  if (call.regions.size() > kMostRegions)
    told = at::zeros(call.labels.sizes(), call.labels.options().dtype(at::kBool));
  for (size_t first = 0; first < call.regions.size(); first += kMostRegions) {
    const auto begin = call.regions.begin() + first;
    const Regions regions(
        {begin, begin + std::min<size_t>(kMostRegions, call.regions.size() - first)});
    const int64_t columns = count_tiles(regions.lefts, regions.column_borders, kTileColumns);
    const int64_t rows = count_tiles(regions.tops, regions.row_borders, kTileRows);
    TORCH_CHECK_VALUE(rows <= UINT16_MAX && call.images() * columns <= INT32_MAX,
                      "labels: too many for one launch");
    const Arguments<Predict> arguments = {
        regions, predict, Integers(call.labels), codes, static_cast<int>(columns),
        confusion + first * size, wrong,
        told.defined() ? told.mutable_data_ptr<bool>() : nullptr, call.height(), call.width()};
    static_assert(sizeof(arguments) <= 4096);
    const dim3 blocks(call.images() * columns, rows);
    const size_t bytes = size * sizeof(unsigned int);
    if (bytes <= kTableBytes) {
      count_tile<true><<<blocks, kThreads, bytes, stream>>>(arguments);
    } else {
      count_tile<false><<<blocks, kThreads, 0, stream>>>(arguments);
    }
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }
}

template <typename T>
void upsample_and_count(const Call& call) {
  const Logits<T> logits(call.logits);
  const at::Tensor winners = at::empty({logits.images, logits.height, logits.width},
                                       call.labels.options().dtype(at::kShort));
  const int64_t blocks = divide_up(winners.numel(), kThreads);
  TORCH_CHECK_VALUE(blocks <= INT32_MAX, "logits: too many for one launch");
  auto* const found = winners.mutable_data_ptr<Winner>();
  auto* const not_finite = reinterpret_cast<Count*>(call.wrong.mutable_data_ptr<int64_t>() + 2);
  find_winners<<<blocks, kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(logits, found,
                                                                           not_finite);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  using A = Accumulate<T>;
  const Axis<A> rows(logits.height, call.height()), columns(logits.width, call.width());
  count_all(call, Upsampled<T>{logits, found, rows, columns});
}

void run(const Call& call) {
  const c10::cuda::CUDAGuard guard(call.labels.device());
  if (call.predicted()) return count_all(call, Integers(call.logits));
  with_dtype(call, [&](auto type) { upsample_and_count<decltype(type)>(call); });
}

}  // namespace

TORCH_LIBRARY_IMPL(gpe, CUDA, library) {
  library.impl("region_confusion", &region_confusion<run>);
}

}  // namespace gpe::region_confusion
