"""Views of a batch: crops of its images, mirrored and normalised on its device."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gpe.data.resident import Batch
from gpe.errors import InputError
from gpe.ops.dual_crop import dual_crop


def random_views(
    batch: Batch,
    size: int | Sequence[int],
    *,
    generator: torch.Generator,
    views: int = 2,
    flip: bool = True,
    padding: int | Sequence[int] = 0,
    **options: Any,
) -> Tensor:
    """Independent random crops of each image of a batch.

    Where the images have one size, or are not padded further, one :func:`gpe.dual_crop` cuts
    them all: a crop never leaves the real part of its image. Where sizes differ and there is
    ``padding``, each image takes a call of its own, since its border is its own; that is slow.

    Args:
        batch: of n images.
        size: height and width of a crop, in pixels, or one number for both.
        generator: of all draws, on the CPU. They depend on nothing but it, the sizes and n; where
            several processes share a batch, each draws for all of it and keeps its part.
        views: crops of each image, V.
        flip: mirror half of the crops, at random.
        padding: around each image, in pixels: rows and columns, or one number for both.
        options: ``padding_mode``, ``mean``, ``std``, ``dtype`` and ``memory_format`` of
            :func:`gpe.dual_crop`.

    Returns:
        Crops ``[V,n,3,h,w]``, whose places are uniform over all that the padded image allows.

    Raises:
        InputError: a crop larger than a padded image, or what :func:`gpe.dual_crop` raises.

    Example:
        >>> images = torch.full((4, 3, 8, 8), 255, dtype=torch.uint8)
        >>> batch = Batch(images, torch.arange(4), None, torch.arange(4))
        >>> crops = random_views(batch, 8, padding=2, generator=torch.Generator())
        >>> crops.shape, (crops.mean((2, 3, 4)) >= 0.5625).all().item()
        (torch.Size([2, 4, 3, 8, 8]), True)
    """
    room = _room(batch, size, padding)
    count = len(batch.images)
    start, stop, whole = batch.part or (0, count, count)
    drawn = torch.rand(views, whole, 2, dtype=torch.float64, generator=generator)
    offsets = (drawn[:, start:stop] * (room + 1)).long()
    flips = torch.zeros(views, count, dtype=torch.bool)
    if flip:
        flips = torch.rand(views, whole, generator=generator)[:, start:stop] < 0.5
    return _crop(batch, size, offsets, flips, padding=padding, **options)


def centre_view(batch: Batch, size: int | Sequence[int], **options: Any) -> Tensor:
    """The centre of each image of a batch, cut out by one :func:`gpe.dual_crop`.

    Args:
        batch: of n images.
        size: height and width of the crop, in pixels, or one number for both.
        options: ``mean``, ``std``, ``dtype`` and ``memory_format`` of :func:`gpe.dual_crop`.

    Returns:
        Crops ``[n,3,h,w]``.

    Raises:
        InputError: a crop larger than an image, or what :func:`gpe.dual_crop` raises.

    Example:
        >>> images = torch.arange(5, dtype=torch.uint8).expand(1, 3, 5, 5)
        >>> batch = Batch(images, torch.tensor([0]), None, torch.tensor([0]))
        >>> centre_view(batch, (1, 3), std=1 / 255)[0, 0].tolist()
        [[1.0, 2.0, 3.0]]
    """
    count = len(batch.images)
    # Half a pixel is rounded to the even side, as torchvision's center_crop does.
    offsets = (_room(batch, size, 0) / 2).round().long().expand(1, count, 2)
    flips = torch.zeros(1, count, dtype=torch.bool)
    return _crop(batch, size, offsets, flips, padding=0, **options)[0]


def _room(batch: Batch, size: int | Sequence[int], padding: int | Sequence[int]) -> Tensor:
    """The largest offsets of a crop, int64 ``[n,2]``, or ``[1,2]`` for all images."""
    sizes = batch.sizes
    if sizes is None:
        sizes = torch.tensor([batch.images.shape[2:]])
    padded = sizes + 2 * torch.as_tensor(padding)
    room = padded - torch.as_tensor(size)
    if (room < 0).any():
        height, width = padded[(room < 0).any(1)][0].tolist()
        raise InputError(
            f"size: expected a crop inside each padded image, one of which is {height}×{width}, "
            f"got {size}"
        )
    return room


def _crop(
    batch: Batch,
    size: int | Sequence[int],
    offsets: Tensor,  # [V,n,2], on the CPU
    flips: Tensor,  # [V,n], on the CPU
    *,
    padding: int | Sequence[int],
    **options: Any,
) -> Tensor:  # [V,n,3,h,w]
    images = batch.images
    offsets, flips = offsets.to(images.device), flips.to(images.device)
    if batch.sizes is None or not torch.as_tensor(padding).any():
        return dual_crop(images, size, offsets, flips, padding=padding, **options)
    crops = [
        dual_crop(
            images[i : i + 1, :, :height, :width],
            size,
            offsets[:, i : i + 1],
            flips[:, i : i + 1],
            padding=padding,
            **options,
        )
        for i, (height, width) in enumerate(batch.sizes.tolist())
    ]
    memory_format = options.get("memory_format", torch.contiguous_format)
    flat = torch.cat(crops, 1).flatten(0, 1).contiguous(memory_format=memory_format)
    return flat.unflatten(0, offsets.shape[:2])
