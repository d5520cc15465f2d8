"""Images on disk with a file of labels each, as segmentation datasets have them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from gpe.data.opening import open_image, open_labels, size_and_orientation, turned
from gpe.data.pixels import IGNORE, Sample, named
from gpe.errors import InputError

_UNKNOWN = -1


@dataclass(frozen=True, eq=False)
class LabelledFiles:
    """Images and labels by index.

    An image is turned as its EXIF orientation says, and its labels with it: they are of the pixels
    as they are stored, unless their size says that they are upright, or they have a tag too.

    Attributes:
        images, labels: paths; labels are images with one channel.
        table: int16 ``[256]``, the class of each value; 255 to be ignored, -1 if unknown.
        size: height and width in pixels that both are resized to; None: as they are.
        max_pixels: of an image; as for :func:`gpe.data.opening.open_image`.

    Raises:
        InputError: labels that are missing, and which; when an image is read: a file that cannot
            be, labels of another size or form, an unknown value.
    """

    images: Sequence[Path]
    labels: Sequence[Path]
    table: np.ndarray
    size: tuple[int, int] | None = None
    max_pixels: int | None = None

    def __post_init__(self):
        if missing := [path for path in self.labels if not path.is_file()]:
            raise InputError(
                f"data: {len(missing)} of {len(self.labels)} images have no labels: expected "
                f"{named(missing)}"
            )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        labels = self.labels_at(index)
        image = open_image(self.images[index], max_pixels=self.max_pixels)
        if self.size is not None and self.size[::-1] != image.size:
            image = image.resize(self.size[::-1], Image.Resampling.BILINEAR)
        return pil_to_tensor(image), labels

    def labels_at(self, index: int) -> Tensor:
        """Labels ``[H,W]``, upright as their image is, which is not decoded."""
        path, limit = self.labels[index], self.max_pixels
        labels, own_tag = open_labels(path, max_pixels=limit)
        size, tag = size_and_orientation(self.images[index], max_pixels=limit)
        lies = tag >= 5 and size != size[::-1]  # then the size tells whether labels lie too
        if own_tag == 1 and not (lies and labels.size == size):
            labels = turned(labels, tag)
        if size != labels.size:
            sizes = ["×".join(map(str, reversed(each))) for each in (size, labels.size)]
            raise InputError(
                f"data: {path}: expected labels of the size of their image, {sizes[0]}, "
                f"got {sizes[1]}"
            )
        if self.size is not None:
            labels = labels.resize(self.size[::-1], Image.Resampling.NEAREST)
        values = np.asarray(labels)
        classes = self.table[values]
        if (classes == _UNKNOWN).any():
            known = [str(value) for value in np.flatnonzero(self.table != _UNKNOWN)]
            raise InputError(
                f"data: {path}: expected labels from {known[0]} to {known[-2]} or {known[-1]}, "
                f"got {values[classes == _UNKNOWN][0]}"
            )
        return torch.from_numpy(classes.astype(np.uint8))


def class_table(classes: Mapping[int, int]) -> np.ndarray:
    """The table of :class:`LabelledFiles`: value to class, 255 to 255, all else unknown."""
    table = np.full(256, _UNKNOWN, np.int16)
    table[IGNORE] = IGNORE
    for value, label in classes.items():
        table[value] = label
    return table
