"""CityPersons (Zhang et al., 2017): Cityscapes' images with boxes around people."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from gpe.data.citypersons import SUFFIX, read_annotations
from gpe.data.listing import spread
from gpe.data.opening import open_image
from gpe.data.pixels import named
from gpe.errors import InputError, expect_one_of

SPLITS = ("train", "val")
SIZE = (1024, 2048)  # height and width that boxes are measured in
LEAST_HEIGHT = 50  # of a pedestrian to train on, in pixels


class BoxedImage(NamedTuple):
    """An image and the people in it.

    Attributes:
        image: uint8 ``[3,H,W]``, RGB.
        boxes: int64 ``[m,10]``, rows as of :func:`gpe.data.citypersons.read_annotations`.
    """

    image: Tensor
    boxes: np.ndarray


@dataclass(frozen=True, eq=False)
class BoxedSet:
    """Images of one size with their people.

    Attributes:
        name: of the dataset.
        ids: of the images.
        images: uint8 ``[3,H,W]`` each, RGB, or files that are read when they are asked for.
        boxes: int64 ``[m,10]`` of each, as of :func:`gpe.data.citypersons.read_annotations`.
        size: height and width, in pixels.
        scale: pixels that CityPersons' settings would count for a pixel of these images.
    """

    name: str
    ids: tuple[str, ...]
    images: Tensor | list[Path]
    boxes: tuple[np.ndarray, ...]
    size: tuple[int, int]
    scale: float = 1.0

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, place: int) -> BoxedImage:
        image = self.images[place]
        if isinstance(image, Path):
            file, image = image, pil_to_tensor(open_image(image))
            if image.shape[1:] != self.size:
                expected, came = ("×".join(map(str, size)) for size in (self.size, image.shape[1:]))
                raise InputError(
                    f"data: {file}: expected {expected} pixels, in which the boxes are measured, "
                    f"got {came}"
                )
        return BoxedImage(image, self.boxes[place])


def citypersons(
    root: str | Path,
    split: str = "val",
    *,
    annotations: str | Path | None = None,
    images: int | None = None,
) -> BoxedSet:
    """One split of CityPersons.

    Args:
        root: holds Cityscapes' ``leftImg8bit/``, unpacked.
        split: ``"train"`` or ``"val"``.
        images: at most so many, spread evenly over the split; all where None.
        annotations: CityPersons' ``anno_train.mat`` or ``anno_val.mat``; where None, that of the
            split in ``root`` or in its folder ``annotations``.

    Raises:
        InputError: another split; a file or folder that is missing or of another form; images
            without annotations, or annotations without their image, and which; when an image is
            read: one that cannot be, or that has not 1024×2048 pixels.
    """
    expect_one_of("split", split, SPLITS)
    root = Path(root).expanduser()
    folder = root / "leftImg8bit" / split
    if not folder.is_dir():
        raise InputError(
            f"data: no citypersons in {root}: {folder} missing; unpack leftImg8bit_trainvaltest.zip"
            " of Cityscapes there"
        )
    annotations = annotations or annotations_of(root, split)
    boxes = read_annotations(annotations)
    files = {path.name.removesuffix(SUFFIX): path for path in folder.glob(f"*/[!.]*{SUFFIX}")}
    for lacking, what, had in (
        (sorted(files.keys() - boxes.keys()), f"boxes in {annotations}", files),
        (sorted(boxes.keys() - files.keys()), f"image in {folder}", boxes),
    ):
        if lacking:
            raise InputError(
                f"annotations: {len(lacking)} of {len(had)} have no {what}: {named(lacking)}"
            )
    if not boxes:
        raise InputError(f"data: no images in the city folders of {folder}")
    names = tuple(boxes)
    ids = [names[place] for place in spread(len(names), images)]
    chosen = [files[name] for name in ids], tuple(boxes[name] for name in ids)
    return BoxedSet("citypersons", tuple(ids), *chosen, SIZE)


def annotations_of(root: str | Path, split: str) -> Path:
    """``anno_train.mat`` or ``anno_val.mat`` in ``root`` or in its folder ``annotations``."""
    root = Path(root).expanduser()
    places = [part / f"anno_{split}.mat" for part in (root, root / "annotations")]
    return next((path for path in places if path.is_file()), places[0])


def training_boxes(boxes: np.ndarray, least_height: float = LEAST_HEIGHT) -> tuple[Tensor, Tensor]:
    """Boxes to train on, and boxes to be ignored: neither people nor background.

    Pedestrians (class 1) of the least height or more are to be found; lower ones and all other
    classes, riders and groups among them, are to be ignored. Both come as float32 ``[p,4]``,
    corners in pixels: x2 = x1 + w.

    Source:
        The annotations that CityPersons' detectors are trained on (Hasan et al., "Generalizable
        pedestrian detection: the elephant in the room", CVPR 2021).

    Example:
        >>> tall, low = ([1, 10, 20, 30, h, 24000, 10, 20, 30, h] for h in (70, 40))
        >>> training_boxes(np.array([tall, low]))
        (tensor([[10., 20., 40., 90.]]), tensor([[10., 20., 40., 60.]]))
    """
    boxes = boxes.reshape(-1, 10)
    corners = torch.from_numpy(boxes[:, 1:5].astype(np.float32))
    corners[:, 2:] += corners[:, :2].clone()
    wanted = torch.from_numpy((boxes[:, 0] == 1) & (boxes[:, 4] >= least_height))
    return corners[wanted], corners[~wanted]
