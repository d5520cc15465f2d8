"""Global average pooling of two feature maps, and how far apart the latents are (Equation 1)."""

from math import isnan
from typing import NamedTuple

import torch
from torch import Tensor

from gpe.errors import InputError
from gpe.ops import backend, reference
from gpe.ops.checks import (
    FLOATS,
    expect_alike,
    expect_one_device,
    expect_tensor,
    has_values,
    transformed,
)


class GapMse(NamedTuple):
    """What :func:`gap_mse` returns."""

    z_a: Tensor  # [N,C]
    z_b: Tensor  # [N,C]
    mse: Tensor  # []


def gap_mse(
    features_a: Tensor,  # [N,C,H,W], or [2N,C,H,W] alone
    features_b: Tensor | None = None,  # [N,C,H,W]
) -> GapMse:
    """Pools two feature maps and measures how far apart they are, in one pass over the data.

    ``z`` is the mean over H and W, ``mse`` the mean of ``(z_a - z_b)²`` over N and C. The
    gradient of the features is one number for each image and channel, expanded over H and W
    with stride 0: the backward pass writes nothing of the features' size. Only on the CPU and
    right after a batch norm, which would be several times slower for it, it is written out.

    Inside :func:`torch.compile` NCHW maps on the CPU are left to Inductor, which pools them
    where it makes them.

    Args:
        features_a: floating ``[N,C,H,W]``, with any strides. Alone it is ``[2N,C,H,W]``: the
            first half is a, the second b. A network that saw both views in one batch should
            hand over its output whole, since the gradient of a slice is of the features' size.
        features_b: of the same shape, dtype and device.

    Returns:
        ``(z_a, z_b, mse)``: latents ``[N,C]`` in the features' dtype, and their mean squared error,
        a float32 number (float64 for float64). Sums are taken in that dtype or wider, and in
        the same order on every run. Without images or channels ``mse`` is NaN, as in torch.

    Raises:
        InputError: features of the wrong shape or dtype, or of different ones; maps without pixels;
            an odd number of images where there is one argument; on the CPU outside
            :func:`torch.compile`, features whose ``mse`` is NaN. Elsewhere NaN goes through to
            ``z`` and ``mse``: to look would make the host wait for the device.

    Source:
        Equation 1, without its cross entropies and its factor λ.

    Example:
        >>> import torch, gpe
        >>> a, b = torch.zeros(4, 8, 7, 7), torch.full((4, 8, 7, 7), 3.0)
        >>> z_a, z_b, mse = gpe.gap_mse(a, b)
        >>> z_a.shape, mse.item()
        (torch.Size([4, 8]), 9.0)
        >>> gpe.gap_mse(torch.cat([a, b])).mse.item()
        9.0
    """
    pooled, mse = pool_both(features_a, features_b)
    return GapMse(pooled[0], pooled[1], mse)


def pool_both(
    features_a: Tensor,  # [N,C,H,W], or [2N,C,H,W] alone
    features_b: Tensor | None,  # [N,C,H,W]
) -> tuple[Tensor, Tensor]:  # [2,N,C], []
    """What :func:`gap_mse` returns, with both latents in one tensor."""
    _check(features_a, features_b)
    if (
        torch.compiler.is_compiling()
        and features_a.is_cpu
        and features_a.is_contiguous()
        and not backend.forced()
    ):
        pool = reference.gap_mse  # Inductor pools while it makes the maps; a kernel would read them
    else:
        unserved = transformed(features_a, features_b)
        pool = backend.implementation("gap_mse", features_a.device.type, unserved)
    pooled, mse = pool(features_a, features_b)
    if has_values(mse):
        _expect_no_nan(pooled, mse, stacked=features_b is None)
    if pooled.dtype != features_a.dtype:
        pooled = pooled.to(features_a.dtype)
    return pooled, mse


def _check(features_a: Tensor, features_b: Tensor | None) -> None:
    expect_tensor("features_a", features_a, FLOATS, "floating point", first=True)
    if features_a.dim() != 4:
        raise InputError(f"features_a: expected shape [N,C,H,W], got {list(features_a.shape)}")
    if features_a.shape[2] == 0 or features_a.shape[3] == 0:
        raise InputError(f"features_a: expected maps with pixels, got {list(features_a.shape)}")
    if features_b is not None:
        expect_alike("features_b", features_b, "features_a", features_a)
    elif len(features_a) % 2:
        raise InputError(
            "features_a: expected an even number of images, both halves stacked, where "
            f"features_b is None, got {len(features_a)}"
        )


def _expect_no_nan(pooled: Tensor, mse: Tensor, stacked: bool) -> None:
    if not isnan(mse.item()) or pooled.numel() == 0:
        return
    half, image, channel = pooled.isfinite().logical_not().nonzero()[0].tolist()
    name = "features_b" if half and not stacked else "features_a"
    value = pooled[half, image, channel].item()
    image += half * pooled.shape[1] if stacked else 0
    raise InputError(
        f"{name}: expected finite values, got a mean of {value} in image {image}, channel {channel}"
    )


def fake(features_a: Tensor, features_b: Tensor | None) -> tuple[Tensor, Tensor]:
    """What the kernels return, without values."""
    expect_one_device(features_a=features_a, features_b=features_b)
    images, channels = features_a.shape[:2]
    dtype = torch.promote_types(features_a.dtype, torch.float32)
    images = images // 2 if features_b is None else images
    pooled = features_a.new_empty((2, images, channels), dtype=dtype)
    return pooled, features_a.new_empty((), dtype=dtype)


if backend.extension().ready:
    torch.library.register_fake("gpe::gap_mse", fake)
