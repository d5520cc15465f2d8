"""ImageNet (ILSVRC 2012, Russakovsky et al., 2015), as torchvision unpacks and lists it."""

from pathlib import Path

import torch
from torchvision import datasets

from gpe.data.folder import expect_same_classes
from gpe.data.listing import Files
from gpe.errors import InputError

# Mean and std per channel that networks for ImageNet are usually trained with.
STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

ARCHIVES = "the devkit_t12, img_train and img_val archives of ILSVRC2012"


def files(root: Path) -> tuple[Files, Files]:
    """The training images, and the 50,000 called validation images, which serve as test images.

    Args:
        root: the folder that holds torchvision's ``meta.bin``, ``train/`` and ``val/``.

    Raises:
        InputError: one of the three is missing or damaged, or ``train/`` and ``val/`` do not
            have the same classes.
    """
    # Before torchvision looks for archives: unpacking 150 GB is not for an experiment to begin.
    if missing := [name for name in ("meta.bin", "train", "val") if not (root / name).exists()]:
        raise InputError(
            f"data: no imagenet in {root}: {', '.join(missing)} missing. Put {ARCHIVES} there; "
            f"torchvision.datasets.ImageNet({str(root)!r}, split) unpacks them, "
            "once for split 'train' and once for 'val'"
        )
    try:
        train, test = (datasets.ImageNet(root, split) for split in ("train", "val"))
    except Exception as error:  # torch.load raises almost anything on a file not its own
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"data: no intact imagenet in {root}: {type(error).__name__}: {reason}"
        ) from None
    expect_same_classes(root / "train", train.wnids, root / "val", test.wnids)
    return _files(train), _files(test)


def _files(dataset: datasets.ImageNet) -> Files:
    paths = [path for path, _ in dataset.samples]
    classes = tuple(names[0] for names in dataset.classes)  # of its synonyms the first
    return Files(paths, torch.tensor(dataset.targets), classes)
