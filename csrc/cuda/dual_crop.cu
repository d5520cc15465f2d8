#include "../dual_crop.h"

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "rows.h"

namespace gpe::dual_crop {
namespace {

template <typename Out>
struct Arguments {
  Crops crops;
  Strides strides;
  Out* out;
  const uint8_t* images;
  const int64_t* offsets;
  const bool* flips;
  const Accumulate<uint8_t, Out>*scale, *shift;
};

// A block writes kRowsPerBlock rows of a plane.
template <int kSize, typename Out>
__global__ void __launch_bounds__(kThreads) write_crops(Arguments<Out> arguments) {
  const Crops& crops = arguments.crops;
  const Strides& strides = arguments.strides;
  const int64_t plane = blockIdx.x;
  const int64_t crop = plane / crops.planes_per_crop();
  const int64_t plane_channel = plane % crops.planes_per_crop();
  const int64_t top = arguments.offsets[2 * crop], left = arguments.offsets[2 * crop + 1];
  CUDA_KERNEL_ASSERT(crops.inside(top, left) &&
                     "gpe.dual_crop: offsets must leave a crop inside the padded image");
  const bool flip = arguments.flips[crop];
  const uint8_t* image = arguments.images + crop % crops.images * strides.image;
  Out* out = arguments.out + plane * crops.plane_size();
  // A row fits an int (checked on the host), whose divisions are cheaper.
  const int channels = static_cast<int>(crops.channels_in_row());
  const int row_size = static_cast<int>(crops.row_size());
  const int first = blockIdx.y * kRowsPerBlock;
  const int end = static_cast<int>(min(crops.rows.crop, int64_t{first} + kRowsPerBlock));

  for (int y = first + threadIdx.y; y < end; y += blockDim.y) {
    const int64_t row = crops.rows.source(top + y, crops.mode);
    for (int64_t x = threadIdx.x * kSize; x < row_size; x += blockDim.x * kSize) {
      Vector<Out, kSize> vector;
#pragma unroll
      for (int i = 0; i < kSize; ++i) {
        const int element = static_cast<int>(x) + i;
        const int64_t channel = plane_channel + element % channels;
        const int64_t position = element / channels;
        const int64_t column = crops.columns.source(
            left + (flip ? crops.columns.crop - 1 - position : position), crops.mode);
        uint8_t pixel = 0;
        if (row >= 0 && column >= 0)
          pixel = image[channel * strides.channel + row * strides.row + column * strides.column];
        vector.values[i] =
            normalise<Out>(pixel, arguments.scale[channel], arguments.shift[channel]);
      }
      *reinterpret_cast<Vector<Out, kSize>*>(out + y * crops.row_size() + x) = vector;
    }
  }
}

template <int kSize, typename Out>
void launch(const Arguments<Out>& arguments, int64_t planes) {
  const Crops& crops = arguments.crops;
  const dim3 blocks = blocks_for_planes(planes, crops.rows.crop);
  const dim3 threads = threads_for_row(crops.row_size() / kSize);
  write_crops<kSize><<<blocks, threads, 0, c10::cuda::getCurrentCUDAStream()>>>(arguments);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

void run(const Call& call) {
  const Crops& crops = call.crops;
  TORCH_CHECK_VALUE(fit_one_launch(call.planes(), crops.rows.crop, crops.row_size()),
                    "images: too many, or too large a crop, for one launch");
  const c10::cuda::CUDAGuard guard(call.images.device());
  with_dtype(call, [&](auto out) {
    using Out = decltype(out);
    const Arguments<Out> arguments{crops,
                                   call.strides,
                                   call.out.mutable_data_ptr<Out>(),
                                   call.images.const_data_ptr<uint8_t>(),
                                   call.offsets.const_data_ptr<int64_t>(),
                                   call.flips.const_data_ptr<bool>(),
                                   call.scale.const_data_ptr<Accumulate<uint8_t, Out>>(),
                                   call.shift.const_data_ptr<Accumulate<uint8_t, Out>>()};
    constexpr int kVector = kVectorBytes / sizeof(Out);
    if (aligned(arguments.out) && crops.row_size() % kVector == 0) {
      launch<kVector>(arguments, call.planes());
    } else {
      launch<1>(arguments, call.planes());
    }
  });
}

}  // namespace

TORCH_LIBRARY_IMPL(gpe, CUDA, library) { library.impl("dual_crop", &dual_crop<run>); }

}  // namespace gpe::dual_crop
