"""PASCAL VOC 2012 segmentation (Everingham et al., 2015)."""

from pathlib import Path

from gpe.data.labelled_files import class_table
from gpe.errors import InputError

CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat"),
    *("chair", "cow", "dining table", "dog", "horse", "motorbike", "person", "potted plant"),
    *("sheep", "sofa", "train", "tv monitor"),
)
SPLITS = ("train", "val", "trainval")


def _colour(label: int) -> tuple[int, int, int]:
    """VOC's own: the bits of a label, dealt to red, green and blue, the highest first."""
    red, green, blue = (
        sum((label >> bit & 1) << (7 - bit // 3) for bit in range(channel, 8, 3))
        for channel in range(3)
    )
    return red, green, blue


PALETTE = tuple(map(_colour, range(len(CLASSES))))

TABLE = class_table({label: label for label in range(len(CLASSES))})


def files(root: Path, split: str) -> tuple[list[Path], list[Path], list[str]]:
    """Images of many sizes, labels and ids of a split; ids are as ``2007_000033``.

    ``root`` holds ``VOCdevkit/VOC2012/``, unpacked.
    """
    folder = root / "VOCdevkit" / "VOC2012"
    lists = folder / "ImageSets" / "Segmentation" / f"{split}.txt"
    places = folder / "JPEGImages", folder / "SegmentationClass"
    if not lists.is_file() or not all(place.is_dir() for place in places):
        raise InputError(f"data: no voc in {root}: expected {places[0]}, {places[1]} and {lists}")
    try:
        ids = lists.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"data: cannot read {lists}: {error}") from None
    if not ids:
        raise InputError(f"data: no images are listed for {split} in {folder}")
    return (
        [places[0] / f"{name}.jpg" for name in ids],
        [places[1] / f"{name}.png" for name in ids],
        ids,
    )
