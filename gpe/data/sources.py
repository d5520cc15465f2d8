"""Where images come from: the sets known by name, and any folder of images."""

from pathlib import Path
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor

from gpe.data import cifar, digits, folder, imagenet, listing
from gpe.data.listing import Files, Listing
from gpe.data.resident import ImageSet, generator
from gpe.data.streamed import Reading, StreamedSet
from gpe.errors import InputError, expect_at_least_one, expect_one_of

Split = Literal["test", "validation"]
Listed = TypeVar("Listed", Listing, Files)


def load(
    source: str | Path,
    *,
    split: Split = "test",
    train_images: int | None = None,
    test_images: int | None = None,
    image_size: int = 32,
    root: Path = Path("data"),
    download: bool = False,
    seed: int = 0,
) -> tuple[ImageSet, ImageSet]:
    """Read a training and a test set whole into memory.

    Args:
        source: ``"digits"`` (scikit-learn's, built in), ``"cifar10"``, ``"cifar100"``, or a
            folder with train/ and test/ (or val/), each with one folder of images a class.
            One such tree by itself is split 80 to 20 within each class.
        split: ``"test"`` tests on the test images. ``"validation"`` leaves them alone and
            holds out a fifth of the training images instead, drawn within each class, the same
            fifth for every ``seed``: to choose by, where the test images must not be seen.
        train_images: at most so many, drawn at random by ``seed``; all where None. Images
            that are not drawn are not decoded.
        test_images: the same for testing.
        image_size: height and width in pixels. Images of another size are resized
            (bilinear, antialiased) by their shorter side and cropped around the centre.
        root: where the files of CIFAR are.
        download: fetch CIFAR into ``root`` where it is not there.
        seed: of the draws, and of a single tree's split into training and test images.

    Returns:
        Training and test set on the CPU. Both have the mean and std of the training set:
        the published ones for CIFAR, otherwise those of the training images drawn.

    Raises:
        InputError: a number below 1, another split, or a source that is missing, damaged or
            laid out in another way.

    Example:
        >>> train, test = load("digits", train_images=100)
        >>> train.images.shape, len(test)
        (torch.Size([100, 3, 32, 32]), 360)
    """
    _check(split, train_images=train_images, test_images=test_images, image_size=image_size)
    if source == "digits":
        train, test = digits.listings(image_size)
    elif source in cifar.DATASETS:
        train, test = cifar.listings(
            source, image_size, root=Path(root).expanduser(), download=download
        )
    elif (path := Path(source).expanduser()).exists():
        train, test = folder.listings(path, image_size, seed=seed)
    else:
        raise _unknown(source, "digits", *cifar.DATASETS)

    train, test = _choose(train, test, split, train_images, test_images, seed)
    images = train.read(torch.arange(len(train.labels)))
    mean, std = cifar.STATISTICS.get(source) or _mean_and_std(images)
    train_set = ImageSet(images, train.labels, train.classes, mean, std)
    images = test.read(torch.arange(len(test.labels)))
    return train_set, ImageSet(images, test.labels, test.classes, mean, std)


