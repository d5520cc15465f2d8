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
// kChannels lie side by side in a row; 0: as many as there are.
template <int kSize, int kChannels, typename Out>
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
  const uint8_t* image = arguments.images + crop % crops.images * strides.image +
                         plane_channel * strides.channel;
  const auto *scale = arguments.scale + plane_channel, *shift = arguments.shift + plane_channel;
  Out* out = arguments.out + plane * crops.plane_size();
  // A row fits an int (checked on the host), whose divisions are cheaper.
  const int channels = kChannels > 0 ? kChannels : static_cast<int>(crops.channels_in_row());
  const int row_size = static_cast<int>(crops.row_size());
  const int first = blockIdx.y * kRowsPerBlock;
  const int end = static_cast<int>(min(crops.rows.crop, int64_t{first} + kRowsPerBlock));

  for (int y = first + threadIdx.y; y < end; y += blockDim.y) {
    const int64_t row = crops.rows.source(top + y, crops.mode);
    for (int64_t x = threadIdx.x * kSize; x < row_size; x += blockDim.x * kSize) {
      uint8_t pixels[kSize];
      int channel[kSize];  // beyond the first of the plane
#pragma unroll
      for (int i = 0; i < kSize; ++i) {  // no branch around a load: they go out together
        const int element = static_cast<int>(x) + i;
        const int position = element / channels;
        channel[i] = element - position * channels;
        const int64_t column = crops.columns.source(
            left + (flip ? crops.columns.crop - 1 - position : position), crops.mode);
        const bool inside = row >= 0 && column >= 0;
        const int64_t at =
            channel[i] * strides.channel + row * strides.row + column * strides.column;
        pixels[i] = image[inside ? at : 0];
        if (!inside) pixels[i] = 0;
      }
      Vector<Out, kSize> vector;
#pragma unroll
      for (int i = 0; i < kSize; ++i)
        vector.values[i] = normalise<Out>(pixels[i], scale[channel[i]], shift[channel[i]]);
      *reinterpret_cast<Vector<Out, kSize>*>(out + y * crops.row_size() + x) = vector;
    }
  }
}

template <int kSize, typename Out>
void launch(const Arguments<Out>& arguments, int64_t planes) {
  const Crops& crops = arguments.crops;
  const dim3 blocks = blocks_for_planes(planes, crops.rows.crop);
  const dim3 threads = threads_for_row(crops.row_size() / kSize);
  const auto stream = c10::cuda::getCurrentCUDAStream();
  switch (crops.channels_in_row()) {  // known ones need no division
    case 1: write_crops<kSize, 1><<<blocks, threads, 0, stream>>>(arguments); break;
    case 3: write_crops<kSize, 3><<<blocks, threads, 0, stream>>>(arguments); break;
    default: write_crops<kSize, 0><<<blocks, threads, 0, stream>>>(arguments);
  }
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
