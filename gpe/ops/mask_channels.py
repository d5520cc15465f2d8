"""Channels set to zero, which is how the paper removes them (section 4.2.2)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gpe.errors import InputError, expect_bool, shown
from gpe.ops import backend
from gpe.ops.checks import (
    ANY,
    INTEGERS,
    asserted,
    expect_one_device,
    expect_tensor,
    expect_values,
    transformed,
)


def mask_channels(
    features: Tensor,  # [N,C,...]
    channels: Tensor | Sequence[int],  # [k]
    *,
    inplace: bool = False,
) -> Tensor:  # [N,C,...]
    """Sets channels to zero, the others are as they were.

    The gradient passes through the others; that of the masked channels is 0.

    Args:
        features: of any dtype, with any strides.
        channels: their indices, in any order: int64, or a sequence of integers.
        inplace: whether to write the zeros into ``features``, which touches nothing else.
            As with torch's own such operations, a leaf that requires a gradient is refused.

    Returns:
        Features of the same shape, dtype and memory format; with ``inplace`` the given ones.

    Raises:
        InputError: features without channels; channels that are not integers, out of range or
            repeated. Where ``channels`` lie on a GPU or the call is compiled, one out of range
            is an assertion of the device, and repeated ones are taken as one: to look would
            make the host wait for it.

    Example:
        >>> import torch, gpe
        >>> gpe.mask_channels(torch.ones(2, 4, 8, 8), [0, 3]).mean((0, 2, 3))
        tensor([0., 1., 1., 0.])
    """
    masked, inplace = _masked(features, channels), expect_bool("inplace", inplace)
    device, unserved = features.device.type, transformed(features)
    if features.itemsize > 8:
        unserved = f"kernels move at most 8 bytes at once, not {features.dtype}"
    if not inplace:
        return backend.implementation("mask_channels", device, unserved)(features, masked)
    if unserved:
        backend.implementation("mask_channels_", device, unserved)(features, masked)
        return features
    if torch.is_grad_enabled() and features.requires_grad:
        if torch.compiler.is_compiling():  # which makes of it what it likes best
            return features.copy_(backend.implementation("mask_channels", device)(features, masked))
        return _InPlace.apply(features, masked)
    _mask_in_place(features, masked)
    return features


def _masked(features: Tensor, channels: Tensor | Sequence[int]) -> Tensor:
    """Whether each of the channels is masked, ``[C]``."""
    expect_tensor("features", features, ANY, "numbers", first=True)
    if features.dim() < 2:
        raise InputError(f"features: expected shape [N,C,...], got {list(features.shape)}")
    count = features.shape[1]
    if not isinstance(channels, Tensor):
        channels = _tensor(channels)
    expect_tensor("channels", channels, (torch.int64,), f"{torch.int64} [k]")
    if channels.dim() != 1:
        got = f"{channels.dtype} {list(channels.shape)}"
        raise InputError(f"channels: expected {torch.int64} [k], got {got}")
    if channels.device not in (features.device, torch.device("cpu")):
        raise InputError(
            f"channels: expected the device of features, {features.device}, or the CPU, "
            f"got {channels.device}"
        )
    expect_values("channels", channels)
    masked = torch.zeros(count, dtype=torch.bool, device=channels.device)
    within = f"expected indices from 0 to {count - 1}"
    if channels.is_cuda or torch.compiler.is_compiling():
        inside = (channels >= 0) & (channels < count)
        channels = asserted(channels, inside, f"channels: {within}")
        masked = masked.index_fill(0, channels.clamp(0, max(0, count - 1)), True)
        return masked.to(features.device)
    if len(channels):  # few operators, which would take longer than the masking
        least, most = torch.aminmax(channels)
        if least < 0 or most >= count:
            outside = channels[(channels < 0) | (channels >= count)]
            raise InputError(f"channels: {within}, got {outside[0].item()}")
        masked.index_fill_(0, channels, True)
        if masked.count_nonzero() != len(channels):
            repeated = channels.bincount().argmax().item()
            raise InputError(f"channels: expected each at most once, got {repeated} repeatedly")
    return masked if features.is_cpu else masked.to(features.device)


def _tensor(channels: Sequence[int]) -> Tensor:
    try:
        # What numpy reverses has strides that torch does not take; a copy has not.
        copy = getattr(channels, "copy", None)
        tensor = torch.as_tensor(copy() if copy else channels)
    except Exception:  # what comes may be anything, and so may raise anything
        raise InputError(f"channels: expected integers, got {shown(channels)}") from None
    # Of an empty list torch makes floats; booleans would be a mask, not indices.
    return tensor.to(torch.int64) if tensor.numel() == 0 or tensor.dtype in INTEGERS else tensor


def _mask_in_place(features: Tensor, masked: Tensor) -> None:
    backend.implementation("mask_channels_", features.device.type)(features, masked)


class _InPlace(torch.autograd.Function):
    """torch.library has no gradients for operators that write to their arguments."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, masked: Tensor) -> Tensor:
        _mask_in_place(features, masked)
        ctx.mark_dirty(features)
        ctx.save_for_backward(masked)
        return features

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (masked,) = ctx.saved_tensors
        mask = backend.implementation("mask_channels", gradient.device.type)
        return mask(gradient, masked), None


def _fake(features: Tensor, masked: Tensor) -> Tensor:
    _fake_in_place(features, masked)
    return torch.empty_like(features)


def _fake_in_place(features: Tensor, masked: Tensor) -> None:
    expect_one_device(features=features, masked=masked)


def _setup_context(ctx, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])


def register(library: str) -> None:
    """Adds shapes and gradients to the kernels of ``torch.ops.<library>``."""
    mask = getattr(torch.ops, library).mask_channels

    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return mask(gradient, *ctx.saved_tensors), None

    torch.library.register_fake(f"{library}::mask_channels", _fake)
    torch.library.register_fake(f"{library}::mask_channels_", _fake_in_place)
    torch.library.register_autograd(
        f"{library}::mask_channels", backward, setup_context=_setup_context
    )


if backend.extension().ready:
    register("gpe")
