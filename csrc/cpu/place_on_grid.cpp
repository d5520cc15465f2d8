#include "../place_on_grid.h"

#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>

#include "cpu.h"

namespace gpe::place_on_grid {
namespace {

// One channel of one row of a patch. This and the next hold the only loops that touch every pixel,
// and so are compiled for several instruction sets.
template <typename In, typename Out>
GPE_MULTIVERSION void write_pixels(Out* __restrict out, int64_t out_step, const In* __restrict in,
                                   int64_t in_step, int64_t count, Accumulate<In, Out> scale,
                                   Accumulate<In, Out> shift) {
  if (out_step == 1 && in_step == 1) {
    for (int64_t i = 0; i < count; ++i) out[i] = normalise<Out>(in[i], scale, shift);
  } else {
    for (int64_t i = 0; i < count; ++i)
      out[i * out_step] = normalise<Out>(in[i * in_step], scale, shift);
  }
}

// One row of a patch of three channels, from planes into channels-last memory. Written out for three,
// it vectorises: three times as fast as channel after channel.
template <typename In, typename Out>
GPE_MULTIVERSION void write_rgb(Out* __restrict out, const In* __restrict in, int64_t channel_stride,
                                int64_t count, const Accumulate<In, Out>* scale,
                                const Accumulate<In, Out>* shift) {
  const In *red = in, *green = in + channel_stride, *blue = in + 2 * channel_stride;
  const auto a0 = scale[0], a1 = scale[1], a2 = scale[2];
  const auto b0 = shift[0], b1 = shift[1], b2 = shift[2];
  for (int64_t i = 0; i < count; ++i) {
    out[3 * i] = normalise<Out>(red[i], a0, b0);
    out[3 * i + 1] = normalise<Out>(green[i], a1, b1);
    out[3 * i + 2] = normalise<Out>(blue[i], a2, b2);
  }
}

template <typename In, typename Out>
class Writer {
 public:
  explicit Writer(const Call& call)
      : canvas_(call.canvas),
        strides_(call.strides),
        out_(call.out.mutable_data_ptr<Out>()),
        images_(call.images.const_data_ptr<In>()),
        scale_(call.scale.const_data_ptr<Accumulate<In, Out>>()),
        shift_(call.shift.const_data_ptr<Accumulate<In, Out>>()) {}

  // Writes a region of one plane: the patch where it lies inside, zero elsewhere. The region is the
  // whole plane or one cell, so that the patch's columns lie inside it or outside, never half.
  void write(int64_t plane, const Region& region, const Region& patch) const {
    const bool holds_patch = region.left <= patch.left && patch.right <= region.right;
    for (int64_t y = region.top; y < region.bottom; ++y) {
      Out* row = out_ + plane * canvas_.plane_size() + y * canvas_.width();
      if (holds_patch && patch.top <= y && y < patch.bottom) {
        std::fill(row + region.left, row + patch.left, Out(0));
        write_patch_row(plane, y - patch.top, row + patch.left);
        std::fill(row + patch.right, row + region.right, Out(0));
      } else {
        std::fill(row + region.left, row + region.right, Out(0));
      }
    }
  }

 private:
  void write_patch_row(int64_t plane, int64_t y, Out* row) const {
    const int64_t image = plane / canvas_.planes_per_image();
    const int64_t first = plane % canvas_.planes_per_image();
    const int64_t channels = canvas_.channels_last ? canvas_.channels : 1;
    const In* in = images_ + image * strides_.image + y * strides_.row;
    if (channels == 3 && strides_.column == 1) {
      write_rgb(row, in, strides_.channel, canvas_.cell_width / 3, scale_, shift_);
      return;
    }
    for (int64_t i = 0; i < channels; ++i) {
      const int64_t channel = first + i;
      write_pixels(row + i, channels, in + channel * strides_.channel, strides_.column,
                   canvas_.cell_width / channels, scale_[channel], shift_[channel]);
    }
  }

  const Canvas canvas_;
  const Strides strides_;
  Out* const out_;
  const In* const images_;
  const Accumulate<In, Out>* const scale_;
  const Accumulate<In, Out>* const shift_;
};

const int64_t* checked_cells(const char* name, const at::Tensor& locations, const Canvas& canvas) {
  const int64_t* cells = locations.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < locations.numel(); ++i)
    TORCH_CHECK_VALUE(0 <= cells[i] && cells[i] < canvas.cells(), name, ": expected cells from 0 to ",
                      canvas.cells() - 1, ", got ", cells[i], " at index ", i);
  return cells;
}

void run(const Call& call) {
  const Canvas& canvas = call.canvas;
  const int64_t* to = checked_cells("locations", call.locations, canvas);
  const int64_t* from = nullptr;
  int64_t work = canvas.plane_size();
  if (call.placed.defined()) {
    from = checked_cells("placed", call.placed, canvas);
    work = 2 * canvas.cell_height * canvas.cell_width;
  } else {
    use_huge_pages(call.out);
  }
  with_dtypes(call, [&](auto in, auto out) {
    const Writer<decltype(in), decltype(out)> writer(call);
    at::parallel_for(0, call.planes(), grain_size(work), [&](int64_t begin, int64_t end) {
      for (int64_t plane = begin; plane < end; ++plane) {
        const int64_t image = plane / canvas.planes_per_image();
        const Region patch = canvas.cell(to[image]);
        if (!from) {
          writer.write(plane, canvas.whole(), patch);
        } else {
          if (from[image] != to[image]) writer.write(plane, canvas.cell(from[image]), patch);
          writer.write(plane, patch, patch);
        }
      }
    });
  });
}

}  // namespace

TORCH_LIBRARY_IMPL(gpe, CPU, library) {
  library.impl("place_on_grid", &place_on_grid<run>);
  library.impl("place_on_grid_", &place_on_grid_<run>);
}

}  // namespace gpe::place_on_grid
