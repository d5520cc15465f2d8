// Every operator's schema, and the module gpe._C.
#include <pybind11/pybind11.h>
#include <torch/library.h>

#include <string>

TORCH_LIBRARY(gpe, library) {
  library.def("gap_mse(Tensor features_a, Tensor? features_b) -> (Tensor pooled, Tensor mse)");
  library.def(
      "flip_difference(Tensor features, Tensor mirrored, Tensor? total, Tensor? absolute_total)"
      " -> (Tensor difference, Tensor total_out, Tensor absolute_total_out)");
  library.def("mask_channels(Tensor features, Tensor masked) -> Tensor");
  library.def("mask_channels_(Tensor(a!) features, Tensor masked) -> ()");
  library.def(
      "dual_crop(Tensor images, Tensor offsets, Tensor flips, int[2] size, int[2] padding,"
      " str padding_mode, Tensor scale, Tensor shift, ScalarType dtype, bool channels_last)"
      " -> Tensor");
  library.def(
      "place_on_grid(Tensor images, Tensor locations, int grid_size, Tensor scale, Tensor shift,"
      " ScalarType dtype, bool channels_last) -> Tensor");
  library.def(
      "place_on_grid_(Tensor(a!) canvas, Tensor? placed, Tensor images, Tensor locations,"
      " int grid_size, Tensor scale, Tensor shift) -> ()");
  library.def(
      "region_confusion(Tensor logits, Tensor labels, int[] regions, int num_classes,"
      " int ignore_index) -> (Tensor confusion, Tensor wrong)");
}

namespace {

std::string cpu_instructions() {
#if defined(__x86_64__) && defined(__GNUC__)
  if (__builtin_cpu_supports("avx512f")) return "AVX-512";
  if (__builtin_cpu_supports("avx2")) return "AVX2";
#endif
  return "baseline";
}

}  // namespace

PYBIND11_MODULE(_C, module) {
  module.doc() = "gpe's compiled kernels; importing it registers torch.ops.gpe.*";
  module.def("cpu_instructions", &cpu_instructions,
             "The instruction set that the CPU kernels use on this processor.");
}
