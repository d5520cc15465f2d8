"""Mean and standard deviation as what the kernels take: one scale and one shift a channel."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from gpe.errors import InputError, expect_number, plain, shown
from gpe.ops.checks import FLOATS


def output_dtype(images: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    """``dtype``; if None that of autocast where it is on, else of floating images, else torch's."""
    if dtype is not None:
        if not isinstance(dtype, torch.dtype) or dtype not in FLOATS:
            raise InputError(f"dtype: expected a floating-point dtype, got {shown(dtype)}")
        return dtype
    device = images.device.type
    if torch.is_autocast_enabled(device) and images.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return images.dtype if images.dtype.is_floating_point else torch.get_default_dtype()


def scale_and_shift(
    images: Tensor,  # [N,C,H,W]
    mean: float | Sequence[float] | None,
    std: float | Sequence[float] | None,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:  # [C], [C]
    """``(image / range - mean) / std`` as ``image * scale + shift``."""
    channels = images.shape[1]
    means = _per_channel("mean", mean, 0.0, channels)
    stds = _per_channel("std", std, 1.0, channels)
    if 0.0 in stds:
        raise InputError(f"std: expected no zeros, got {stds}")
    unit = 1.0 if images.is_floating_point() else 255.0
    scale = tuple(1 / (unit * s) for s in stds)
    shift = tuple(-m / s for m, s in zip(means, stds, strict=True))
    arithmetic = torch.float64 if torch.float64 in (images.dtype, dtype) else torch.float32
    if not all(abs(number) <= torch.finfo(arithmetic).max for number in (*scale, *shift)):
        raise InputError(f"mean, std: expected a mean/std within {arithmetic}, got {means}, {stds}")
    # A tensor made on a GPU waits for a copy, which a captured CUDA graph forbids: made once.
    make = torch.tensor if torch.compiler.is_compiling() else _constant
    device = images.device
    return make(scale, dtype=arithmetic, device=device), make(
        shift, dtype=arithmetic, device=device
    )


@lru_cache(maxsize=64)
def _constant(values: tuple[float, ...], *, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)


def _per_channel(
    name: str, values: float | Sequence[float] | None, default: float, channels: int
) -> tuple[float, ...]:
    if values is None:
        return (default,) * channels
    values = plain(name, values)
    if isinstance(values, str) or not isinstance(values, Sequence):
        return (expect_number(name, values),) * channels
    if len(values) != channels:
        raise InputError(
            f"{name}: expected one value or one for each of {channels} channels, got {len(values)}"
        )
    return tuple(expect_number(f"{name}[{i}]", value) for i, value in enumerate(values))
