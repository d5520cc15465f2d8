"""How training views are cut from an image and the labels of its pixels."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from gpe.errors import InputError, expect_at_least_one


@dataclass(frozen=True)
class Augmentation:
    """How training views are cut from images.

    Attributes:
        crop: height and width in pixels; None: the whole image, which is then not scaled either.
        scales: images are resized by a factor between these two before.
        flip: mirror half of the views. It washes out what tells left from right.
    """

    crop: tuple[int, int] | None = None
    scales: tuple[float, float] = (1.0, 1.0)
    flip: bool = False

    def __post_init__(self):
        for side in self.crop or ():
            expect_at_least_one("crop", side)
        if not 0 < self.scales[0] <= self.scales[1]:
            raise InputError(f"scales: expected two rising numbers above 0, got {self.scales}")

    def view(
        self, image: Tensor, labels: Tensor, draws: Sequence[float], fill: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """A view of uint8 ``[3,H,W]`` and ``[H,W]``.

        Args:
            draws: four numbers in [0, 1): of the scale, the row, the column and the mirroring.
            fill: red, green, blue and label of what lies beyond a small image.
        """
        if self.crop is not None:
            low, high = self.scales
            image, labels = _scaled(image, labels, low + (high - low) * draws[0])
            image, labels = _cropped(image, labels, self.crop, draws[1:3], fill)
        if self.flip and draws[3] < 0.5:
            image, labels = image.flip(2), labels.flip(1)
        return image, labels


def _scaled(image: Tensor, labels: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    size = [max(1, round(scale * side)) for side in labels.shape]
    if size == list(labels.shape):
        return image, labels
    # interpolate resizes uint8 images itself, without a float copy.
    image = interpolate(image[None], size, mode="bilinear", antialias=True)[0]
    return image, interpolate(labels[None, None], size, mode="nearest-exact")[0, 0]


def _cropped(
    image: Tensor,
    labels: Tensor,
    size: tuple[int, int],
    draws: Sequence[float],
    fill: Sequence[int],
) -> tuple[Tensor, Tensor]:
    missing = [max(0, side - has) for side, has in zip(size, labels.shape, strict=True)]
    if any(missing):
        border = (0, missing[1], 0, missing[0])
        channels = zip((*image, labels), fill, strict=True)
        padded = [pad(channel, border, value=value) for channel, value in channels]
        image, labels = torch.stack(padded[:3]), padded[3]
    (height, width), (h, w) = labels.shape, size
    top, left = int(draws[0] * (height - h + 1)), int(draws[1] * (width - w + 1))
    window = (..., slice(top, top + h), slice(left, left + w))
    return image[window], labels[window]
