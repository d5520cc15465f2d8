"""CamVid (Brostow et al., 2009) in its usual form of 11 classes (Badrinarayanan et al., 2017)."""

from pathlib import Path

from gpe.data import scan
from gpe.data.labelled_files import class_table
from gpe.data.pixels import IGNORE
from gpe.errors import InputError

CLASSES = (
    *("sky", "building", "pole", "road", "pavement", "tree"),
    *("sign", "fence", "car", "pedestrian", "bicyclist"),
)
PALETTE = (
    *((128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222)),
    *((128, 128, 0), (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192)),
)
SPLITS = ("train", "val", "test")

TABLE = class_table({label: label for label in range(11)} | {11: IGNORE})


def files(root: Path, split: str) -> tuple[list[Path], list[Path], list[str]]:
    """Images, labels and ids of a split; ids are file names without their ending.

    ``root`` holds ``camvid/``, or is it: ``{train,val,test}/`` with images, and
    ``{train,val,test}annot/`` with labels of the same names, PNG with values 0 to 11. Hidden files
    are left out; splits may be called Training, valid or alike.
    """
    folder = root / "camvid" if (root / "camvid").is_dir() else root
    part = scan.split_folder(folder, split)
    images = [Path(path) for path in scan.images(part)] if part.is_dir() else []
    if not images:
        raise InputError(
            f"data: no camvid in {root}: expected images in {folder / split} and labels in "
            f"{folder / (split + 'annot')}"
        )
    labels = [folder / f"{part.name}annot" / f"{path.stem}.png" for path in images]
    return images, labels, [path.stem for path in images]
