"""gap_mse in Triton, with the passes of ``csrc/cuda/gap_mse.cu``."""

import torch
from torch import Tensor

from gpe.ops.gap_mse import register
from gpe.ops.triton.pooling import pool_maps


@torch.library.custom_op("gpe_triton::gap_mse", mutates_args=())
def gap_mse(features_a: Tensor, features_b: Tensor | None) -> tuple[Tensor, Tensor]:
    stacked = features_b is None
    a, b = features_a.tensor_split(2) if stacked else (features_a, features_b)
    dtype = torch.promote_types(a.dtype, torch.float32)
    pooled = a.new_empty((2, *a.shape[:2]), dtype=dtype)
    if pooled.numel() == 0:
        return pooled, pooled.new_full((), float("nan"))
    errors = pool_maps(a, b, 1 / (a.shape[2] * a.shape[3]), pooled)
    return pooled, errors.sum() / (len(a) * a.shape[1])


register("gpe_triton")
