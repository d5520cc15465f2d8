"""Channels set to zero, which is how the paper removes them (section 4.2.2)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gpe.errors import InputError
from gpe.ops import backend


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
    masked = _masked(features, channels)
    device = features.device.type
    if not inplace:
        return backend.implementation("mask_channels", device)(features, masked)
    if torch.is_grad_enabled() and features.requires_grad:
        if torch.compiler.is_compiling():  # which makes of it what it likes best
            return features.copy_(backend.implementation("mask_channels", device)(features, masked))
        return _InPlace.apply(features, masked)
    _mask_in_place(features, masked)
    if not (torch.compiler.is_compiling() or features.is_inference()):
        torch.autograd.graph.increment_version(features)
    return features


def _masked(features: Tensor, channels: Tensor | Sequence[int]) -> Tensor:
    """Whether each of the channels is masked, ``[C]``."""
    if features.dim() < 2:
        raise InputError(f"features: expected shape [N,C,...], got {list(features.shape)}")
    count = features.shape[1]
    if not isinstance(channels, Tensor):
        channels = _tensor(channels)
    if channels.dtype != torch.int64 or channels.dim() != 1:
        got = f"{channels.dtype} {list(channels.shape)}"
        raise InputError(f"channels: expected {torch.int64} [k], got {got}")
    masked = torch.zeros(count, dtype=torch.bool, device=channels.device)
    if channels.is_cuda or torch.compiler.is_compiling():
        inside = (channels >= 0) & (channels < count)
        torch._assert_async(inside.all(), f"channels: expected indices from 0 to {count - 1}")
        masked = masked.index_fill(0, channels.clamp(0, max(0, count - 1)), True)
        return masked.to(features.device)
    outside = channels[(channels < 0) | (channels >= count)]
    if len(outside):
        raise InputError(
            f"channels: expected indices from 0 to {count - 1}, got {outside[0].item()}"
        )
    masked[channels] = True
    if masked.sum() != len(channels):
        repeated = channels.bincount().argmax().item()
        raise InputError(f"channels: expected each at most once, got {repeated} repeatedly")
    return masked.to(features.device)


def _tensor(channels: Sequence[int]) -> Tensor:
    try:
        tensor = torch.as_tensor(channels)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"channels: expected integers, got {channels!r:.80}") from None
    # Of an empty list torch makes floats; booleans would be a mask, not indices.
    if tensor.numel() == 0 or not (tensor.is_floating_point() or tensor.dtype == torch.bool):
        tensor = tensor.to(torch.int64)
    return tensor


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


def _setup_context(ctx, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])


def register(library: str) -> None:
    """Adds shapes and gradients to the kernels of ``torch.ops.<library>``."""
    mask = getattr(torch.ops, library).mask_channels

    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return mask(gradient, *ctx.saved_tensors), None

    torch.library.register_fake(f"{library}::mask_channels", lambda maps, _: torch.empty_like(maps))
    torch.library.register_fake(f"{library}::mask_channels_", lambda *arguments: None)
    torch.library.register_autograd(
        f"{library}::mask_channels", backward, setup_context=_setup_context
    )


if backend.extension().ready:
    register("gpe")
