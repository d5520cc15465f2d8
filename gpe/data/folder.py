"""Any folder of images: one folder a class, or loose images without labels."""

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import ImageOps
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from gpe.data import scan
from gpe.data.listing import Files, Listing, split
from gpe.data.opening import Interpolation, open_image, resampling
from gpe.data.resident import generator
from gpe.errors import InputError

LAYOUT = "train/CLASS/IMAGE and test/CLASS/IMAGE (or val/), or CLASS/IMAGE, or images alone"
CHUNK = 64  # images a task: tiny images cost less to decode than to hand to a thread


def files(path: Path, *, seed: int) -> tuple[Files, Files]:
    """The training and the test images below ``path``.

    It holds train/ and test/ (or val/), or is one tree of class folders, which is split 80 to 20
    by ``seed`` within each class, or holds images alone, without labels. Hidden and system entries
    are left out; so are links to a folder above, and what is no regular file. Splits may be called
    train or training, test or testing, val, valid or validation, in any case. Classes that are all
    called by numbers come in the order of these.

    Raises:
        InputError: it is no folder or not laid out like this, or the classes of its parts differ.
    """
    train, test = _parts(path)
    if train is not None:
        return list_files(train), list_files(test)
    whole = list_files(test)
    if len(whole.paths) < 2:
        raise InputError(f"data: in {path} expected two images or more, to train and to test")
    train_part, test_part = split(whole.labels, generator(seed, 0, 0, "split"))
    return whole.part(train_part), whole.part(test_part)


def test_files(path: Path) -> Files:
    """The test images below ``path``; all of them where there is one tree, or images alone."""
    return list_files(_parts(path)[1])


def listing(
    part: Files, image_size: int, interpolation: Interpolation, max_pixels: int | None
) -> Listing:
    """Images of :func:`files`, each to be read as a square, by :func:`decode`."""

    def read(chosen: Tensor) -> Tensor:
        paths = part.part(chosen).paths
        return decode(paths, image_size, interpolation=interpolation, max_pixels=max_pixels)

    return Listing(part.labels, part.classes, read)


def decode(
    files: Sequence[str],
    image_size: int,
    *,
    interpolation: Interpolation = "bilinear",
    max_pixels: int | None = None,
) -> Tensor:
    """Files read in several threads into one tensor, uint8 ``[N,3,image_size,image_size]``, RGB.

    The shorter side is resized to ``image_size`` (antialiased), and the longer side cropped to it
    around the centre.

    Raises:
        InputError: a file that cannot be read, with its name.
    """
    images = np.empty((len(files), 3, image_size, image_size), np.uint8)
    size = image_size, image_size

    def read(start: int) -> None:
        for index, file in enumerate(files[start : start + CHUNK], start):
            image = open_image(file, at_least=2 * image_size, max_pixels=max_pixels)
            if image.size != size:
                image = ImageOps.fit(image, size, resampling(interpolation))
            images[index] = np.asarray(image).transpose(2, 0, 1)

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(read, range(0, len(files), CHUNK)):
            pass  # raises what a thread raised
    return torch.from_numpy(images)


def expect_same_classes(
    train_path: Path, train: Sequence[str], test_path: Path, test: Sequence[str]
) -> None:
    """Raise an InputError unless both parts of a set have the same classes."""
    if odd := sorted(set(train) ^ set(test)):
        raise InputError(
            f"data: expected the same classes in {train_path} and {test_path}; "
            f"only one of them has {', '.join(odd[:5])}{' …' if odd[5:] else ''}"
        )


def list_files(path: Path) -> Files:
    """The images of one tree: class folders, whose labels follow the order of their names, or none.

    Raises:
        InputError: no images, a class without, or classes that are nested one too deep.
    """
    names = scan.in_order(scan.folders(path))
    loose = scan.images(path)
    skip = {scan.key(path / name) for name in names}
    if len(skip) < len(names):
        raise InputError(f"data: in {path} expected {LAYOUT}, got links from one class to another")
    by_class = {name: scan.images(path / name, deep=True, skip=skip) for name in names}
    if loose and not any(by_class.values()):
        return Files(loose, torch.full((len(loose),), -1), ())
    empty = [name for name in names if not by_class[name]]
    if empty or not names:
        reason = f"no images for the classes {', '.join(empty)}" if names else "no images"
        raise InputError(
            f"data: in {path} expected {LAYOUT}, got {reason}; images end in "
            f"{', '.join(IMG_EXTENSIONS)}"
        )
    _expect_flat(path, by_class)
    if nowhere := scan.dangling(path):
        _say(f"data: links of {path} lead nowhere, and are left out: {', '.join(nowhere)}")
    if loose:
        _say(f"data: {len(loose)} images beside the class folders of {path} are left out")
    if names != sorted(names):
        _say(f"data: the classes of {path} are numbers, and come in their order")
    labels = torch.arange(len(names)).repeat_interleave(
        torch.tensor([len(found) for found in by_class.values()])
    )
    return Files([file for found in by_class.values() for file in found], labels, tuple(names))


def _parts(path: Path) -> tuple[Path | None, Path]:
    """The folders of training and test images; None and the whole where there is one tree."""
    if not path.is_dir():
        raise InputError(f"data: {path} is a file; expected a folder of images, unpacked")
    named = scan.splits(path)
    parts = [(name, part) for name, part in named if scan.folders(part)]
    for name in dict(parts):
        scan.expect_single([part for other, part in parts if other == name])
    if len(parts) > 1 and parts[0][0] == "train":
        train, test = parts[0][1], parts[1][1]
        expect_same_classes(train, scan.folders(train), test, scan.folders(test))
        return train, test
    # A class may be called "train" (CIFAR-100 has one), but then it holds images.
    if parts or len(named) > 1:
        got = ", ".join(part.name for _, part in named)
        raise InputError(f"data: in {path} expected {LAYOUT}, got {got}")
    return None, path


def _expect_flat(path: Path, by_class: dict[str, list[str]]) -> None:
    """Classes hold images, or one folder of the same name each, as Tiny ImageNet's do."""
    inner: set[str] = set()
    for name, found in by_class.items():
        start = len(str(path / name)) + 1
        places = [file[start:].split(os.sep) for file in found]
        flat = min(map(len, places)) == 1
        inner |= set() if flat else {parts[0] for parts in places}
        if len(inner) > 1 or (not flat and max(map(len, places)) > 2):
            raise InputError(
                f"data: in {path} expected {LAYOUT}, got folders instead of images in {name}: "
                f"{', '.join(sorted(inner)[:5])}. Are its classes nested one folder too deep, or "
                f"is {path / name} the folder that is meant?"
            )


def _say(message: str) -> None:
    warnings.warn(message, stacklevel=2)
