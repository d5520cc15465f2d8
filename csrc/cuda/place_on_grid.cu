#include "../place_on_grid.h"

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "rows.h"

namespace gpe::place_on_grid {
namespace {

template <typename In, typename Out>
struct Arguments {
  Canvas canvas;
  Strides strides;
  Out* out;
  const In* images;
  const int64_t *locations, *placed;
  const Accumulate<In, Out>*scale, *shift;
};

__device__ inline Region checked_cell(const Canvas& canvas, int64_t location) {
  CUDA_KERNEL_ASSERT(0 <= location && location < canvas.cells() &&
                     "gpe.place_on_grid: locations must lie inside the grid");
  return canvas.cell(location);
}

// Writes a region of one plane: the patch where it lies inside, zero elsewhere. A vector
// lies in one cell, never across an edge.
template <int kSize, typename In, typename Out>
__device__ void write(const Arguments<In, Out>& arguments, int plane,
                      const Region& region, const Region& patch) {
  const Canvas& canvas = arguments.canvas;
  const Strides& strides = arguments.strides;
  // Planes and rows fit an int (checked on the host), whose divisions are cheaper.
  const int image = plane / static_cast<int>(canvas.planes_per_image());
  const int plane_channel = plane - image * static_cast<int>(canvas.planes_per_image());
  const int channels_in_row = canvas.channels_last ? static_cast<int>(canvas.channels) : 1;

  for (int64_t y = region.top + threadIdx.y; y < region.bottom; y += blockDim.y) {
    Out* row = arguments.out + plane * canvas.plane_size() + y * canvas.width();
    const In* in = arguments.images + image * strides.image + (y - patch.top) * strides.row;
    const bool row_in_patch = patch.top <= y && y < patch.bottom;
    for (int64_t x = region.left + threadIdx.x * kSize; x < region.right; x += blockDim.x * kSize) {
      Vector<Out, kSize> vector = {};
      if (row_in_patch && patch.left <= x && x < patch.right) {
        In pixels[kSize];
        int channel[kSize];
#pragma unroll
        for (int i = 0; i < kSize; ++i) {  // all loads first
          const int element = static_cast<int>(x - patch.left) + i;
          const int column = element / channels_in_row;
          channel[i] = plane_channel + (element - column * channels_in_row);
          pixels[i] = in[channel[i] * strides.channel + column * strides.column];
        }
#pragma unroll
        for (int i = 0; i < kSize; ++i)
          vector.values[i] = normalise<Out>(pixels[i], arguments.scale[channel[i]],
                                            arguments.shift[channel[i]]);
      }
      *reinterpret_cast<Vector<Out, kSize>*>(row + x) = vector;
    }
  }
}

// Fresh memory: a block writes kRowsPerBlock rows of a plane.
template <int kSize, typename In, typename Out>
__global__ void __launch_bounds__(kThreads)
    write_canvas(Arguments<In, Out> arguments) {
  const Canvas& canvas = arguments.canvas;
  const int plane = static_cast<int>(blockIdx.x);
  const int image = plane / static_cast<int>(canvas.planes_per_image());
  Region rows = canvas.whole();
  rows.top = static_cast<int64_t>(blockIdx.y) * kRowsPerBlock;
  rows.bottom = min(rows.bottom, rows.top + kRowsPerBlock);
  write<kSize>(arguments, plane, rows, checked_cell(canvas, arguments.locations[image]));
}

// An earlier canvas: a block clears the old cell of a plane and writes the new one.
template <int kSize, typename In, typename Out>
__global__ void __launch_bounds__(kThreads)
    move_patch(Arguments<In, Out> arguments) {
  const Canvas& canvas = arguments.canvas;
  const int plane = static_cast<int>(blockIdx.x);
  const int image = plane / static_cast<int>(canvas.planes_per_image());
  const int64_t from = arguments.placed[image], to = arguments.locations[image];
  const Region patch = checked_cell(canvas, to);
  if (from != to) write<kSize>(arguments, plane, checked_cell(canvas, from), patch);
  write<kSize>(arguments, plane, patch, patch);
}

template <int kSize, typename In, typename Out>
void launch(const Arguments<In, Out>& arguments, int64_t planes) {
  const Canvas& canvas = arguments.canvas;
  const auto stream = c10::cuda::getCurrentCUDAStream();
  if (arguments.placed) {
    const dim3 threads = threads_for_row(canvas.cell_width / kSize);
    move_patch<kSize><<<planes, threads, 0, stream>>>(arguments);
  } else {
    const dim3 blocks = blocks_for_planes(planes, canvas.height());
    const dim3 threads = threads_for_row(canvas.width() / kSize);
    write_canvas<kSize><<<blocks, threads, 0, stream>>>(arguments);
  }
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

void run(const Call& call) {
  const Canvas& canvas = call.canvas;
  TORCH_CHECK_VALUE(fit_one_launch(call.planes(), canvas.height(), canvas.width()),
                    "images: too many, or too large a grid, for one launch");
  const c10::cuda::CUDAGuard guard(call.images.device());
  with_dtypes(call, [&](auto in, auto out) {
    using In = decltype(in);
    using Out = decltype(out);
    const Arguments<In, Out> arguments{
        canvas,
        call.strides,
        call.out.mutable_data_ptr<Out>(),
        call.images.const_data_ptr<In>(),
        call.locations.const_data_ptr<int64_t>(),
        call.placed.defined() ? call.placed.const_data_ptr<int64_t>() : nullptr,
        call.scale.const_data_ptr<Accumulate<In, Out>>(),
        call.shift.const_data_ptr<Accumulate<In, Out>>()};
    constexpr int kVector = kVectorBytes / sizeof(Out);
    if (aligned(arguments.out) && canvas.cell_width % kVector == 0) {
      launch<kVector>(arguments, call.planes());
    } else {
      launch<1>(arguments, call.planes());
    }
  });
}

}  // namespace

TORCH_LIBRARY_IMPL(gpe, CUDA, library) {
  library.impl("place_on_grid", &place_on_grid<run>);
  library.impl("place_on_grid_", &place_on_grid_<run>);
}

}  // namespace gpe::place_on_grid
