"""Images on disk with a file of labels each, as segmentation datasets have them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

from gpe.data.folder import open_image
from gpe.data.pixels import IGNORE, Sample, named
from gpe.errors import InputError

_UNKNOWN = -1


@dataclass(frozen=True, eq=False)
class LabelledFiles:
    """Images and labels by index.

    Attributes:
        images: paths.
        labels: paths of images with one channel, whose values are labels.
        table: int16 ``[256]``, the class of each such value; 255 to be ignored, -1 if unknown.
        size: height and width in pixels that both are resized to; None: as they are.

    Raises:
        InputError: labels that are missing, and which; when an image is read: a file that cannot
            be, labels of another size or form, an unknown value.
    """

    images: Sequence[Path]
    labels: Sequence[Path]
    table: np.ndarray
    size: tuple[int, int] | None = None

    def __post_init__(self):
        if missing := [path for path in self.labels if not path.is_file()]:
            raise InputError(
                f"data: {len(missing)} of {len(self.labels)} images have no labels: expected "
                f"{named(missing)}"
            )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        path = self.labels[index]
        image, labels = open_image(str(self.images[index])), _open_labels(path)
        if image.size != labels.size:
            sizes = ["×".join(map(str, reversed(each.size))) for each in (image, labels)]
            raise InputError(
                f"data: {path}: expected labels of the size of their image, {sizes[0]}, "
                f"got {sizes[1]}"
            )
        if self.size is not None and self.size[::-1] != image.size:
            image = image.resize(self.size[::-1], Image.Resampling.BILINEAR)
            labels = labels.resize(self.size[::-1], Image.Resampling.NEAREST)
        values = np.asarray(labels)
        classes = self.table[values]
        if (classes == _UNKNOWN).any():
            known = [str(value) for value in np.flatnonzero(self.table != _UNKNOWN)]
            raise InputError(
                f"data: {path}: expected labels from {known[0]} to {known[-2]} or {known[-1]}, "
                f"got {values[classes == _UNKNOWN][0]}"
            )
        return pil_to_tensor(image), torch.from_numpy(classes.astype(np.uint8))


def class_table(classes: Mapping[int, int]) -> np.ndarray:
    """The table of :class:`LabelledFiles`: value to class, 255 to 255, all else unknown."""
    table = np.full(256, _UNKNOWN, np.int16)
    table[IGNORE] = IGNORE
    for value, label in classes.items():
        table[value] = label
    return table


def _open_labels(path: Path) -> Image.Image:
    try:
        with Image.open(path) as labels:
            labels.load()
    except Exception as error:  # PIL raises OSError, SyntaxError, struct.error, … by format
        raise InputError(f"data: cannot read the labels {path}: {error}") from None
    if labels.mode not in ("L", "P"):
        raise InputError(
            f"data: {path}: expected one channel of 8 bits that holds labels, got {labels.mode}"
        )
    return labels
