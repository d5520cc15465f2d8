"""Any folder of images with one folder a class, as torchvision's ImageFolder lists it."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.datasets import ImageFolder

from gpe.data.listing import Listing, split
from gpe.data.resident import generator
from gpe.errors import InputError

LAYOUT = "train/CLASS/IMAGE and test/CLASS/IMAGE (or val/), or CLASS/IMAGE"
CHUNK = 64  # images a task: tiny images cost less to decode than to hand to a thread


def listings(path: Path, image_size: int, *, seed: int) -> tuple[Listing, Listing]:
    """The training and the test images below ``path``.

    Args:
        path: a folder with train/ and test/ (or val/), or one tree of class folders, which
            is split 80 to 20 within each class.
        image_size: height and width, in pixels, that images are resized and cropped to.
        seed: of the split.

    Raises:
        InputError: ``path`` is no folder or not laid out like this, or the classes of its
            two parts differ.
    """
    if not path.is_dir():
        raise InputError(f"data: {path} is a file; expected a folder of images, unpacked")
    named = [name for name in ("train", "test", "val") if (path / name).is_dir()]
    parts = [name for name in named if _holds_folders(path / name)]
    if "train" in parts and len(parts) > 1:
        train, test = (_list(path / name) for name in parts[:2])
        _expect_same_classes(train, test)
        return tuple(_listing(tree, torch.arange(len(tree)), image_size) for tree in (train, test))
    # A class may be called "train" (CIFAR-100 has one), but then it holds images.
    if parts or len(named) > 1:
        raise InputError(f"data: in {path} expected {LAYOUT}, got {', '.join(named)}")

    tree = _list(path)
    if len(tree) < 2:
        raise InputError(f"data: in {path} expected two images or more, to train and to test")
    train_and_test = split(torch.tensor(tree.targets), generator(seed, 0, 0, "split"))
    return tuple(_listing(tree, part, image_size) for part in train_and_test)


def decode(files: Sequence[str], image_size: int) -> Tensor:
    """Read images in several threads into one tensor.

    Args:
        files: paths.
        image_size: the shorter side is resized to it (bilinear, antialiased), and the
            longer side cropped to it around the centre.

    Returns:
        uint8 ``[N,3,image_size,image_size]``, RGB.

    Raises:
        InputError: a file that cannot be read, with its name.
    """
    images = np.empty((len(files), 3, image_size, image_size), np.uint8)

    def read(start: int) -> None:
        for index, file in enumerate(files[start : start + CHUNK], start):
            images[index] = _pixels(file, image_size).transpose(2, 0, 1)

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(read, range(0, len(files), CHUNK)):
            pass  # raises what a thread raised
    return torch.from_numpy(images)


def _pixels(file: str, size: int) -> np.ndarray:
    try:
        with Image.open(file) as image:
            image.draft(None, (2 * size, 2 * size))  # a large JPEG is decoded at a smaller scale
            image = image.convert("RGB")
    except Exception as error:  # PIL raises OSError, SyntaxError, struct.error, … by format
        raise InputError(f"data: cannot read the image {file}: {error}") from None
    if image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
    return np.asarray(image)


def _holds_folders(path: Path) -> bool:
    return any(entry.is_dir() for entry in os.scandir(path))


def _list(path: Path) -> ImageFolder:
    try:
        return ImageFolder(path)
    except OSError as error:
        raise InputError(f"data: in {path} expected {LAYOUT}. {error}") from None


def _expect_same_classes(train: ImageFolder, test: ImageFolder) -> None:
    if odd := sorted(set(train.classes) ^ set(test.classes)):
        raise InputError(
            f"data: expected the same classes in {train.root} and {test.root}; "
            f"only one of them has {', '.join(odd[:5])}{' …' if odd[5:] else ''}"
        )


def _listing(tree: ImageFolder, part: Tensor, image_size: int) -> Listing:
    """The images of ``tree`` with the indices ``part``, int64 ``[N]``."""

    def read(chosen: Tensor) -> Tensor:
        return decode([tree.samples[index][0] for index in part[chosen].tolist()], image_size)

    return Listing(torch.tensor(tree.targets)[part], tuple(tree.classes), read)
