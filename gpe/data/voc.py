"""PASCAL VOC 2012 segmentation (Everingham et al., 2015), listed by torchvision."""

from pathlib import Path

from torchvision import datasets

from gpe.data.labelled_files import LabelledFiles, class_table
from gpe.data.pixels import SegmentationSet
from gpe.errors import InputError, expect_one_of

CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat"),
    *("chair", "cow", "dining table", "dog", "horse", "motorbike", "person", "potted plant"),
    *("sheep", "sofa", "train", "tv monitor"),
)
SPLITS = ("train", "val", "trainval")


def _colour(label: int) -> tuple[int, int, int]:
    """VOC's own: the bits of a label, dealt to red, green and blue, the highest first."""
    channels = [0, 0, 0]
    for bit in range(8):
        channels[bit % 3] |= (label >> bit & 1) << (7 - bit // 3)
    return tuple(channels)


PALETTE = tuple(map(_colour, range(len(CLASSES))))

_TABLE = class_table({label: label for label in range(len(CLASSES))})


def voc(
    root: str | Path, split: str, size: tuple[int, int] | None = None, *, workers: int = 0
) -> SegmentationSet:
    """One split of VOC 2012; its ids are as ``2007_000033``, its images of many sizes.

    Args:
        root: holds ``VOCdevkit/VOC2012/``, unpacked.
        split: ``"train"``, ``"val"`` or ``"trainval"``.
        size: height and width to resize to, in pixels; None: as they are.
        workers: processes that read.

    Raises:
        InputError: another split, no such folders, or images without labels.
    """
    expect_one_of("split", split, SPLITS)
    root = Path(root).expanduser()
    folder = root / "VOCdevkit" / "VOC2012"
    try:
        listed = datasets.VOCSegmentation(str(root), year="2012", image_set=split)
    except (RuntimeError, OSError):
        raise InputError(
            f"data: no voc in {root}: expected {folder / 'JPEGImages'}, "
            f"{folder / 'SegmentationClass'} and "
            f"{folder / 'ImageSets' / 'Segmentation' / (split + '.txt')}"
        ) from None
    images = [Path(path) for path in listed.images]
    if not images:
        raise InputError(f"data: no images are listed for {split} in {folder}")
    samples = LabelledFiles(images, [Path(path) for path in listed.masks], _TABLE, size)
    ids = tuple(path.stem for path in images)
    return SegmentationSet("voc", samples, ids, CLASSES, PALETTE, workers=workers)
