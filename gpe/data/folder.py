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

from gpe.data.listing import Files, Listing, split
from gpe.data.resident import generator
from gpe.errors import InputError

LAYOUT = "train/CLASS/IMAGE and test/CLASS/IMAGE (or val/), or CLASS/IMAGE"
CHUNK = 64  # images a task: tiny images cost less to decode than to hand to a thread


def files(path: Path, *, seed: int) -> tuple[Files, Files]:
    """The training and the test images below ``path``.

    Args:
        path: a folder with train/ and test/ (or val/), or one tree of class folders, which
            is split 80 to 20 within each class.
        seed: of the split.

    Raises:
        InputError: ``path`` is no folder or not laid out like this, or the classes of its
            two parts differ.
    """
    train, test = _parts(path)
    if train is not None:
        return train, test
    if len(test.paths) < 2:
        raise InputError(f"data: in {path} expected two images or more, to train and to test")
    train_part, test_part = split(test.labels, generator(seed, 0, 0, "split"))
    return test.part(train_part), test.part(test_part)


def test_files(path: Path) -> Files:
    """The test images below ``path``; all of them where there is one tree of class folders.

    Raises:
        InputError: as :func:`files`.
    """
    return _parts(path)[1]


def listings(path: Path, image_size: int, *, seed: int) -> tuple[Listing, Listing]:
    """The images of :func:`files`, each to be read as a square.

    Args:
        path, seed: as there.
        image_size: height and width, in pixels, that images are resized and cropped to.
    """

    def listing(part: Files) -> Listing:
        def read(chosen: Tensor) -> Tensor:
            return decode(part.part(chosen).paths, image_size)

        return Listing(part.labels, part.classes, read)

    train, test = files(path, seed=seed)
    return listing(train), listing(test)


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


def open_image(path: str, at_least: int | None = None) -> Image.Image:
    """An image in RGB.

    Args:
        path: of its file.
        at_least: a large JPEG may be decoded at a smaller scale (which is faster), with no
            side below this number of pixels; None decodes all of it.

    Raises:
        InputError: a file that cannot be read, with its name.
    """
    try:
        with Image.open(path) as image:
            if at_least is not None:
                image.draft(None, (at_least, at_least))
            return image.convert("RGB")
    except Exception as error:  # PIL raises OSError, SyntaxError, struct.error, … by format
        raise InputError(f"data: cannot read the image {path}: {error}") from None


def expect_same_classes(
    train_path: Path, train: Sequence[str], test_path: Path, test: Sequence[str]
) -> None:
    """Raise an InputError unless both parts of a set have the same classes."""
    if odd := sorted(set(train) ^ set(test)):
        raise InputError(
            f"data: expected the same classes in {train_path} and {test_path}; "
            f"only one of them has {', '.join(odd[:5])}{' …' if odd[5:] else ''}"
        )


def _parts(path: Path) -> tuple[Files | None, Files]:
    """Training and test images; None and all of them where there is one tree."""
    if not path.is_dir():
        raise InputError(f"data: {path} is a file; expected a folder of images, unpacked")
    named = [name for name in ("train", "test", "val") if (path / name).is_dir()]
    parts = [name for name in named if _holds_folders(path / name)]
    if "train" in parts and len(parts) > 1:
        train, test = (_list(path / name) for name in parts[:2])
        expect_same_classes(path / "train", train.classes, path / parts[1], test.classes)
        return train, test
    # A class may be called "train" (CIFAR-100 has one), but then it holds images.
    if parts or len(named) > 1:
        raise InputError(f"data: in {path} expected {LAYOUT}, got {', '.join(named)}")
    return None, _list(path)


def _pixels(path: str, size: int) -> np.ndarray:
    image = open_image(path, at_least=2 * size)
    if image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
    return np.asarray(image)


def _holds_folders(path: Path) -> bool:
    return any(entry.is_dir() for entry in os.scandir(path))


def _list(path: Path) -> Files:
    try:
        tree = ImageFolder(path)
    except OSError as error:
        raise InputError(f"data: in {path} expected {LAYOUT}. {error}") from None
    paths = [file for file, _ in tree.samples]
    return Files(paths, torch.tensor(tree.targets), tuple(tree.classes))
