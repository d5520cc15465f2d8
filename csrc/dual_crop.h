// What the CPU and the CUDA kernel of dual_crop share: where a crop's pixels come from, and the call
// that leads to either.
#pragma once

#include <ATen/Dispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <cstdint>

#include "checks.h"
#include "host_device.h"
#include "images.h"

namespace gpe::dual_crop {

enum class Padding { kZeros, kReflect, kReplicate, kCircular };

// The rows, or the columns, of an image with `padding` more of them on either side, and of its crops.
struct Axis {
  int64_t side, padding, crop;

  // A crop begins at an offset from 0 to here.
  GPE_HOST_DEVICE int64_t last_offset() const { return side + 2 * padding - crop; }

  // Which row of the image lies at a position among the padded ones; -1 where pixels are zero.
  GPE_HOST_DEVICE int64_t source(int64_t position, Padding mode) const {
    const int64_t row = position - padding;
    if (0 <= row && row < side) return row;
    const bool before = row < 0;
    switch (mode) {
      case Padding::kReflect:
        return before ? -row : 2 * (side - 1) - row;
      case Padding::kReplicate:
        return before ? 0 : side - 1;
      case Padding::kCircular:
        return before ? row + side : row - side;
      default:
        return -1;
    }
  }
};

// All crops in memory, as planes of rows. NCHW has a plane for each crop and channel. In
// channels-last memory a crop is one plane, whose rows hold the channels side by side.
struct Crops {
  Axis rows, columns;
  Padding mode;
  int64_t images;  // crop i is of image i % images
  int64_t channels;
  bool channels_last;

  GPE_HOST_DEVICE int64_t planes_per_crop() const { return channels_last ? 1 : channels; }
  GPE_HOST_DEVICE int64_t channels_in_row() const { return channels_last ? channels : 1; }
  GPE_HOST_DEVICE int64_t row_size() const { return columns.crop * channels_in_row(); }
  GPE_HOST_DEVICE int64_t plane_size() const { return rows.crop * row_size(); }

  GPE_HOST_DEVICE bool inside(int64_t top, int64_t left) const {
    return 0 <= top && top <= rows.last_offset() && 0 <= left && left <= columns.last_offset();
  }
};

// A call whose arguments were checked. All but the images are contiguous.
struct Call {
  at::Tensor out;  // [V·N,C,h,w]
  at::Tensor images, offsets, flips, scale, shift;
  Crops crops;
  Strides strides;

  int64_t planes() const { return out.size(0) * crops.planes_per_crop(); }
};

inline Padding padding_of(c10::string_view mode) {
  if (mode == "zeros") return Padding::kZeros;
  if (mode == "reflect") return Padding::kReflect;
  if (mode == "replicate") return Padding::kReplicate;
  TORCH_CHECK_VALUE(mode == "circular", "padding_mode: got ", mode);
  return Padding::kCircular;
}

inline Axis checked_axis(int64_t side, int64_t padding, int64_t crop, Padding mode) {
  const Axis axis{side, padding, crop};
  TORCH_CHECK_VALUE(side >= 1, "images: expected pixels, got a side of ", side);
  expect_positive("size", crop);
  constexpr int64_t kMost = INT64_MAX / 4;  // of which two and a side are no more than 64 bits
  TORCH_CHECK_VALUE(0 <= padding && padding <= kMost, "padding: expected at least 0 and at most ",
                    kMost, ", got ", padding);
  TORCH_CHECK_VALUE(mode != Padding::kReflect || padding < side, "padding: expected less than ",
                    side, ", got ", padding);
  TORCH_CHECK_VALUE(mode != Padding::kCircular || padding <= side, "padding: expected at most ",
                    side, ", got ", padding);
  TORCH_CHECK_VALUE(axis.last_offset() >= 0, "size: expected at most ", side + 2 * padding, ", got ",
                    crop);
  return axis;
}

// The operator of torch.ops.gpe, for the kernel of a device.
template <void (*kKernel)(const Call&)>
at::Tensor dual_crop(const at::Tensor& images, const at::Tensor& offsets, const at::Tensor& flips,
                     at::IntArrayRef size, at::IntArrayRef padding, c10::string_view padding_mode,
                     const at::Tensor& scale, const at::Tensor& shift, at::ScalarType dtype,
                     bool channels_last) {
  expect_rank("images", images, 4);
  expect_dtype("images", images, at::kByte);
  expect_rank("offsets", offsets, 3);
  const int64_t views = offsets.size(0), count = images.size(0), channels = images.size(1);
  expect_tensor("offsets", offsets, at::kLong, {views, count, 2}, images);
  expect_tensor("flips", flips, at::kBool, {views, count}, images);
  const auto accumulate = dtype == at::kDouble ? at::kDouble : at::kFloat;
  expect_vector("scale", scale, accumulate, channels, images);
  expect_vector("shift", shift, accumulate, channels, images);
  const Padding mode = padding_of(padding_mode);
  expect_floating("dtype", dtype);
  expect_pair("size", size);
  expect_pair("padding", padding);
  const int64_t crop_count = product("offsets", views, count);
  const Crops crops{checked_axis(images.size(2), padding[0], size[0], mode),
                    checked_axis(images.size(3), padding[1], size[1], mode),
                    mode,
                    count,
                    channels,
                    channels_last};

  const auto format = channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
  const at::Tensor out = at::empty({crop_count, channels, size[0], size[1]},
                                   images.options().dtype(dtype), format);
  const Call call{out,
                  images,
                  offsets.contiguous(),
                  flips.contiguous(),
                  scale.contiguous(),
                  shift.contiguous(),
                  crops,
                  Strides::of(images)};
  if (out.numel() > 0) kKernel(call);
  return out.view({views, count, channels, size[0], size[1]});
}

// Calls run(Out{}) with the type of the crops.
template <typename Run>
void with_dtype(const Call& call, Run run) {
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, call.out.scalar_type(), "dual_crop",
                                  [&] { run(scalar_t{}); });
}

}  // namespace gpe::dual_crop
