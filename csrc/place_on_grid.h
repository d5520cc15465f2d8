// What the CPU and the CUDA kernel of place_on_grid share: where things lie, what is written, and
// the call that leads to either.
#pragma once

#include <ATen/Dispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "checks.h"
#include "host_device.h"
#include "images.h"

namespace gpe::place_on_grid {

// Part of a plane, in rows and elements: [top, bottom) x [left, right).
struct Region {
  int64_t top, bottom, left, right;
};

// A canvas in memory, as planes of rows. NCHW has a plane for each image and channel. In
// channels-last memory an image is one plane, whose rows hold the channels side by side: there a
// cell is channels times as wide, and everything else is the same.
struct Canvas {
  int64_t channels;
  int64_t grid_size;
  int64_t cell_height;
  int64_t cell_width;  // in elements of a row
  bool channels_last;

  GPE_HOST_DEVICE int64_t planes_per_image() const { return channels_last ? 1 : channels; }
  GPE_HOST_DEVICE int64_t height() const { return grid_size * cell_height; }
  GPE_HOST_DEVICE int64_t width() const { return grid_size * cell_width; }
  GPE_HOST_DEVICE int64_t plane_size() const { return height() * width(); }
  GPE_HOST_DEVICE int64_t cells() const { return grid_size * grid_size; }

  GPE_HOST_DEVICE Region whole() const { return {0, height(), 0, width()}; }

  // Cells are numbered row by row from 0.
  GPE_HOST_DEVICE Region cell(int64_t location) const {
    const int64_t top = location / grid_size * cell_height;
    const int64_t left = location % grid_size * cell_width;
    return {top, top + cell_height, left, left + cell_width};
  }
};

// A call whose arguments were checked. All but the images and the canvas are contiguous.
struct Call {
  at::Tensor out;
  at::Tensor placed;  // the locations that `out` holds now; undefined where it is unwritten memory
  at::Tensor images, locations, scale, shift;
  Canvas canvas;
  Strides strides;

  int64_t planes() const { return images.size(0) * canvas.planes_per_image(); }
};

inline Canvas canvas_of(const at::Tensor& out, const at::Tensor& images, int64_t grid_size) {
  const bool channels_last = !out.is_contiguous();
  TORCH_CHECK_VALUE(!channels_last || out.is_contiguous(at::MemoryFormat::ChannelsLast),
                    "canvas: expected a contiguous or a channels-last tensor, got strides ",
                    out.strides());
  const int64_t channels = images.size(1), width = images.size(3);
  return {channels, grid_size, images.size(2), channels_last ? width * channels : width,
          channels_last};
}

inline std::vector<int64_t> canvas_shape(const at::Tensor& images, int64_t grid_size) {
  expect_rank("images", images, 4);
  expect_positive("grid_size", grid_size);
  product("grid_size", grid_size, grid_size);
  return {images.size(0), images.size(1), product("grid_size", images.size(2), grid_size),
          product("grid_size", images.size(3), grid_size)};
}

inline Call checked(const at::Tensor& out, const at::Tensor& placed, const at::Tensor& images,
                    const at::Tensor& locations, int64_t grid_size, const at::Tensor& scale,
                    const at::Tensor& shift) {
  expect_no_tangent("images", images);
  expect_shape("canvas", out, canvas_shape(images, grid_size));
  expect_device("canvas", out, images);
  expect_vector("locations", locations, at::kLong, images.size(0), images);
  if (placed.defined()) expect_vector("placed", placed, at::kLong, images.size(0), images);
  const bool wide = images.scalar_type() == at::kDouble || out.scalar_type() == at::kDouble;
  const auto accumulate = wide ? at::kDouble : at::kFloat;
  expect_vector("scale", scale, accumulate, images.size(1), images);
  expect_vector("shift", shift, accumulate, images.size(1), images);
  return {out,
          placed.defined() ? placed.contiguous() : placed,
          images,
          locations.contiguous(),
          scale.contiguous(),
          shift.contiguous(),
          canvas_of(out, images, grid_size),
          Strides::of(images)};
}

// The operators of torch.ops.gpe, for the kernel of a device.
template <void (*kKernel)(const Call&)>
at::Tensor place_on_grid(const at::Tensor& images, const at::Tensor& locations, int64_t grid_size,
                         const at::Tensor& scale, const at::Tensor& shift, at::ScalarType dtype,
                         bool channels_last) {
  expect_floating("dtype", dtype);
  const auto format = channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
  const at::Tensor out =
      at::empty(canvas_shape(images, grid_size), images.options().dtype(dtype), format);
  const Call call = checked(out, at::Tensor(), images, locations, grid_size, scale, shift);
  if (out.numel() > 0) kKernel(call);
  return out;
}

template <void (*kKernel)(const Call&)>
void place_on_grid_(at::Tensor canvas, const std::optional<at::Tensor>& placed,
                    const at::Tensor& images, const at::Tensor& locations, int64_t grid_size,
                    const at::Tensor& scale, const at::Tensor& shift) {
  const Call call = checked(canvas, placed.value_or(at::Tensor()), images, locations, grid_size,
                            scale, shift);
  expect_apart("images", images, canvas);
  expect_apart("locations", locations, canvas);
  expect_apart("scale", scale, canvas);
  expect_apart("shift", shift, canvas);
  if (placed) expect_apart("placed", *placed, canvas);
  mark_written("canvas", canvas);
  if (canvas.numel() > 0) kKernel(call);
}

// Calls run(In{}, Out{}) with the types of the images and of the canvas.
template <typename Run>
void with_dtypes(const Call& call, Run run) {
  AT_DISPATCH_FLOATING_TYPES_AND3(
      at::kByte, at::kHalf, at::kBFloat16, call.images.scalar_type(), "place_on_grid images", [&] {
        using In = scalar_t;
        AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, call.out.scalar_type(),
                                        "place_on_grid canvas", [&] { run(In{}, scalar_t{}); });
      });
}

}  // namespace gpe::place_on_grid
