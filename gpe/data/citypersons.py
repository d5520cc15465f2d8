"""Images with people on one side only: CityPersons' boxes (Zhang et al., 2017), or pixel labels.

The subsets val-left and val-right of the paper, section 4.2.2, over which the channels of one side
are ranked.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from gpe.data.pixels import SegmentationSet
from gpe.errors import InputError, expect_one_of

Side = Literal["left", "right"]
WIDTH = 2048  # of Cityscapes' images, in pixels

_COLUMNS = "class, x, y, w, h, number, x, y, w and h of what is seen"
SUFFIX = "_leftImg8bit.png"


def images_on_side(path: str | Path, side: Side, *, width: int = WIDTH) -> list[str]:
    """The ids of the images all of whose people are on one side, and which have any.

    People are all boxes, those that CityPersons has to be ignored included; a box is on the left
    where it ends at the middle or before, on the right where it begins there or behind.

    Args:
        path: CityPersons' ``anno_val.mat`` or ``anno_train.mat``.
        side: ``"left"`` (42 images of ``anno_val.mat``) or ``"right"`` (59).
        width: of the images, in pixels.

    Raises:
        InputError: another side, a file that is missing or of another form, or no such image.

    Source:
        Section 4.2.2.
    """
    found = on_side(read_annotations(path), side, width=width)
    if not found:
        raise InputError(f"side: expected images of {path} with people on the {side} only, got 0")
    return found


def on_side(boxes: Mapping[str, np.ndarray], side: Side, *, width: int) -> list[str]:
    """The rule of :func:`images_on_side`, for boxes ``[n,10]`` by id.

    Example:
        >>> one = np.array([[1, 30, 5, 20, 50, 24001, 30, 5, 20, 50]])
        >>> on_side({"a": one, "b": one + 90, "c": one[:0]}, "left", width=100)
        ['a']
    """
    expect_one_of("side", side, get_args(Side))

    def is_there(people: np.ndarray) -> bool:
        x, w = people[:, 1].astype(np.float64), people[:, 3]
        inside = x + w <= width / 2 if side == "left" else x >= width / 2
        return bool(len(people) and inside.all())

    return [name for name, people in boxes.items() if is_there(people)]


def labels_on_side(
    images: SegmentationSet, side: Side, *, class_name: str = "person", batch_size: int = 1
) -> list[str]:
    """As :func:`images_on_side`, of a set that has pixel labels alone; its images are not read.

    A middle column is on neither side. ``batch_size`` is 1 where images have different sizes.

    Raises:
        InputError: another side, a class that the set does not have, or no such image.
    """
    expect_one_of("side", side, get_args(Side))
    expect_one_of("class_name", class_name, images.classes)
    label = images.classes.index(class_name)
    found = []
    for labels, ids in images.label_batches(batch_size):
        columns = (labels == label).any(1)  # [n,W]
        width = columns.shape[1]
        halves = columns[:, : width // 2], columns[:, (width + 1) // 2 :]
        inside = halves[0 if side == "left" else 1].sum(1)
        chosen = (inside > 0) & (inside == columns.sum(1))
        found += [name for name, one in zip(ids, chosen.tolist(), strict=True) if one]
    if not found:
        raise InputError(
            f"side: expected images of {images.name} with {class_name} on the {side} only, got 0"
        )
    return found


def read_annotations(path: str | Path) -> dict[str, np.ndarray]:
    """The boxes of CityPersons' ``anno_*.mat``: int64 ``[n,10]`` by image id.

    The columns are class, x, y, width and height of the box, a number, and x, y, width and height
    of what is seen; class 0 is to be ignored, 1 pedestrians, 2 riders, 3 sitting persons, 4 other
    postures, 5 groups.

    Raises:
        InputError: the file is missing or of another form.
    """
    path = Path(path).expanduser()
    expected = f"path: expected {path} to hold CityPersons' annotations"
    if not path.is_file():
        raise InputError(f"path: there is no {path}")
    try:
        content = loadmat(path, simplify_cells=True)
    except (MatReadError, ValueError, TypeError, NotImplementedError, OSError, EOFError) as error:
        raise InputError(f"{expected}, got what is no .mat file: {error}") from None
    names = [name for name in content if not name.startswith("__")]
    wanted = [name for name in names if name.startswith("anno_")]
    if len(wanted) != 1:
        raise InputError(f"{expected}, one variable anno_*, got {', '.join(names) or 'none'}")
    found = {}
    for image in np.atleast_1d(content[wanted[0]]):
        if not isinstance(image, dict) or not {"im_name", "bbs"} <= image.keys():
            raise InputError(f"{expected}, images with im_name and bbs, got {image!r:.80}")
        # One box comes without its row, none as an empty array of any shape.
        boxes = np.asarray(image["bbs"])
        boxes = boxes.reshape(-1, 10) if boxes.size in (0, 10) else boxes
        if boxes.ndim != 2 or boxes.shape[1] != 10 or boxes.dtype.kind not in "iuf":
            raise InputError(
                f"{expected}, boxes with ten columns ({_COLUMNS}), got {boxes.dtype} "
                f"{list(boxes.shape)} of {image['im_name']}"
            )
        # The file's integers are as short as they can be, and would overflow in sums.
        found[str(image["im_name"]).removesuffix(SUFFIX)] = boxes.astype(np.int64)
    return found
