"""Crops of padded images, mirrored and normalised: two of each for AugShift (paper, figure 2)."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from gpe.errors import InputError, expect_integer, plain, shown
from gpe.ops import backend, reference
from gpe.ops.checks import (
    expect_addressable,
    expect_device,
    expect_memory_format,
    expect_one_device,
    expect_tensor,
    expect_values,
    told,
)
from gpe.ops.normalisation import output_dtype, scale_and_shift

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


def dual_crop(
    images: Tensor,  # [N,C,H,W]
    size: int | Sequence[int],
    offsets: Tensor,  # [V,N,2]
    flips: Tensor,  # [V,N]
    *,
    padding: int | Sequence[int] = 0,
    padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Tensor:  # [V,N,C,h,w]
    """Cuts ``V`` crops out of each padded image, mirrors and normalises them, in one pass.

    A crop is ``(crop / 255 - mean) / std``. Padding comes before the normalisation, as in
    torchvision's ``RandomCrop``: zeros are black pixels, not zeros of the result. AugShift
    takes two views; one is a plain crop.

    Args:
        images: uint8 ``[N,C,H,W]``, with any strides.
        size: of a crop: ``(h, w)``, or one number for both.
        offsets: int64 ``[V,N,2]`` on the same device: row and column, in the padded image, of
            a crop's top-left corner.
        flips: bool ``[V,N]`` on the same device: whether a crop is mirrored left to right.
        padding: pixels above and below, left and right: ``(rows, columns)``, or one number for
            both.
        padding_mode: what they are: ``"zeros"``; ``"reflect"``, the image mirrored at its
            outermost pixels, which are not repeated; ``"replicate"``, the nearest pixel; or
            ``"circular"``, the opposite side.
        mean: of each channel (or one for all), in units of the image scaled to [0, 1]; 0 if
            None.
        std: likewise; 1 if None.
        dtype: floating dtype of the crops. If None: that of autocast where it is on, else
            :func:`torch.get_default_dtype`.
        memory_format: ``torch.contiguous_format`` or ``torch.channels_last``, of the crops
            flattened to ``[V·N,C,h,w]``.

    Returns:
        Crops ``[V,N,C,h,w]``, which never require a gradient.

    Raises:
        InputError: an argument of the wrong type, shape, dtype or device; a crop larger than
            the padded image; more padding than the mode can take from the image; on the CPU,
            an offset that leads outside (on a GPU that is a device-side assertion).

    Example:
        >>> import torch, gpe
        >>> images = torch.arange(3, dtype=torch.uint8).expand(1, 1, 1, 3)
        >>> offsets, flips = torch.tensor([[[0, 0]], [[0, 2]]]), torch.tensor([[False], [True]])
        >>> crops = gpe.dual_crop(images, (1, 3), offsets, flips, padding=(0, 1), std=1 / 255)
        >>> crops.shape, crops.tolist()
        (torch.Size([2, 1, 1, 1, 3]), [[[[[0.0, 0.0, 1.0]]]], [[[[0.0, 2.0, 1.0]]]]])
    """
    size, padding = pair("size", size, 1), pair("padding", padding, 0)
    _check(images, size, offsets, flips, padding, padding_mode, memory_format)
    dtype = output_dtype(images, dtype)
    expect_addressable("size", (*offsets.shape[:2], images.shape[1], *size), dtype)
    scale, shift = scale_and_shift(images, mean, std, dtype)
    channels_last = memory_format == torch.channels_last
    crop = backend.implementation("dual_crop", images.device.type)
    which = images, offsets, flips, size, padding, padding_mode
    return told(crop, *which, scale, shift, dtype, channels_last)


def pair(name: str, value: int | Sequence[int], least: int) -> tuple[int, int]:
    """Rows and columns of ``value``, or of one number for both; an InputError below ``least``."""
    value = plain(name, value)
    sides = tuple(value) if isinstance(value, Sequence) else (value, value)
    try:
        rows, columns = (expect_integer(name, side, least) for side in sides)
    except ValueError:  # also where there are not two
        raise InputError(
            f"{name}: expected an integer of at least {least}, or two of them, got {shown(value)}"
        ) from None
    return rows, columns


def _check(
    images: Tensor,
    size: tuple[int, int],
    offsets: Tensor,
    flips: Tensor,
    padding: tuple[int, int],
    padding_mode: str,
    memory_format: torch.memory_format,
) -> None:
    expect_tensor("images", images, (torch.uint8,), "torch.uint8", first=True)
    expect_tensor("offsets", offsets, (torch.int64,), "torch.int64")
    expect_tensor("flips", flips, (torch.bool,), "torch.bool")
    if images.dim() != 4 or 0 in images.shape[2:]:
        raise InputError(f"images: expected shape [N,C,H,W] with pixels, got {list(images.shape)}")
    count = len(images)
    if offsets.dim() != 3 or offsets.shape[1:] != (count, 2) or len(offsets) == 0:
        raise InputError(
            f"offsets: expected shape [V,{count},2], a row and a column for each image in each "
            f"of V views, got {list(offsets.shape)}"
        )
    if flips.shape != offsets.shape[:2]:
        raise InputError(
            f"flips: expected shape {list(offsets.shape[:2])}, that of offsets without its last "
            f"dimension, got {list(flips.shape)}"
        )
    for name, tensor in (("offsets", offsets), ("flips", flips)):
        expect_device(name, tensor, "images", images)
        expect_values(name, tensor)
    if not isinstance(padding_mode, str) or padding_mode not in PADDING_MODES:
        raise InputError(
            f"padding_mode: expected one of {', '.join(PADDING_MODES)}, got {shown(padding_mode)}"
        )
    for axis, side, pad, crop in zip(
        ("rows", "columns"), images.shape[2:], padding, size, strict=True
    ):
        most = {"reflect": side - 1, "circular": side}.get(padding_mode, 2**61)
        if pad > most:
            raise InputError(
                f"padding: expected at most {most} {axis} of {padding_mode} padding for an image "
                f"of {side}, got {pad}"
            )
        if crop > side + 2 * pad:
            raise InputError(
                f"size: expected at most the {side + 2 * pad} {axis} of the padded image, "
                f"got {crop}"
            )
    expect_memory_format(memory_format)


def _fake(images, offsets, flips, size, padding, padding_mode, scale, shift, dtype, channels_last):
    expect_one_device(images=images, offsets=offsets, flips=flips, scale=scale, shift=shift)
    return reference.empty_crops(images, offsets, size, dtype, channels_last)


def register(library: str) -> None:
    """Adds shapes to the kernel of ``torch.ops.<library>``."""
    torch.library.register_fake(f"{library}::dual_crop", _fake)


if backend.extension().ready:
    register("gpe")
