"""Streets drawn on the fly: a seeded set with pixel labels and boxes, no files, no network.

What they look like, and why position matters in them: :mod:`gpe.data.street_scene`.
"""

from dataclasses import dataclass

import torch

from gpe.data.citypersons_boxes import BoxedSet
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

    Of 128×256 pixels where ``size`` is None; 20,000 to train and 500 to validate on where
    ``images`` is.

    Raises:
        InputError: as :func:`draw`.
    """
    height, width = size or (128, 256)
    draw(0, split=split, seed=seed, height=height, width=width)  # raises here, not later
    samples = _Streets(IMAGES[split] if images is None else images, split, seed, height, width)
    ids = tuple(f"streets_{split}_{index:06}" for index in range(len(samples)))
    return SegmentationSet("streets", samples, ids, CLASSES, PALETTE, workers=workers)


def boxed_streets(
    split: str, size: tuple[int, int] | None = None, *, images: int | None = None, seed: int = 0
) -> BoxedSet:
    """The streets of :func:`streets` with the same arguments, in memory, with their people.

    The settings of CityPersons count 256 pixels for the height of a street.

    Example:
        >>> found = boxed_streets("val", (64, 128), images=2)
        >>> found[1].image.shape, found[1].boxes.shape, found.scale
        (torch.Size([3, 64, 128]), (3, 10), 4.0)
    """
    found = streets(split, size, images=images, seed=seed)
    assert isinstance(found.samples, _Streets)
    scenes = [found.samples.draw(index) for index in range(len(found))]
    pixels = torch.stack([torch.from_numpy(scene.image).permute(2, 0, 1) for scene in scenes])
    boxes, size = tuple(scene.boxes for scene in scenes), (pixels.shape[2], pixels.shape[3])
    return BoxedSet("streets", found.ids, pixels, boxes, size, scale=256 / size[0])


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
