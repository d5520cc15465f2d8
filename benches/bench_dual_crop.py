"""dual_crop beside torchvision's transforms and what one would write for a whole batch.

Two views of each image, as AugShift takes them; all contestants get the same offsets and flips.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import pad
from torchvision.transforms.v2 import functional as F

import gpe
from benches.harness import OURS, Race, race

VIEWS = 2
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FORMATS = {"NCHW": torch.contiguous_format, "channels-last": torch.channels_last}


@dataclass(frozen=True)
class Work:
    """``offsets`` [V,N,2] and ``flips`` [V,N] of crops of square images."""

    images: Tensor
    size: int
    padding: int
    offsets: Tensor
    flips: Tensor
    memory_format: torch.memory_format


def races(device: str) -> Iterator[partial[Race]]:
    """CIFAR with padding, ImageNet without; NCHW images also to channels-last crops."""
    for batch, side, size, padding in ((128, 32, 32, 4), (64, 256, 224, 0)):
        for source, target in (
            ("NCHW", "NCHW"),
            ("NCHW", "channels-last"),
            ("channels-last", "channels-last"),
        ):
            yield partial(_race, device, batch, side, size, padding, source, target)


def _race(
    device: str, batch: int, side: int, size: int, padding: int, source: str, target: str
) -> Race:
    generator = torch.Generator().manual_seed(0)
    shape = (batch, 3, side, side)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    last = side + 2 * padding - size
    offsets = torch.randint(0, last + 1, (VIEWS, batch, 2), generator=generator)
    flips = torch.rand(VIEWS, batch, generator=generator) < 0.5
    work = Work(
        images.to(device, memory_format=FORMATS[source]),
        size,
        padding,
        offsets.to(device),
        flips.to(device),
        FORMATS[target],
    )

    torch.compiler.reset()
    contestants = {
        OURS: _ours,
        # A call for each image and step: too slow to be timed in every layout.
        **({"torchvision v2": _torchvision} if source == target else {}),
        "eager gather": _gather,
        "compiled gather": torch.compile(_gather, dynamic=False),
        "eager windows": _windows,
        "compiled windows": torch.compile(_windows, dynamic=False),
    }
    expected = _torchvision(work)
    for name, crop in contestants.items():
        crops = crop(work)
        torch.testing.assert_close(crops, expected, rtol=1e-5, atol=1e-5, msg=name)
        assert crops.is_contiguous(memory_format=work.memory_format), name

    return race(
        f"dual_crop, {device}, {batch}×3×{side}×{side} to {size}×{size}, {source} to {target}",
        {name: _step(crop, work) for name, crop in contestants.items()},
        device=device,
        calls=1,
        bytes_moved=expected.numel() + expected.nbytes,
    )


def _step(crop: Callable, work: Work) -> Callable:
    return lambda: crop(work)


def _ours(work: Work) -> Tensor:
    return gpe.dual_crop(
        work.images,
        work.size,
        work.offsets,
        work.flips,
        padding=work.padding,
        mean=MEAN,
        std=STD,
        memory_format=work.memory_format,
    ).flatten(0, 1)


def _torchvision(work: Work) -> Tensor:
    """What Compose([RandomCrop, RandomHorizontalFlip, ToDtype, Normalize]) does to each image."""
    crops = []
    for offsets, flips in zip(work.offsets.tolist(), work.flips.tolist(), strict=True):
        for image, (top, left), flip in zip(work.images, offsets, flips, strict=True):
            if work.padding:
                image = F.pad(image, [work.padding])
            crop = F.crop(image, top, left, work.size, work.size)
            if flip:
                crop = F.horizontal_flip(crop)
            crops.append(F.normalize(F.to_dtype(crop, torch.float32, scale=True), MEAN, STD))
    return torch.stack(crops).contiguous(memory_format=work.memory_format)


def _gather(work: Work) -> Tensor:
    """Every pixel of every crop by its index."""
    steps = torch.arange(work.size, device=work.images.device)
    rows = work.offsets[..., :1] + steps
    mirrored = torch.where(work.flips[..., None], work.size - 1 - steps, steps)
    columns = work.offsets[..., 1:] + mirrored
    batch = torch.arange(len(work.images), device=work.images.device)[:, None, None]
    pixels = _padded(work)[batch, :, rows[..., :, None], columns[..., None, :]]
    return _normalise(pixels.flatten(0, 1).permute(0, 3, 1, 2), work)


def _windows(work: Work) -> Tensor:
    """Every crop by the index of its window, then mirrored."""
    windows = _padded(work).unfold(2, work.size, 1).unfold(3, work.size, 1)
    batch = torch.arange(len(work.images), device=work.images.device)
    crops = windows[batch, :, work.offsets[..., 0], work.offsets[..., 1]].flatten(0, 1)
    flips = work.flips.flatten()[:, None, None, None]
    return _normalise(torch.where(flips, crops.flip(3), crops), work)


def _padded(work: Work) -> Tensor:
    return pad(work.images, [work.padding] * 4) if work.padding else work.images


def _normalise(crops: Tensor, work: Work) -> Tensor:
    mean, std = (torch.tensor(v, device=crops.device).view(3, 1, 1) for v in (MEAN, STD))
    return ((crops / 255 - mean) / std).contiguous(memory_format=work.memory_format)
