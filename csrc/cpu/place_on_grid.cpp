#include "../place_on_grid.h"

#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <cstring>

#include "cpu.h"

namespace gpe::place_on_grid {
namespace {

constexpr size_t kLargestCache = 32 << 20;

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
// it vectorises, which channel after channel does not.
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

  void clear_planes(int64_t begin, int64_t end) const {
    std::memset(out_ + begin * canvas_.plane_size(), 0,
                (end - begin) * canvas_.plane_size() * sizeof(Out));
  }

  void clear_cell(int64_t plane, int64_t location) const {
    for_rows(plane, location, [&](Out* row, int64_t) {
      std::fill(row, row + canvas_.cell_width, Out(0));
    });
  }

  void write_cell(int64_t plane, int64_t location) const {
    for_rows(plane, location, [&](Out* row, int64_t y) { write_patch_row(plane, y, row); });
  }

 private:
  template <typename Action>
  void for_rows(int64_t plane, int64_t location, Action action) const {
    const Region cell = canvas_.cell(location);
    Out* row = out_ + plane * canvas_.plane_size() + cell.top * canvas_.width() + cell.left;
    for (int64_t y = 0; y < canvas_.cell_height; ++y, row += canvas_.width()) action(row, y);
  }

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
  // What no cache holds is cleared in long runs, which the C library writes past the caches; what
  // one holds is cleared plane by plane, so that the patch lands in lines that are still there.
  const bool streamed = !from && call.out.nbytes() > kLargestCache;
  with_dtypes(call, [&](auto in, auto out) {
    const Writer<decltype(in), decltype(out)> writer(call);
    at::parallel_for(0, call.planes(), grain_size(work), [&](int64_t begin, int64_t end) {
      if (streamed) writer.clear_planes(begin, end);
      for (int64_t plane = begin; plane < end; ++plane) {
        const int64_t image = plane / canvas.planes_per_image();
        if (!from && !streamed) writer.clear_planes(plane, plane + 1);
        if (from && from[image] != to[image]) writer.clear_cell(plane, from[image]);
        writer.write_cell(plane, to[image]);
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