def stream(
    source: str | Path,
    *,
    train_side: int = 224,
    train_reading: Reading = "resized",
    test_side: int = 224,
    test_resize_side: int = 256,
    split: Split = "test",
    train_images: int | None = None,
    test_images: int | None = None,
    root: Path = Path("data"),
    seed: int = 0,
    workers: int | None = None,
) -> tuple[StreamedSet, StreamedSet]:
    """A training and a test set that are read batch by batch: large images, or many.

    Args:
        source: ``"imagenet"``, or a folder as for :func:`load`.
        train_side: in pixels, of the training images; see :class:`StreamedSet`.
        train_reading: ``"resized"`` or ``"plain"``.
        test_side: in pixels, of the square in the centre of each test image.
        test_resize_side: in pixels, what its shorter side is resized to before.
        split, train_images, test_images: as for :func:`load`.
        root: the folder of ImageNet's ``meta.bin``, ``train/`` and ``val/``. Its images called
            validation images are the test images here.
        seed: of the draws, of the split of a single tree, and of the crops of ``"resized"``.
        workers: processes that decode; see :class:`StreamedSet`.

    Returns:
        Training and test set on the CPU, with ImageNet's usual mean and std.

    Raises:
        InputError: a number, reading or split that cannot be, or a source that is missing,
            damaged or laid out in another way.
    """
    _check(split, train_images=train_images, test_images=test_images)
    expect_one_of("train_reading", train_reading, ("resized", "plain"))
    if source == "imagenet":
        train, test = imagenet.files(Path(root).expanduser())
    elif (path := Path(source).expanduser()).exists():
        train, test = folder.files(path, seed=seed)
    else:
        raise _unknown(source, "imagenet")
    train, test = _choose(train, test, split, train_images, test_images, seed)
    paths, labels, classes = train.paths, train.labels, train.classes
    train_set = StreamedSet(
        paths, labels, classes, train_reading, train_side, seed=seed, workers=workers
    )
    paths, labels, classes = test.paths, test.labels, test.classes
    test_set = StreamedSet(
        paths, labels, classes, "centre", test_side, test_resize_side, workers=workers
    )
    return train_set, test_set


def stream_test(
    source: str | Path,
    *,
    side: int = 224,
    resize_side: int = 256,
    images: int | None = None,
    root: Path = Path("data"),
    workers: int | None = None,
) -> StreamedSet:
    """Images to score a trained network on, read as :func:`stream` reads its test images.

    Args:
        source, root, workers: as for :func:`stream`; of a folder that is one tree of classes all
            images are taken.
        side, resize_side: in pixels, as its ``test_side`` and ``test_resize_side``.
        images: at most so many, drawn at random, the same ones every time; all where None.

    Raises:
        InputError: as :func:`stream`.
    """
    _check("test", images=images)
    if source == "imagenet":
        _, test = imagenet.files(Path(root).expanduser())
    elif (path := Path(source).expanduser()).exists():
        test = folder.test_files(path)
    else:
        raise _unknown(source, "imagenet")
    test = _draw(test, images, generator(0, 0, 0, "test images"))
    return StreamedSet(
        test.paths,
        test.labels,
        test.classes,
        reading="centre",
        side=side,
        resize_side=resize_side,
        workers=workers,
    )


def _unknown(source: str | Path, *names: str) -> InputError:
    return InputError(
        f"data: there is no {source}; expected {', '.join(names)} or a folder of images"
    )


def _check(split: Split, **numbers: int | None) -> None:
    expect_one_of("split", split, get_args(Split))
    for name, number in numbers.items():
        if number is not None:
            expect_at_least_one(name, number)


def _choose(
    train: Listed,
    test: Listed,
    split: Split,
    train_images: int | None,
    test_images: int | None,
    seed: int,
) -> tuple[Listed, Listed]:
    """The images to train on and those to test on, of all that there are."""
    if split == "validation":
        if len(train.labels) < 2:
            raise InputError("data: expected two training images or more, to train and to validate")
        kept, held_out = listing.split(train.labels, generator(0, 0, 0, "validation"))
        train, test = train.part(kept), train.part(held_out)
    return (
        _draw(train, train_images, generator(seed, 0, 0, "training images")),
        _draw(test, test_images, generator(seed, 0, 0, "test images")),
    )


def _draw(listed: Listed, limit: int | None, generator: torch.Generator) -> Listed:
    """At most ``limit`` images, in the order of the whole."""
    drawn = torch.randperm(len(listed.labels), generator=generator)[:limit]
    return listed.part(drawn.sort().values)


def _mean_and_std(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Per channel, of images in [0, 1]; the std of a constant channel is 1."""
    # Without a float copy of the set: from how often each of the 256 values occurs.
    counts = torch.stack([torch.bincount(c.flatten(), minlength=256) for c in images.unbind(1)])
    shares = counts.double() / counts.sum(1, keepdim=True)
    values = torch.arange(256, dtype=torch.float64) / 255
    mean = (shares * values).sum(1)
    std = (shares * (values - mean[:, None]) ** 2).sum(1).sqrt()
    return tuple(mean.tolist()), tuple(std.where(std > 0, 1.0).tolist())
