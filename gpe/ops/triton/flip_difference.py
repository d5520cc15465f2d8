"""flip_difference in Triton, with the passes of ``csrc/cuda/flip_difference.cu``."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from gpe.ops.flip_difference import register
from gpe.ops.triton.pooling import pool_maps

CHANNELS = 32  # to a program: few, since there are not many for so many multiprocessors


@torch.library.custom_op("gpe_triton::flip_difference", mutates_args=())
def flip_difference(
    features: Tensor, mirrored: Tensor, total: Tensor | None, absolute_total: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    images, channels, height, width = features.shape
    dtype = torch.promote_types(features.dtype, torch.float32)
    pooled = features.new_empty((2 * images, channels), dtype=dtype)
    difference = features.new_empty((images, channels), dtype=dtype)
    total, absolute_total = (
        features.new_zeros(channels, dtype=torch.float64) if before is None else before.clone()
        for before in (total, absolute_total)
    )
    if difference.numel():
        pool_maps(features, mirrored, 1 / (height * width), pooled)
        programs = (triton.cdiv(channels, CHANNELS),)
        z, z_mirrored = pooled.tensor_split(2)
        sums = total, absolute_total
        _subtract[programs](z, z_mirrored, difference, *sums, images, channels, CHANNELS=CHANNELS)
    return difference, total, absolute_total


@triton.jit
def _subtract(
    pooled, mirrored, difference, total, absolute_total, images, channels, CHANNELS: tl.constexpr
):  # fmt: skip
    """Differences of some channels, added to their sums image by image."""
    channel = tl.program_id(0).to(tl.int64) * CHANNELS + tl.arange(0, CHANNELS)
    inside = channel < channels
    sums = tl.load(total + channel, mask=inside)
    absolute_sums = tl.load(absolute_total + channel, mask=inside)
    pooled += channel
    difference += channel
    mirrored += channel
    image = 0
    while image < images:  # Triton 3.6's interpreter takes no range() of an argument with NumPy 2.4
        delta = tl.load(pooled, mask=inside) - tl.load(mirrored, mask=inside)
        tl.store(difference, delta, mask=inside)
        sums += delta.to(tl.float64)
        absolute_sums += tl.abs(delta).to(tl.float64)
        pooled += channels
        mirrored += channels
        difference += channels
        image += 1
    tl.store(total + channel, sums, mask=inside)
    tl.store(absolute_total + channel, absolute_sums, mask=inside)


register("gpe_triton")
