"""Global average pooling of two feature maps, and how far apart the latents are (Equation 1)."""

from collections.abc import Callable
from math import isnan
from typing import NamedTuple

import torch
from torch import Tensor

from gpe.errors import InputError
from gpe.ops import backend, reference


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
    return GapMse(*pooled.unbind(), mse)


def pool_both(
    features_a: Tensor,  # [N,C,H,W], or [2N,C,H,W] alone
    features_b: Tensor | None,  # [N,C,H,W]
) -> tuple[Tensor, Tensor]:  # [2,N,C], []
    """What :func:`gap_mse` returns, with both latents in one tensor."""
    _check(features_a, features_b)
    pooled, mse = _implementation(features_a)(features_a, features_b)
    # A type of its own, as of a fake tensor, has no value to look at.
    if mse.is_cpu and type(mse) is Tensor and not torch.compiler.is_compiling():
        _expect_no_nan(pooled, mse, stacked=features_b is None)
    if pooled.dtype != features_a.dtype:
        pooled = pooled.to(features_a.dtype)
    return pooled, mse


def _implementation(features: Tensor) -> Callable:
    # Inductor pools NCHW maps on the CPU while it makes them; a kernel would have to read them.
    if torch.compiler.is_compiling() and features.is_cpu and features.is_contiguous():
        return reference.gap_mse
    return backend.implementation("gap_mse", features.device.type)


def _check(features_a: Tensor, features_b: Tensor | None) -> None:
    if features_a.dim() != 4:
        raise InputError(f"features_a: expected shape [N,C,H,W], got {list(features_a.shape)}")
    if not features_a.is_floating_point():
        raise InputError(f"features_a: expected floating point, got {features_a.dtype}")
    if features_a.shape[2] == 0 or features_a.shape[3] == 0:
        raise InputError(f"features_a: expected maps with pixels, got {list(features_a.shape)}")
    if features_b is None:
        if len(features_a) % 2:
            raise InputError(
                "features_a: expected an even number of images, both halves stacked, where "
                f"features_b is None, got {len(features_a)}"
            )
        return
    for what in ("shape", "dtype", "device"):
        expected, got = getattr(features_a, what), getattr(features_b, what)
        if expected != got:
            raise InputError(
                f"features_b: expected the {what} of features_a, {expected}, got {got}"
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


def _fake(features_a: Tensor, features_b: Tensor | None) -> tuple[Tensor, Tensor]:
    images, channels = features_a.shape[:2]
    dtype = torch.promote_types(features_a.dtype, torch.float32)
    images = images // 2 if features_b is None else images
    return tuple(features_a.new_empty(shape, dtype=dtype) for shape in ((2, images, channels), ()))


def _setup_context(ctx, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    maps = [features for features in inputs if features is not None]
    ctx.size, ctx.dtype = maps[0].shape[2:], maps[0].dtype
    ctx.memory_formats = [_wanted_format(features) for features in maps]
    ctx.save_for_backward(output[0])


def _wanted_format(features: Tensor) -> torch.memory_format | None:
    """The layout in which the layer before wants its gradient written out; None: it does not."""
    layer = features.grad_fn
    if not features.is_cpu or layer is None or layer.name() != "NativeBatchNormBackward0":
        return None
    if features.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format


def _as_wanted(gradient: Tensor, memory_format: torch.memory_format | None) -> Tensor:
    return gradient if memory_format is None else gradient.contiguous(memory_format=memory_format)


def _backward(ctx, pooled_gradient: Tensor, mse_gradient: Tensor) -> tuple[Tensor, Tensor | None]:
    """Of a pixel: ``(∂L/∂z_a + 2/(N·C) · (z_a - z_b) · ∂L/∂mse) / (H·W)``, of b with a minus."""
    (pooled,) = ctx.saved_tensors
    error = pooled - pooled.flip(0)
    gradient = pooled_gradient.addcmul(error, mse_gradient, value=2 / max(1, pooled[0].numel()))
    gradient = gradient.div_(ctx.size.numel()).to(ctx.dtype)
    gradient = gradient.view(*pooled.shape, 1, 1).expand(*pooled.shape, *ctx.size)
    stacked = len(ctx.memory_formats) == 1
    maps = [gradient.flatten(0, 1)] if stacked else gradient.unbind()
    gradients = map(_as_wanted, maps, ctx.memory_formats)
    return (*gradients, None) if stacked else tuple(gradients)


def register(library: str) -> None:
    """Adds shapes and gradients to the kernel of ``torch.ops.<library>``."""
    torch.library.register_fake(f"{library}::gap_mse", _fake)
    torch.library.register_autograd(f"{library}::gap_mse", _backward, setup_context=_setup_context)


if backend.extension().ready:
    register("gpe")
