"""How much each channel changes when its image is mirrored (Equations 2 and 3)."""

from typing import NamedTuple

import torch
from torch import Tensor

from gpe.errors import InputError, shown
from gpe.ops import backend
from gpe.ops.checks import (
    ANY,
    FLOATS,
    expect_alike,
    expect_one_device,
    expect_tensor,
    has_values,
    transformed,
)


class FlipDifference(NamedTuple):
    """What :func:`flip_difference` returns."""

    difference: Tensor  # [N,C]
    total: Tensor  # [C]
    absolute_total: Tensor  # [C]


def flip_difference(
    features: Tensor,  # [N,C,H,W] or [N,C]
    mirrored: Tensor,  # likewise
    *,
    totals: tuple[Tensor, Tensor] | None = None,  # [C], [C]
) -> FlipDifference:
    """Pools the features of images and of their mirrors, and sums how far they are apart.

    ``difference`` is ``Δ = GAP(features) - GAP(mirrored)``, ``total`` the sum of Δ over the images
    and ``absolute_total`` that of |Δ|, in one pass over the features. Divided by the number of
    images these are the scores of Equations 3 and 2. Pooling does not see where a pixel lies:
    the mirrored features need not be mirrored back.

    The gradient of the features is one number for each image and channel, expanded over H and W
    with stride 0. At Δ = 0 that of |Δ| is 0.

    Args:
        features: floating, of the images, with any strides; or their pooled latents ``[N,C]``.
        mirrored: of their mirrors, of the same shape, dtype and device.
        totals: the float64 sums ``(total, absolute_total)`` over earlier images, to which these
            are added in place; no gradient goes through them. Images are added one after the
            other, so that the sums do not depend on the size of the batches.

    Returns:
        ``(difference, total, absolute_total)``: float32 ``[N,C]`` (float64 for float64), and the
        float64 sums ``[C]``, which are the given ``totals`` where there are any.

    Raises:
        InputError: features of the wrong shape or dtype, or of different ones; maps without pixels;
            totals that do not fit; on the CPU outside :func:`torch.compile`, a difference that
            is NaN, before ``totals`` are touched. Elsewhere NaN goes through to the sums.

    Source:
        Equations 2 and 3, section 4.2.1.

    Example:
        >>> import torch, gpe
        >>> features, mirrored = torch.zeros(2, 2, 4, 4), torch.zeros(2, 2, 4, 4)
        >>> features[0, 0], mirrored[1, 0] = 3, 1
        >>> difference, total, absolute_total = gpe.flip_difference(features, mirrored)
        >>> difference.tolist()
        [[3.0, 0.0], [-1.0, 0.0]]
        >>> total.tolist(), absolute_total.tolist()
        ([2.0, 0.0], [4.0, 0.0])
        >>> _ = gpe.flip_difference(features, mirrored, totals=(total, absolute_total))
        >>> total.tolist()
        [4.0, 0.0]
    """
    _check(features, mirrored, totals)
    if features.dim() == 2:
        features, mirrored = (pooled[:, :, None, None] for pooled in (features, mirrored))
    total, absolute_total = totals or (None, None)
    unserved = transformed(features, mirrored, total, absolute_total)
    if totals and unserved:
        raise InputError("totals: expected None inside torch.func and forward-mode AD, got some")
    subtract = backend.implementation("flip_difference", features.device.type, unserved)
    difference, *sums = subtract(features, mirrored, total, absolute_total)
    if has_values(difference):
        _expect_no_nan(difference, sums[1])
    if totals:
        sums = [total.copy_(sum.detach()) for total, sum in zip(totals, sums, strict=True)]
    return FlipDifference(difference, sums[0], sums[1])


def _check(features: Tensor, mirrored: Tensor, totals: tuple[Tensor, Tensor] | None) -> None:
    expect_tensor("features", features, FLOATS, "floating point", first=True)
    if features.dim() not in (2, 4):
        got = list(features.shape)
        raise InputError(f"features: expected shape [N,C,H,W] or [N,C], got {got}")
    if 0 in features.shape[2:]:
        raise InputError(f"features: expected maps with pixels, got {list(features.shape)}")
    expect_alike("mirrored", mirrored, "features", features)
    if totals is None:
        return
    if not isinstance(totals, (tuple, list)) or len(totals) != 2 or totals[0] is totals[1]:
        raise InputError(f"totals: expected two tensors, got {shown(totals)}")
    shape = features.shape[1:2]
    for total in totals:
        expect_tensor("totals", total, ANY, "two tensors")
        if total.dtype != torch.float64 or total.shape != shape or total.device != features.device:
            raise InputError(
                f"totals: expected {torch.float64} {list(shape)} on {features.device}, "
                f"got {total.dtype} {list(total.shape)} on {total.device}"
            )
        if total.requires_grad:
            raise InputError("totals: expected sums that require no gradient, got some that do")


def _expect_no_nan(difference: Tensor, absolute_total: Tensor) -> None:
    # A sum of sizes is NaN where one of them is, and there are fewer of them to look at.
    if not absolute_total.isnan().any() or not difference.isnan().any():
        return
    image, channel = difference.isnan().nonzero()[0].tolist()
    raise InputError(
        "features, mirrored: expected finite values, "
        f"got a difference of nan in image {image}, channel {channel}"
    )


def _fake(features: Tensor, mirrored: Tensor, total: Tensor | None, absolute_total: Tensor | None):
    expect_one_device(
        features=features, mirrored=mirrored, total=total, absolute_total=absolute_total
    )
    dtype = torch.promote_types(features.dtype, torch.float32)
    images, channels = features.shape[:2]
    sums = (features.new_empty((channels,), dtype=torch.float64) for _ in range(2))
    return features.new_empty((images, channels), dtype=dtype), *sums


def _setup_context(ctx, inputs: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.shape, ctx.dtype = inputs[0].shape, inputs[0].dtype
    ctx.save_for_backward(output[0])


def _backward(ctx, difference_gradient: Tensor, total_gradient: Tensor, absolute_gradient: Tensor):
    """Of a pixel: ``(∂L/∂Δ + ∂L/∂ΣΔ + sign(Δ) ∂L/∂Σ|Δ|) / (H·W)``, of the mirrored with a minus."""
    (difference,) = ctx.saved_tensors
    height, width = ctx.shape[2:]
    sums = total_gradient + difference.sign() * absolute_gradient
    gradient = (difference_gradient + sums) / (height * width)
    gradient = gradient.to(ctx.dtype)[:, :, None, None]
    both = (latents.expand(-1, -1, height, width) for latents in (gradient, -gradient))
    running = zip((total_gradient, absolute_gradient), ctx.needs_input_grad[2:], strict=True)
    return *both, *(gradient if needed else None for gradient, needed in running)


def register(library: str) -> None:
    """Adds shapes and gradients to the kernel of ``torch.ops.<library>``."""
    torch.library.register_fake(f"{library}::flip_difference", _fake)
    torch.library.register_autograd(
        f"{library}::flip_difference", _backward, setup_context=_setup_context
    )


if backend.extension().ready:
    register("gpe")
