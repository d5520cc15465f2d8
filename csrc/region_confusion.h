// What the CPU and the CUDA kernel of region_confusion share: where an upsampled pixel takes its
// logits from, which labels count, and the call that leads to either.
#pragma once

#include <ATen/Dispatch.h>
#include <ATen/Dispatch_v2.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <tuple>
#include <type_traits>
#include <vector>

#include "checks.h"
#include "host_device.h"

namespace gpe::region_confusion {

// Type of the arithmetic.
template <typename T>
using Accumulate = std::conditional_t<std::is_same_v<T, double>, double, float>;

// The rows (or columns) between which an upsampled one lies: (1 - weight) * low + weight * high.
template <typename A>
struct Source {
  int64_t low, high;
  A weight;
};

// The map of torch's bilinear interpolation with align_corners=False.
template <typename A>
struct Axis {
  int64_t sources;
  A scale;

  Axis(int64_t sources, int64_t targets)
      : sources(sources), scale(static_cast<A>(sources) / static_cast<A>(targets)) {}

  GPE_HOST_DEVICE Source<A> at(int64_t target) const {
    const A half = 0.5, position = scale * (static_cast<A>(target) + half) - half;
    if (!(position > 0)) return {0, 0, 0};
    const int64_t low = static_cast<int64_t>(position);
    if (low >= sources - 1) return {sources - 1, sources - 1, 0};
    const A weight = position - static_cast<A>(low);
    return {low, weight > 0 ? low + 1 : low, weight};
  }
};

// The build turns fused multiply-adds off, so that every device rounds alike.
template <typename A>
GPE_HOST_DEVICE A between(A low, A high, A weight) {
  return (1 - weight) * low + weight * high;
}

// What an integer counts as: its class, `ignored`, or `wrong`.
struct Codes {
  int64_t classes, ignore_index, ignored, wrong;

  // Labels of the ignored are one row of a table, wrong labels the next.
  static Codes of_labels(int64_t classes, int64_t ignore_index) {
    return {classes, ignore_index, classes, classes + 1};
  }

  // Wrong predictions are a column.
  static Codes of_predictions(int64_t classes) { return {classes, -1, classes, classes}; }

  GPE_HOST_DEVICE int64_t operator()(int64_t value) const {
    if (value == ignore_index) return ignored;
    return value >= 0 && value < classes ? value : wrong;
  }
};

// Rows and columns of a table of counts: the classes, and the codes beyond.
GPE_HOST_DEVICE int64_t table_side(int64_t classes) { return classes + 2; }

constexpr int64_t kMostClasses = 32768;

struct Rectangle {
  int64_t top, left, bottom, right;

  GPE_HOST_DEVICE bool holds(int64_t y, int64_t x) const {
    return top <= y && y < bottom && left <= x && x < right;
  }
};

// A call whose arguments were checked. confusion [R,K,K] and wrong [3] are zeros, to be added to:
// wrong is above 0 where labels, predictions or logits are no classes or not finite.
struct Call {
  at::Tensor logits, labels;
  std::vector<Rectangle> regions;
  int64_t classes, ignore_index;
  at::Tensor confusion, wrong;

  bool predicted() const { return !logits.is_floating_point(); }
  int64_t images() const { return labels.size(0); }
  int64_t height() const { return labels.size(1); }
  int64_t width() const { return labels.size(2); }
};

// The sorted borders of regions along an axis: between two neighbours, all pixels of a row (or
// column) lie in the same regions.
inline std::vector<int64_t> borders(const std::vector<Rectangle>& regions,
                                    int64_t Rectangle::*first, int64_t Rectangle::*last) {
  std::vector<int64_t> found;
  for (const Rectangle& region : regions) found.insert(found.end(), {region.*first, region.*last});
  std::sort(found.begin(), found.end());
  found.erase(std::unique(found.begin(), found.end()), found.end());
  return found;
}

inline Call checked(const at::Tensor& logits, const at::Tensor& labels, at::IntArrayRef regions,
                    int64_t classes, int64_t ignore_index) {
  expect_rank("labels", labels, 3);
  TORCH_CHECK_TYPE(at::isIntegralType(labels.scalar_type(), /*includeBool=*/false),
                   "labels: expected integers, got ", labels.scalar_type());
  expect_device("labels", labels, logits);
  expect_positive("num_classes", classes);
  TORCH_CHECK_VALUE(classes <= kMostClasses, "num_classes: expected at most ", kMostClasses);
  if (logits.is_floating_point()) {
    expect_rank("logits", logits, 4);
    expect_shape("logits", logits, {labels.size(0), classes, logits.size(2), logits.size(3)});
    expect_positive("height of logits", logits.size(2));
    expect_positive("width of logits", logits.size(3));
  } else {
    TORCH_CHECK_TYPE(at::isIntegralType(logits.scalar_type(), /*includeBool=*/false),
                     "logits: expected floating point or integers, got ", logits.scalar_type());
    expect_shape("logits", logits, labels.sizes());
  }
  TORCH_CHECK_VALUE(regions.size() % 4 == 0, "regions: expected four numbers each");
  std::vector<Rectangle> rectangles;
  for (size_t i = 0; i < regions.size(); i += 4) {
    const Rectangle region = {regions[i], regions[i + 1], regions[i + 2], regions[i + 3]};
    TORCH_CHECK_VALUE(0 <= region.top && region.top < region.bottom &&
                          region.bottom <= labels.size(1) && 0 <= region.left &&
                          region.left < region.right && region.right <= labels.size(2),
                      "regions: expected rectangles with pixels, inside the labels, got ",
                      regions.slice(i, 4));
    rectangles.push_back(region);
  }
  const auto options = labels.options().dtype(at::kLong);
  const int64_t count = rectangles.size();
  return {logits,       labels,
          rectangles,   classes,
          ignore_index, at::zeros({count, classes, classes}, options),
          at::zeros({3}, options)};
}

// The operator of torch.ops.gpe, for the kernel of a device.
template <void (*kKernel)(const Call&)>
std::tuple<at::Tensor, at::Tensor> region_confusion(const at::Tensor& logits,
                                                    const at::Tensor& labels,
                                                    at::IntArrayRef regions, int64_t num_classes,
                                                    int64_t ignore_index) {
  const Call call = checked(logits, labels, regions, num_classes, ignore_index);
  if (call.images() > 0 && !call.regions.empty()) kKernel(call);
  return {call.confusion, call.wrong};
}

// Calls run(T{}) with the type of the logits.
template <typename Run>
void with_dtype(const Call& call, Run run) {
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, call.logits.scalar_type(),
                                  "region_confusion logits", [&] { run(scalar_t{}); });
}

// Calls run(T{}) with the type of labels or predictions.
template <typename Run>
void with_integers(const at::Tensor& integers, Run run) {
  AT_DISPATCH_V2(integers.scalar_type(), "region_confusion labels",
                 AT_WRAP([&] { run(scalar_t{}); }), AT_EXPAND(AT_INTEGRAL_TYPES),
                 AT_EXPAND(AT_BAREBONES_UNSIGNED_TYPES));
}

// As int64; what does not fit is no class, and no ignore_index but the largest.
template <typename T>
GPE_HOST_DEVICE int64_t as_int64(T value) {
  if constexpr (std::is_same_v<T, uint64_t>)
    return value > uint64_t(INT64_MAX) ? INT64_MAX : int64_t(value);
  return static_cast<int64_t>(value);
}

}  // namespace gpe::region_confusion
