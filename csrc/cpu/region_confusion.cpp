#include "../region_confusion.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <mutex>
#include <utility>
#include <vector>

#include "region_rows.h"

namespace gpe::region_confusion {
namespace {

// A row of pixels after the other: first the predictions, then the pairs of label and prediction,
// then the counts. Where the same class wins in two neighbouring columns of the logits it wins at
// every pixel between, since all classes are linear there: few pixels look at all classes.
constexpr int64_t kMostPixels = int64_t(1) << 31;  // that a table can count

// What is the same for every row: where its pixels lie and which regions they belong to.
class Plan {
 public:
  // Rows that lie in the same regions, and runs of columns that do.
  struct Band {
    struct Span {
      int64_t begin, end;
      std::vector<int64_t> regions;
    };
    int64_t top, bottom;
    std::vector<Span> spans;
  };

  // Where regions are not told apart, a span is of any number of them, and names none.
  Plan(const Call& call, bool apart) {
    const std::vector<int64_t> tops = borders(call.regions, &Rectangle::top, &Rectangle::bottom);
    const std::vector<int64_t> lefts = borders(call.regions, &Rectangle::left, &Rectangle::right);
    left_ = lefts.front();
    right_ = lefts.back();
    std::vector<Rectangle> sorted = call.regions;
    std::sort(sorted.begin(), sorted.end(),
              [](const Rectangle& a, const Rectangle& b) { return a.left < b.left; });
    for (size_t i = 0; i + 1 < tops.size(); ++i) {
      Band band = {tops[i], tops[i + 1],
                   apart ? spans_apart(call.regions, tops[i], lefts) : spans(sorted, tops[i])};
      if (band.spans.empty()) continue;
      rows_ += band.bottom - band.top;
      most_spans_ = std::max<int64_t>(most_spans_, band.spans.size());
      bands_.push_back(std::move(band));
    }
  }

  int64_t left() const { return left_; }
  int64_t right() const { return right_; }
  int64_t rows() const { return rows_; }  // of an image, that lie in some region
  int64_t most_spans() const { return most_spans_; }

  // Calls run(image, band, first, last) for rows [begin, end) of all images, a band of all images
  // after the other, and done(band) once after each.
  template <typename Run, typename Done>
  void for_each_band(int64_t images, int64_t begin, int64_t end, Run run, Done done) const {
    for (const Band& band : bands_) {
      const int64_t rows = band.bottom - band.top, stop = std::min(end, images * rows);
      for (int64_t i = std::max<int64_t>(0, begin), next; i < stop; i = next) {
        next = std::min(stop, (i / rows + 1) * rows);
        run(i / rows, band, band.top + i % rows, band.top + i % rows + next - i);
        if (next == stop) done(band);
      }
      begin -= images * rows;
      end -= images * rows;
    }
  }

 private:
  static std::vector<Band::Span> spans_apart(const std::vector<Rectangle>& regions, int64_t top,
                                             const std::vector<int64_t>& lefts) {
    std::vector<Band::Span> found;
    for (size_t j = 0; j + 1 < lefts.size(); ++j) {
      std::vector<int64_t> inside;
      for (size_t r = 0; r < regions.size(); ++r)
        if (regions[r].holds(top, lefts[j])) inside.push_back(r);
      if (!inside.empty()) found.push_back({lefts[j], lefts[j + 1], std::move(inside)});
    }
    return found;
  }

  static std::vector<Band::Span> spans(const std::vector<Rectangle>& sorted, int64_t top) {
    std::vector<Band::Span> found;
    for (const Rectangle& region : sorted) {
      if (!region.holds(top, region.left)) continue;
      if (found.empty() || found.back().end < region.left)
        found.push_back({region.left, region.right, {}});
      found.back().end = std::max(found.back().end, region.right);
    }
    return found;
  }

  int64_t left_, right_, rows_ = 0, most_spans_ = 0;
  std::vector<Band> bands_;
};

// Predicts rows from logits of type T, for one thread.
template <typename T>
class Upsampled {
 public:
  using A = Accumulate<T>;

