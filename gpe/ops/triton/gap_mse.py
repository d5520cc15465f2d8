"""gap_mse in Triton, with the passes of ``csrc/cuda/gap_mse.cu``."""

import torch
from torch import Tensor

from gpe.ops.gap_mse import fake
from gpe.ops.triton.pooling import pool_maps


@torch.library.custom_op("gpe_triton::gap_mse", mutates_args=())
def gap_mse(features_a: Tensor, features_b: Tensor | None) -> tuple[Tensor, Tensor]:
    a, b = features_a.tensor_split(2) if features_b is None else (features_a, features_b)
    dtype = torch.promote_types(a.dtype, torch.float32)
    pooled = a.new_empty((2, *a.shape[:2]), dtype=dtype)
    if pooled.numel() == 0:
        return pooled, pooled.new_full((), float("nan"))
    errors = pool_maps(a, b, 1 / (a.shape[2] * a.shape[3]), pooled)
    return pooled, errors.sum() / (len(a) * a.shape[1])


def _setup_context(ctx, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    features_a, features_b = inputs
    ctx.size, ctx.dtype, ctx.stacked = features_a.shape[2:], features_a.dtype, features_b is None
    ctx.save_for_backward(output[0])


def _backward(ctx, pooled_gradient: Tensor, mse_gradient: Tensor) -> tuple[Tensor, Tensor | None]:
    """As in ``csrc/gap_mse.cpp``."""
    (pooled,) = ctx.saved_tensors
    height, width = ctx.size  # their product, not numel(), which would fix them when compiled
    error, factor = pooled - pooled.flip(0), 2 / max(1, pooled[0].numel())
    gradient = pooled_gradient.addcmul(error, mse_gradient, value=factor) / (height * width)
    gradient = gradient.to(ctx.dtype)[..., None, None].expand(*pooled.shape, height, width)
    return (gradient.flatten(0, 1), None) if ctx.stacked else gradient.unbind()


gap_mse.register_fake(fake)
gap_mse.register_autograd(_backward, setup_context=_setup_context)
