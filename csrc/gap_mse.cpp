// The gradient of gap_mse, on every device: of small maps Python would cost more than the kernels.
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <optional>
#include <tuple>
#include <vector>

namespace gpe::gap_mse {
namespace {

using at::MemoryFormat;
using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

std::tuple<Tensor, Tensor> forward_alone(const Tensor& features_a,
                                         const std::optional<Tensor>& features_b) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("gpe::gap_mse", "")
                             .typed<decltype(forward_alone)>();
  at::AutoDispatchBelowADInplaceOrView below;
  return op.call(features_a, features_b);
}

// The layout in which the layer before wants its gradient written out; Preserve where it does not.
// Batch norm on the CPU takes an expanded one too, for which it needs several times as long.
MemoryFormat wanted_format(const Tensor& features) {
  const auto& layer = features.grad_fn();
  const bool wanted = features.is_cpu() && layer && layer->name() == "NativeBatchNormBackward0";
  return wanted ? features.suggest_memory_format() : MemoryFormat::Preserve;
}

Tensor as_wanted(const Tensor& gradient, int64_t format) {
  const auto layout = static_cast<MemoryFormat>(format);
  return layout == MemoryFormat::Preserve ? gradient : gradient.contiguous(layout);
}

class GapMse : public torch::autograd::Function<GapMse> {
 public:
  static variable_list forward(AutogradContext* context, const Tensor& features_a,
                               const std::optional<Tensor>& features_b) {
    const auto [pooled, mse] = forward_alone(features_a, features_b);
    context->save_for_backward({pooled});
    auto& saved = context->saved_data;
    saved["dtype"] = features_a.scalar_type();
    saved["height"] = features_a.sym_size(2);
    saved["width"] = features_a.sym_size(3);
    std::vector<int64_t> formats = {static_cast<int64_t>(wanted_format(features_a))};
    if (features_b) formats.push_back(static_cast<int64_t>(wanted_format(*features_b)));
    saved["formats"] = formats;
    return {pooled, mse};
  }

  // Of a pixel: (dL/dz_a + 2/(N*C) * (z_a - z_b) * dL/dmse) / (H*W), of b with a minus.
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const Tensor pooled = context->get_saved_variables()[0];
    const auto images = pooled.sym_size(1), channels = pooled.sym_size(2);
    auto& saved = context->saved_data;
    const auto height = saved["height"].toSymInt(), width = saved["width"].toSymInt();
    const auto formats = saved["formats"].toIntVector();

    const Tensor error = pooled.sub(pooled.flip(0));
    const auto factor = c10::SymFloat(2.0) / c10::SymFloat(images * channels);
    Tensor gradient = gradients[0].addcmul(error, gradients[1], factor);
    gradient = gradient.div_(height * width).to(saved["dtype"].toScalarType());
    gradient = gradient.unsqueeze(-1).unsqueeze(-1);
    gradient = gradient.expand_symint({2, images, channels, height, width});
    if (formats.size() == 1) return {as_wanted(gradient.flatten(0, 1), formats[0]), Tensor()};
    return {as_wanted(gradient.select(0, 0), formats[0]),
            as_wanted(gradient.select(0, 1), formats[1])};
  }
};

std::tuple<Tensor, Tensor> gap_mse(const Tensor& features_a,
                                   const std::optional<Tensor>& features_b) {
  const variable_list results = GapMse::apply(features_a, features_b);
  return {results[0], results[1]};
}

}  // namespace

TORCH_LIBRARY_IMPL(gpe, Autograd, library) { library.impl("gap_mse", &gap_mse); }

}  // namespace gpe::gap_mse
