"""Streets drawn on the fly: a seeded set with pixel labels and boxes, no files, no network.

What they look like, and why position matters in them: :mod:`gpe.data.street_scene`.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gpe.data.citypersons_boxes import BoxedImage
from gpe.data.pixels import Sample, SegmentationSet
from gpe.data.street_scene import CLASSES, PALETTE, Scene, draw

IMAGES = {"train": 20_000, "val": 500}  # where nobody asks for another number


def streets(
    split: str,
    size: tuple[int, int] | None = None,
    *,
    images: int | None = None,
    seed: int = 0,
    workers: int = 0,
) -> SegmentationSet:
    """A split of streets, each drawn when it is asked for; ids are ``streets_val_000000`` ….

    Args:
        split: ``"train"`` or ``"val"``.
        size: height and width in pixels; 128×256 where None.
        images: how many; 20,000 to train and 500 to validate on where None.
        seed: as for :func:`draw`.
        workers: processes that draw.

    Raises:
        InputError: as :func:`draw`.
    """
    height, width = size or (128, 256)
    draw(0, split=split, seed=seed, height=height, width=width)  # raises here, not later
    samples = _Streets(IMAGES[split] if images is None else images, split, seed, height, width)
    ids = tuple(f"streets_{split}_{index:06}" for index in range(len(samples)))
    return SegmentationSet("streets", samples, ids, CLASSES, PALETTE, workers=workers)


def boxes(
    split: str, size: tuple[int, int] | None = None, *, images: int | None = None, seed: int = 0
) -> dict[str, np.ndarray]:
    """The people of :func:`streets` with the same arguments: boxes as in :class:`Scene`, by id.

    Example:
        >>> {name: len(people) for name, people in boxes("val", (64, 128), images=2).items()}
        {'streets_val_000000': 4, 'streets_val_000001': 3}
    """
    found = streets(split, size, images=images, seed=seed)
    assert isinstance(found.samples, _Streets)
    return {name: found.samples.draw(index).boxes for index, name in enumerate(found.ids)}


@dataclass(frozen=True, eq=False)
class BoxedStreets:
    """Streets with the boxes of their people, drawn once (:class:`gpe.data.boxed_views.BoxedSet`).

    The settings of CityPersons count 256 pixels for the height of a street.
    """

    ids: tuple[str, ...]
    images: Tensor  # uint8 [N,3,H,W]
    boxes: tuple[np.ndarray, ...]
    name: str = "streets"

    @property
    def size(self) -> tuple[int, int]:
        return self.images.shape[2], self.images.shape[3]

    @property
    def scale(self) -> float:
        return 256 / self.size[0]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, place: int) -> BoxedImage:
        return BoxedImage(self.images[place], self.boxes[place])


def boxed_streets(
    split: str, size: tuple[int, int] | None = None, *, images: int | None = None, seed: int = 0
) -> BoxedStreets:
    """The streets of :func:`streets` with the same arguments, in memory, with their people.

    Example:
        >>> found = boxed_streets("val", (64, 128), images=2)
        >>> found[1].image.shape, found[1].boxes.shape, found.scale
        (torch.Size([3, 64, 128]), (3, 10), 4.0)
    """
    found = streets(split, size, images=images, seed=seed)
    assert isinstance(found.samples, _Streets)
    scenes = [found.samples.draw(index) for index in range(len(found))]
    pixels = torch.stack([torch.from_numpy(scene.image).permute(2, 0, 1) for scene in scenes])
    return BoxedStreets(found.ids, pixels, tuple(scene.boxes for scene in scenes))


@dataclass(frozen=True)
class _Streets:
    count: int
    split: str
    seed: int
    height: int
    width: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.count:
            raise IndexError(index)
        scene = self.draw(index)
        return torch.from_numpy(scene.image).permute(2, 0, 1), torch.from_numpy(scene.labels)

    def draw(self, index: int) -> Scene:
        where = {"height": self.height, "width": self.width}
        return draw(index, split=self.split, seed=self.seed, **where)
