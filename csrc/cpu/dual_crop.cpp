#include "../dual_crop.h"

#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "cpu.h"

namespace gpe::dual_crop {
namespace {

// These hold the loops that touch every pixel, and so are compiled for several instruction sets.
// The pixels of a row are first put into the order of the crop, as bytes, and then normalised.

// Pixel after pixel of kChannels channels side by side. With a step known to the compiler it
// vectorises; 0 stands for any.
template <int64_t kChannels, int64_t kStep>
GPE_MULTIVERSION void copy_pixels(uint8_t* __restrict out, const uint8_t* __restrict in,
                                  int64_t channel_stride, int64_t step, int64_t count) {
  if (kStep != 0) step = kStep;
  for (int64_t i = 0; i < count; ++i)
    for (int64_t channel = 0; channel < kChannels; ++channel)
      out[kChannels * i + channel] = in[i * step + channel * channel_stride];
}

template <typename Out, typename Arithmetic>
GPE_MULTIVERSION void normalise_row(Out* __restrict out, const uint8_t* __restrict pixels,
                                    const Arithmetic* __restrict scale,
                                    const Arithmetic* __restrict shift, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = normalise<Out>(pixels[i], scale[i], shift[i]);
}

template <int64_t kChannels>
void copy_pixels(uint8_t* out, const uint8_t* in, int64_t channel_stride, int64_t step,
                 int64_t count) {
  const auto copy = step == 1    ? copy_pixels<kChannels, 1>
                    : step == -1 ? copy_pixels<kChannels, -1>
                    : step == 3  ? copy_pixels<kChannels, 3>
                    : step == -3 ? copy_pixels<kChannels, -3>
                                 : copy_pixels<kChannels, 0>;
  copy(out, in, channel_stride, step, count);
}

// Values of each channel as a plane's rows hold them, for one plane after the other.
template <typename T>
std::vector<T> along_rows(const at::Tensor& channels, const Crops& crops) {
  const T* values = channels.const_data_ptr<T>();
  std::vector<T> rows(crops.planes_per_crop() * crops.row_size());
  for (size_t i = 0; i < rows.size(); ++i)
    rows[i] = values[crops.channels_last ? i % crops.channels : i / crops.columns.crop];
  return rows;
}

template <typename Out>
class Writer {
 public:
  explicit Writer(const Call& call)
      : crops_(call.crops),
        strides_(call.strides),
        out_(call.out.mutable_data_ptr<Out>()),
        images_(call.images.const_data_ptr<uint8_t>()),
        offsets_(call.offsets.const_data_ptr<int64_t>()),
        flips_(call.flips.const_data_ptr<bool>()),
        scale_(along_rows<Arithmetic>(call.scale, call.crops)),
        shift_(along_rows<Arithmetic>(call.shift, call.crops)) {}

  void write_planes(int64_t begin, int64_t end) const {
    std::vector<uint8_t> pixels(crops_.row_size());
    std::vector<int64_t> columns(crops_.columns.crop);
    for (int64_t plane = begin; plane < end; ++plane) {
      const int64_t crop = plane / crops_.planes_per_crop();
      const int64_t channel = plane % crops_.planes_per_crop();
      const uint8_t* image =
          images_ + crop % crops_.images * strides_.image + channel * strides_.channel;
      const int64_t top = offsets_[2 * crop], left = offsets_[2 * crop + 1];
      const int64_t first = channel * crops_.row_size();
      const Run run = find_columns(left, flips_[crop], columns.data());
      Out* row = out_ + plane * crops_.plane_size();
      for (int64_t y = 0; y < crops_.rows.crop; ++y, row += crops_.row_size()) {
        const int64_t source = crops_.rows.source(top + y, crops_.mode);
        if (source < 0) std::fill(pixels.begin(), pixels.end(), 0);
        else gather(pixels.data(), image + source * strides_.row, columns.data(), run);
        normalise_row(row, pixels.data(), &scale_[first], &shift_[first], crops_.row_size());
      }
    }
  }

 private:
  using Arithmetic = Accumulate<uint8_t, Out>;

  // Columns of a crop that lie inside the image; those before and after are padding.
  struct Run {
    int64_t begin, end, step;
  };

  Run find_columns(int64_t left, bool flip, int64_t* columns) const {
    const Axis& axis = crops_.columns;
    for (int64_t x = 0; x < axis.crop; ++x)
      columns[flip ? axis.crop - 1 - x : x] = axis.source(left + x, crops_.mode);
    const int64_t before = std::clamp<int64_t>(axis.padding - left, 0, axis.crop);
    const int64_t inside = std::clamp<int64_t>(axis.padding + axis.side - left, 0, axis.crop);
    if (flip) return {axis.crop - inside, axis.crop - before, -strides_.column};
    return {before, inside, strides_.column};
  }

  // Puts the pixels of an image's row into the order of the crop: the padding, and whatever has no
  // faster way, one by one.
  void gather(uint8_t* pixels, const uint8_t* in, const int64_t* columns, const Run& run) const {
    const int64_t channels = crops_.channels_in_row(), count = run.end - run.begin;
    const auto copy_each = [&](int64_t begin, int64_t end) {
      for (int64_t x = begin; x < end; ++x)
        for (int64_t i = 0; i < channels; ++i)
          pixels[x * channels + i] =
              columns[x] < 0 ? 0 : in[columns[x] * strides_.column + i * strides_.channel];
    };
    copy_each(0, run.begin);
    if (count > 0) {
      uint8_t* out = pixels + run.begin * channels;
      const uint8_t* begin = in + columns[run.begin] * strides_.column;
      if (run.step == channels && (channels == 1 || strides_.channel == 1)) {
        std::memcpy(out, begin, count * channels);
      } else if (channels == 1) {
        copy_pixels<1>(out, begin, 1, run.step, count);
      } else if (channels == 3) {
        copy_pixels<3>(out, begin, strides_.channel, run.step, count);
      } else {
        copy_each(run.begin, run.end);
      }
    }
    copy_each(run.end, crops_.columns.crop);
  }

  const Crops crops_;
  const Strides strides_;
  Out* const out_;
  const uint8_t* const images_;
  const int64_t* const offsets_;
  const bool* const flips_;
  const std::vector<Arithmetic> scale_, shift_;
};

void expect_inside(const Call& call) {
  const Crops& crops = call.crops;
  const int64_t* offsets = call.offsets.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < call.out.size(0); ++i)
    TORCH_CHECK_VALUE(crops.inside(offsets[2 * i], offsets[2 * i + 1]),
                      "offsets: expected rows from 0 to ", crops.rows.last_offset(),
                      " and columns from 0 to ", crops.columns.last_offset(), ", got [",
                      offsets[2 * i], ", ", offsets[2 * i + 1], "] at index [", i / crops.images,
                      ", ", i % crops.images, "]");
}

void run(const Call& call) {
  expect_inside(call);
  use_huge_pages(call.out);
  with_dtype(call, [&](auto out) {
    const Writer<decltype(out)> writer(call);
    at::parallel_for(0, call.planes(), grain_size(call.crops.plane_size()),
                     [&](int64_t begin, int64_t end) { writer.write_planes(begin, end); });
  });
}

}  // namespace

TORCH_LIBRARY_IMPL(gpe, CPU, library) { library.impl("dual_crop", &dual_crop<run>); }

}  // namespace gpe::dual_crop
