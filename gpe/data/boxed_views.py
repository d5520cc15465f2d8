"""Batches of images with boxes around people: whole ones to test on, random views to train on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from gpe.data.citypersons_boxes import LEAST_HEIGHT, BoxedSet, training_boxes
from gpe.data.imagenet import STATISTICS
from gpe.data.pixels import normalised
from gpe.data.resident import cuts, generator
from gpe.data.workers import read_batches

_LEAST_WIDTH = 16  # of a pedestrian in a crop, in CityPersons' pixels


class BoxedBatch(NamedTuple):
    """Some views.

    Attributes:
        images: float32 ``[n,3,H,W]``, normalised as ImageNet's, on the device asked for.
        wanted, ignored: boxes ``[p,4]`` of each, corners in pixels, on the CPU.
    """

    images: Tensor
    wanted: list[Tensor]
    ignored: list[Tensor]


@dataclass(frozen=True)
class BoxAugmentation:
    """How training views are cut.

    Attributes:
        crop: height and width in pixels, around a pedestrian where there is one; None: the whole
            image, and one scale for all images of a batch.
        scales: images are resized by a factor between these two before.
        flip: mirror half of the views.
        brightness: half of the views are made darker or brighter by a factor between these two.
    """

    crop: tuple[int, int] | None = None
    scales: tuple[float, float] = (1.0, 1.0)
    flip: bool = False
    brightness: tuple[float, float] = (1.0, 1.0)


def whole_batches(
    images: BoxedSet,
    batch_size: int,
    *,
    order: Sequence[int],
    workers: int = 0,
    device: str = "cpu",
) -> Iterator[Tensor]:
    """Normalised images ``[n,3,H,W]`` in this order."""
    indices = torch.tensor(order, dtype=torch.int64)
    batches = [some.tolist() for some, _ in cuts(indices, batch_size, len(images))]
    read = read_batches(partial(_whole, images), _stacked, batches, workers=workers, device=device)
    for pixels, _ in read:
        yield normalised(pixels.to(device, non_blocking=True))


def view_batches(
    images: BoxedSet,
    order: Tensor,
    batch_size: int,
    *,
    augmentation: BoxAugmentation,
    seed: int,
    epoch: int,
    workers: int = 0,
    device: str = "cpu",
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[BoxedBatch]:
    """Random views in batches; a function of the seed, the epoch and the place in ``order``.

    Pedestrians of 50 of CityPersons' pixels and more are to be found, all others ignored; so are
    those of which a crop leaves less than half or less than 16 pixels of the width. Of
    ``world_size`` processes each reads a part of each batch.
    """
    parts = cuts(torch.arange(len(order)), batch_size, len(order), rank=rank, world_size=world_size)
    places = [some.tolist() for some, _ in parts]
    views = _Views(images, order.tolist(), batch_size, augmentation, seed, epoch)
    for pixels, rows in read_batches(views, _stacked, places, workers=workers, device=device):
        rows = rows.cpu()
        of = [rows[rows[:, 0] == place] for place in range(len(pixels))]
        yield BoxedBatch(
            normalised(pixels.to(device, non_blocking=True)),
            [some[some[:, 1] == 0, 2:] for some in of],
            [some[some[:, 1] == 1, 2:] for some in of],
        )


_Sample = tuple[Tensor, Tensor]  # uint8 [3,H,W]; boxes [k,5]: whether to ignore it, corners


def _whole(images: BoxedSet, place: int) -> _Sample:
    return images[place].image, torch.zeros(0, 5)


def _stacked(samples: list[_Sample]) -> tuple[Tensor, Tensor]:
    """Images ``[n,3,H,W]``, and boxes ``[k,6]`` that begin with the place of their image."""
    rows = [torch.nn.functional.pad(boxes, (1, 0), value=n) for n, (_, boxes) in enumerate(samples)]
    return torch.stack([image for image, _ in samples]), torch.cat(rows)


@dataclass(frozen=True)
class _Views:
    images: BoxedSet
    order: list[int]
    batch_size: int
    augmentation: BoxAugmentation
    seed: int
    epoch: int

    def __call__(self, place: int) -> _Sample:
        how = self.augmentation
        image, people = self.images[self.order[place]]
        wanted, ignored = training_boxes(people, LEAST_HEIGHT / self.images.scale)
        boxes = torch.cat([wanted, ignored])
        aside = torch.arange(len(boxes)) >= len(wanted)
        draws = self._draws(f"view {place}")
        shared = f"batch {place // self.batch_size}" if how.crop is None else f"scale {place}"
        low, high = how.scales
        image, boxes = _resized(image, boxes, low + (high - low) * self._draws(shared)[0])
        if how.crop is not None:
            chosen = boxes[~aside]
            at = chosen[int(draws[0] * len(chosen))] if len(chosen) else None
            image, boxes, lost = _cropped(
                image, boxes, how.crop, at, draws[1:3], _LEAST_WIDTH / self.images.scale
            )
            aside |= lost
        if how.flip and draws[3] < 0.5:
            image = image.flip(2)
            boxes = boxes[:, [2, 1, 0, 3]]
            boxes[:, ::2] = image.shape[2] - boxes[:, ::2]
        if how.brightness != (1.0, 1.0) and draws[4] < 0.5:
            low, high = how.brightness
            image = (image * (low + (high - low) * draws[5])).clamp(max=255).byte()
        return image, torch.cat([aside[:, None].float(), boxes], 1)

    def _draws(self, purpose: str) -> list[float]:
        return torch.rand(6, generator=generator(self.seed, self.epoch, 0, purpose)).tolist()


def _resized(image: Tensor, boxes: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    size = [max(1, round(scale * side)) for side in image.shape[1:]]
    if size == list(image.shape[1:]):
        return image, boxes
    resized = interpolate(image[None], size, mode="bilinear", antialias=True)[0]
    ratios = [new / old for new, old in zip(size, image.shape[1:], strict=True)]
    return resized, boxes * boxes.new_tensor([ratios[1], ratios[0]] * 2)


def _cropped(
    image: Tensor,
    boxes: Tensor,
    size: tuple[int, int],
    at: Tensor | None,
    draws: Sequence[float],
    least_width: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The image, the boxes in it, and which of them are lost to the crop."""
    border = [max(0, side - has) for side, has in zip(size, image.shape[1:], strict=True)]
    if any(border):
        grey = torch.tensor(STATISTICS[0]).mul(255).byte().view(3, 1, 1)
        padded = pad(image, (0, border[1], 0, border[0]))
        padded[:, image.shape[1] :], padded[:, :, image.shape[2] :] = grey, grey
        image = padded
    corner = []
    for side, has, draw, ends in zip(size, image.shape[1:], draws, ((1, 3), (0, 2)), strict=True):
        start = draw * (has - side)
        if at is not None:  # the pedestrian lies anywhere in the crop
            start = (at[ends[0]] + at[ends[1]]).item() / 2 - draw * side
        corner.append(int(min(max(start, 0), has - side)))
    top, left = corner
    image = image[:, top : top + size[0], left : left + size[1]].contiguous()
    moved = boxes - boxes.new_tensor([left, top, left, top])
    inside = moved.clamp(min=0).minimum(moved.new_tensor([size[1], size[0]] * 2))
    before, after = ((b[:, 2:] - b[:, :2]).clamp(min=0) for b in (moved, inside))
    lost = (after.prod(1) < before.prod(1) / 2) | (after[:, 0] < least_width)
    return image, inside, lost