  Upsampled(const Call& call, const Plan& plan)
      : logits_(call.logits),
        classes_(call.classes),
        columns_(padded(call.logits.size(3))),
        rows_(call.logits.size(2), call.height()),
        weights_(padded(call.width()) + kLanes),
        sources_{std::vector<A>(classes_ * columns_), std::vector<A>(classes_ * columns_)},
        mixed_(classes_ * columns_),
        winners_(columns_) {
    const Axis<A> columns(call.logits.size(3), call.width());
    for (int64_t x = plan.left(); x < plan.right(); ++x) {
      const Source<A> source = columns.at(x);
      weights_[x] = source.weight;
      if (segments_.empty() || segments_.back().low != source.low ||
          segments_.back().high != source.high) {
        segments_.push_back({x, x, source.low, source.high});
      }
      ++segments_.back().end;
    }
  }

  template <typename Pair>
  void operator()(int64_t image, int64_t y, Pair* pairs) {
    const Source<A> source = rows_.at(y);
    const A* low = row(image, source.low);
    const A* high = source.weight > 0 ? row(image, source.high) : low;
    mix_rows(low, high, source.weight, classes_, columns_, mixed_.data(), winners_.data());
    win_segments(segments_, weights_.data(), mixed_.data(), winners_.data(), classes_, columns_,
                 pairs);
  }

 private:
  // A row of the logits as A; even and odd rows have a place of their own.
  const A* row(int64_t image, int64_t y) {
    std::vector<A>& place = sources_[y % 2];
    if (held_[y % 2] == std::array{image, y}) return place.data();
    held_[y % 2] = {image, y};
    const T* from = logits_.const_data_ptr<T>() + image * logits_.stride(0) + y * logits_.stride(2);
    for (int64_t k = 0; k < classes_; ++k)
      read_row(from + k * logits_.stride(1), logits_.stride(3), logits_.size(3),
               place.data() + k * columns_);
    return place.data();
  }

  const at::Tensor logits_;
  const int64_t classes_, columns_;
  const Axis<A> rows_;
  std::vector<Segment> segments_;
  std::vector<A> weights_;
  std::array<std::vector<A>, 2> sources_;
  std::array<std::array<int64_t, 2>, 2> held_ = {{{-1, -1}, {-1, -1}}};
  std::vector<A> mixed_;
  std::vector<Whole<A>> winners_;
};

template <typename Pair>
void add_row(const at::Tensor& integers, int64_t image, int64_t y, const Plan& plan,
             const Codes& codes, int64_t scale, Pair* pairs) {
  with_integers(integers, [&](auto type) {
    using T = decltype(type);
    const T* row = integers.const_data_ptr<T>() + image * integers.stride(0) +
                   y * integers.stride(1) + plan.left() * integers.stride(2);
    add_codes(row, integers.stride(2), plan.right() - plan.left(), codes, scale,
              pairs + plan.left());
  });
}

// Takes rows of predictions that are there already.
class Predicted {
 public:
  Predicted(const Call& call, const Plan& plan) : call_(call), plan_(plan) {}

  template <typename Pair>
  void operator()(int64_t image, int64_t y, Pair* pairs) const {
    std::fill(pairs + plan_.left(), pairs + plan_.right(), Pair(0));
    add_row(call_.logits, image, y, plan_, Codes::of_predictions(call_.classes), 1, pairs);
  }

 private:
  const Call& call_;
  const Plan& plan_;
};

// The counts of one thread, for the spans of one band at a time.
template <typename Pair>
class Counter {
 public:
  Counter(const Call& call, const Plan& plan)
      : call_(call),
        plan_(plan),
        side_(table_side(call.classes)),
        tables_(plan.most_spans() * kTables * side_ * side_),
        pairs_(padded(call.width()) + kLanes) {}

  // Counts rows [first, last) of an image.
  template <typename Predict>
  void operator()(int64_t image, const Plan::Band& band, int64_t first, int64_t last,
                  Predict& predict) {
    const Codes codes = Codes::of_labels(call_.classes, call_.ignore_index);
    for (int64_t y = first; y < last; ++y) {
      predict(image, y, pairs_.data());
      add_row(call_.labels, image, y, plan_, codes, side_, pairs_.data());
      uint32_t* tables = tables_.data();
      for (const Plan::Band::Span& span : band.spans) {
        count_pairs(pairs_.data() + span.begin, span.end - span.begin, side_ * side_, tables);
        tables += kTables * side_ * side_;
      }
      pixels_ += call_.width();
      if (pixels_ + call_.width() > kMostPixels) flush(band);
    }
  }

