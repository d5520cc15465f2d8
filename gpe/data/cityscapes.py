"""Cityscapes (Cordts et al., 2016): fine labels of 19 classes."""

from pathlib import Path

from torchvision import datasets

from gpe.data import scan
from gpe.data.labelled_files import class_table
from gpe.data.pixels import IGNORE
from gpe.errors import InputError

SPLITS = ("train", "val", "test")

_LABELS = [label for label in datasets.Cityscapes.classes if label.id >= 0]
_TRAINED = sorted(
    (label for label in _LABELS if label.train_id not in (-1, IGNORE)),
    key=lambda label: label.train_id,
)
CLASSES = tuple(label.name for label in _TRAINED)
PALETTE = tuple(label.color for label in _TRAINED)

# From the ids that label files hold to the 19 that networks are trained on.
TABLE = class_table(
    {label.id: IGNORE if label.ignore_in_eval else label.train_id for label in _LABELS}
)


def files(root: Path, split: str) -> tuple[list[Path], list[Path], list[str]]:
    """Images, labels and ids of a split; ids are as ``frankfurt_000000_000294``.

    ``root`` holds ``leftImg8bit/`` and ``gtFine/``, unpacked.
    """
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
    ids = [path.stem.removesuffix("_leftImg8bit") for path in images]
    labels = [
        folders[1] / path.parent.name / f"{name}_gtFine_labelIds.png"
        for path, name in zip(images, ids, strict=True)
    ]
    return images, labels, ids
