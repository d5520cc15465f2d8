"""ImageNet (ILSVRC 2012, Russakovsky et al., 2015), as torchvision unpacks it."""

from dataclasses import replace
from pathlib import Path

import torch

from gpe.data import scan
from gpe.data.folder import expect_same_classes, list_files
from gpe.data.listing import Files
from gpe.errors import InputError

# Mean and std per channel that networks for ImageNet are usually trained with.
STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

ARCHIVES = "the devkit_t12, img_train and img_val archives of ILSVRC2012"


def files(root: Path) -> tuple[Files, Files]:
    """The training images, and the 50,000 called validation images, which serve as test images.

    ``root`` holds torchvision's ``meta.bin``, ``train/`` and ``val/``, which have the same classes.
    """
    _expect(root, "meta.bin", "train", "val")
    found = _files(root, "train"), _files(root, "val")
    train, val = root / "train", root / "val"
    expect_same_classes(train, scan.folders(train), val, scan.folders(val))
    return found


def test_files(root: Path) -> Files:
    """The images called validation images alone; ``train/`` may be missing."""
    _expect(root, "meta.bin", "val")
    return _files(root, "val")


def _expect(root: Path, *names: str) -> None:
    """What torchvision unpacks: 150 GB, which is not for an experiment to begin."""
    kinds = {"meta.bin": Path.is_file, "train": Path.is_dir, "val": Path.is_dir}
    missing = [name for name, is_there in kinds.items() if not is_there(root / name)]
    if set(missing) & set(names):
        raise InputError(
            f"data: no imagenet in {root}: {', '.join(missing)} missing. Put {ARCHIVES} there; "
            f"torchvision.datasets.ImageNet({str(root)!r}, split) unpacks them, "
            "once for split 'train' and once for 'val'"
        )


def _files(root: Path, part: str) -> Files:
    try:
        names = torch.load(root / "meta.bin", weights_only=True)[0]
        found = list_files(root / part)
        # Of its synonyms the first.
        return replace(found, classes=tuple(names[wnid][0] for wnid in found.classes))
    except Exception as error:  # torch.load raises almost anything on a file not its own
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"data: no intact imagenet in {root}: {type(error).__name__}: {reason}"
        ) from None