  // Adds the counts to those of all threads.
  void flush(const Plan::Band& band) {
    static std::mutex mutex;
    const std::lock_guard lock(mutex);
    int64_t* const confusion = call_.confusion.mutable_data_ptr<int64_t>();
    int64_t* const wrong = call_.wrong.mutable_data_ptr<int64_t>();
    const int64_t classes = call_.classes, size = side_ * side_;
    for (size_t s = 0; s < band.spans.size(); ++s) {
      const uint32_t* table = tables_.data() + s * kTables * size;
      const auto count = [&](int64_t label, int64_t prediction) {
        int64_t sum = 0;
        for (int64_t t = 0; t < kTables; ++t) sum += table[t * size + label * side_ + prediction];
        return sum;
      };
      for (int64_t i = 0; i < classes; ++i) {
        for (int64_t j = 0; j < classes; ++j) {
          const int64_t pixels = count(i, j);
          for (const int64_t region : band.spans[s].regions)
            confusion[(region * classes + i) * classes + j] += pixels;
        }
        wrong[1] += count(i, classes);
      }
      for (int64_t j = 0; j < side_; ++j) wrong[0] += count(classes + 1, j);
    }
    std::fill(tables_.begin(), tables_.end(), 0);
    pixels_ = 0;
  }

 private:
  const Call& call_;
  const Plan& plan_;
  const int64_t side_;
  int64_t pixels_ = 0;
  std::vector<uint32_t> tables_;
  std::vector<Pair> pairs_;
};

template <typename Predict>
void count_all(const Call& call, bool apart = true) {
  const Plan plan(call, apart);
  const auto count = [&](auto pair) {
    const auto grain = grain_size(call.width());
    at::parallel_for(0, call.images() * plan.rows(), grain, [&](int64_t begin, int64_t end) {
      Predict predict(call, plan);
      Counter<decltype(pair)> counter(call, plan);
      plan.for_each_band(
          call.images(), begin, end,
          [&](auto image, const auto& band, auto first, auto last) {
            counter(image, band, first, last, predict);
          },
          [&](const auto& band) { counter.flush(band); });
    });
  };
  const int64_t side = table_side(call.classes);
  side * side <= UINT16_MAX ? count(uint16_t()) : count(uint32_t());
}

// Whether one pass over the pixels for all regions takes less than a pass for each. Many that overlap
// cut an image into more pieces, whose tables are added to each region around them, than is worth it.
bool fit_one_pass(const Call& call) {
  const std::vector<int64_t> tops = borders(call.regions, &Rectangle::top, &Rectangle::bottom);
  const std::vector<int64_t> lefts = borders(call.regions, &Rectangle::left, &Rectangle::right);
  const auto between = [](const std::vector<int64_t>& sorted, int64_t first, int64_t last) {
    return std::lower_bound(sorted.begin(), sorted.end(), last) -
           std::lower_bound(sorted.begin(), sorted.end(), first);
  };
  const double count = call.regions.size(), side = table_side(call.classes), table = side * side;
  const double pieces = double(tops.size() - 1) * (lefts.size() - 1);
  double tables = 0, pixels = 0;
  for (const Rectangle& region : call.regions) {
    tables += double(between(tops, region.top, region.bottom)) *
              between(lefts, region.left, region.right);
    pixels += double(region.bottom - region.top) * (region.right - region.left) * call.images();
  }
  return table * (kTables * pieces + tables) + pieces * count <=
         table * (kTables + 1) * count + pixels;
}

// Pairs of label and prediction once, then each region by itself.
template <typename Pair>
void count_each(const Call& call) {
  const Plan plan(call, /*apart=*/false);
  const Codes codes = Codes::of_labels(call.classes, call.ignore_index);
  const int64_t height = call.height(), width = call.width(), rows = call.images() * height;
  const int64_t classes = call.classes, side = table_side(classes), size = side * side;
  std::vector<Pair> pairs(rows * width);
  at::parallel_for(0, rows, grain_size(width), [&](int64_t begin, int64_t end) {
    const Predicted predict(call, plan);
    for (int64_t i = begin; i < end; ++i) {
      predict(i / height, i % height, &pairs[i * width]);
      add_row(call.labels, i / height, i % height, plan, codes, side, &pairs[i * width]);
    }
  });
  at::parallel_for(0, call.regions.size(), 1, [&](int64_t begin, int64_t end) {
    std::vector<uint32_t> tables(kTables * size);
    for (int64_t r = begin; r < end; ++r) {
      int64_t* const confusion = call.confusion.mutable_data_ptr<int64_t>() + r * classes * classes;
      const Rectangle& region = call.regions[r];
      const auto flush = [&] {
        for (int64_t i = 0; i < classes * classes; ++i)
          for (int64_t t = 0; t < kTables; ++t)
            confusion[i] += tables[t * size + i / classes * side + i % classes];
        std::fill(tables.begin(), tables.end(), 0);
      };
      int64_t pixels = 0;
      for (int64_t first = 0; first < rows; first += height) {
        for (int64_t y = first + region.top; y < first + region.bottom; ++y) {
          count_pairs(&pairs[y * width + region.left], region.right - region.left, size,
                      tables.data());
          pixels += width;
          if (pixels + width <= kMostPixels) continue;
          flush();
          pixels = 0;
        }
      }
      flush();
    }
  });
}

void count_predicted(const Call& call) {
  if (fit_one_pass(call)) return count_all<Predicted>(call);
  count_all<Predicted>(call, /*apart=*/false);  // what is wrong, which counts once
  const int64_t side = table_side(call.classes);
  side * side <= UINT16_MAX ? count_each<uint16_t>(call) : count_each<uint32_t>(call);
}

template <typename T>
at::Tensor predicted(const Call& call) {
  const at::Tensor predictions = at::empty(call.labels.sizes(), at::kUInt16);
  const Plan plan(call, /*apart=*/false);
  const int64_t height = call.height(), width = call.width();
  at::parallel_for(0, call.images() * height, grain_size(width), [&](int64_t begin, int64_t end) {
    Upsampled<T> predict(call, plan);
    std::vector<uint16_t> row(padded(width) + kLanes);
    for (int64_t i = begin; i < end; ++i) {
      predict(i / height, i % height, row.data());
      std::copy_n(row.data(), width, predictions.mutable_data_ptr<uint16_t>() + i * width);
    }
  });
  return predictions;
}

template <typename T>
int64_t count_not_finite(const at::Tensor& logits) {
  const T* const data = logits.const_data_ptr<T>();
  std::atomic<int64_t> sum = 0;
  if (logits.is_non_overlapping_and_dense()) {
    at::parallel_for(0, logits.numel(), grain_size(1), [&](int64_t begin, int64_t end) {
      sum += not_finite(data + begin, end - begin, 1);
    });
    return sum;
  }
  const int64_t classes = logits.size(1), height = logits.size(2), width = logits.size(3);
  at::parallel_for(0, logits.size(0) * classes * height, grain_size(width),
                   [&](int64_t begin, int64_t end) {
                     for (int64_t i = begin; i < end; ++i) {
                       const T* row = data + i / height / classes * logits.stride(0) +
                                      i / height % classes * logits.stride(1) +
                                      i % height * logits.stride(2);
                       sum += not_finite(row, width, logits.stride(3));
                     }
                   });
  return sum;
}

void run(const Call& call) {
  if (call.predicted()) return count_predicted(call);
  with_dtype(call, [&](auto type) {
    using T = decltype(type);
    if (fit_one_pass(call)) {
      count_all<Upsampled<T>>(call);
    } else {
      Call counted = call;
      counted.logits = predicted<T>(call);
      count_predicted(counted);
    }
    call.wrong.mutable_data_ptr<int64_t>()[2] = count_not_finite<T>(call.logits);
  });
}

}  // namespace

TORCH_LIBRARY_IMPL(gpe, CPU, library) {
  library.impl("region_confusion", &region_confusion<run>);
}

}  // namespace gpe::region_confusion
