"""Cityscapes (Cordts et al., 2016): fine labels of 19 classes."""

from pathlib import Path

from torchvision import datasets

from gpe.data import scan
from gpe.data.labelled_files import LabelledFiles, class_table
from gpe.data.pixels import IGNORE, SegmentationSet
from gpe.errors import InputError, expect_one_of

SPLITS = ("train", "val", "test")

_LABELS = [label for label in datasets.Cityscapes.classes if label.id >= 0]
_TRAINED = sorted(
    (label for label in _LABELS if label.train_id not in (-1, IGNORE)),
    key=lambda label: label.train_id,
)
CLASSES = tuple(label.name for label in _TRAINED)
PALETTE = tuple(label.color for label in _TRAINED)

# From the ids that label files hold to the 19 that networks are trained on.
_TABLE = class_table(
    {label.id: IGNORE if label.ignore_in_eval else label.train_id for label in _LABELS}
)


def cityscapes(
    root: str | Path,
    split: str,
    size: tuple[int, int] | None = None,
    *,
    workers: int = 0,
    max_pixels: int | None = None,
) -> SegmentationSet:
    """One split of Cityscapes; its ids are as ``frankfurt_000000_000294``.

    Args:
        root: holds ``leftImg8bit/`` and ``gtFine/``, unpacked.
        split: ``"train"``, ``"val"`` or ``"test"``.
        size: height and width to resize to, in pixels; None: 1024×2048, as they are.
        workers: processes that read.
        max_pixels: of an image; as for :func:`gpe.data.opening.open_image`.

    Raises:
        InputError: another split, no such folders, or images without labels.
    """
    expect_one_of("split", split, SPLITS)
    root = Path(root).expanduser()
    folders = [scan.split_folder(root / name, split) for name in ("leftImg8bit", "gtFine")]
    if missing := [str(folder) for folder in folders if not folder.is_dir()]:
        raise InputError(
            f"data: no cityscapes in {root}: {', '.join(missing)} missing; unpack "
            "leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip there"
        )
    cities = scan.folders(folders[0])
    images = [Path(path) for city in cities for path in scan.images(folders[0] / city)]
    if not images:
        raise InputError(f"data: no images in the city folders of {folders[0]}")
    ids = tuple(path.stem.removesuffix("_leftImg8bit") for path in images)
    labels = [
        folders[1] / path.parent.name / f"{name}_gtFine_labelIds.png"
        for path, name in zip(images, ids, strict=True)
    ]
    samples = LabelledFiles(images, labels, _TABLE, size, max_pixels)
    return SegmentationSet("cityscapes", samples, ids, CLASSES, PALETTE, workers=workers)
