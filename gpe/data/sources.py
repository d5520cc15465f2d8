"""Where images come from: the sets known by name, and any folder of images."""

import warnings
from pathlib import Path
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor

from gpe.data import cifar, digits, folder, imagenet, listing
from gpe.data.listing import Files, Listing
from gpe.data.opening import Interpolation, expect_max_pixels
from gpe.data.resident import ImageSet, generator
from gpe.data.streamed import Reading, StreamedSet
from gpe.errors import InputError, expect_at_least_one, expect_one_of

Split = Literal["test", "validation"]
Listed = TypeVar("Listed", Listing, Files)
Triple = tuple[float, float, float]
Statistics = tuple[Triple, Triple]  # mean and std per channel

NAMES = ("digits", *cifar.DATASETS, "imagenet")


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
    interpolation: Interpolation = "bilinear",
    max_pixels: int | None = None,
) -> tuple[ImageSet, ImageSet]:
    """Read a training and a test set whole into memory.

    Args:
        source: ``"digits"`` (scikit-learn's, built in), ``"cifar10"``, ``"cifar100"``, or a
            folder with train/ and test/ (or val/), each with one folder of images a class.
            One such tree by itself is split 80 to 20 within each class; so are images alone,
            which have no labels. A folder that is called ``digits`` is ``"./digits"``.
        split: ``"test"`` tests on the test images. ``"validation"`` leaves them alone and
            holds out a fifth of the training images instead, drawn within each class, the same
            fifth for every ``seed``: to choose by, where the test images must not be seen.
        train_images: at most so many, drawn at random by ``seed``; all where None. Images
            that are not drawn are not decoded.
        test_images: the same for testing.
        image_size: height and width in pixels. Images of another size are resized
            (antialiased) by their shorter side and cropped around the centre.
        root: where the files of CIFAR are.
        download: fetch CIFAR into ``root`` where it is not there.
        seed: of the draws, and of a single tree's split into training and test images.
        interpolation: ``"bilinear"`` or ``"bicubic"``, of the resizing.
        max_pixels: of an image in a file; as for :func:`gpe.data.opening.open_image`.

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
    numbers = {"train_images": train_images, "test_images": test_images, "image_size": image_size}
    _check(split, interpolation, max_pixels, **numbers)
    name = named_set(source)
    if name == "digits":
        train, test = digits.listings(image_size, interpolation)
    elif name in cifar.DATASETS:
        train, test = (
            cifar.listing(name, part, image_size, interpolation, root=root, download=download)
            for part in cifar.PARTS
        )
    else:
        train, test = (
            folder.listing(part, image_size, interpolation, max_pixels)
            for part in folder.files(_folder(source, "digits", *cifar.DATASETS), seed=seed)
        )
    train, test = _choose(train, test, split, train_images, test_images, seed)
    train_set = _image_set(train, cifar.STATISTICS.get(name or ""))
    return train_set, _image_set(test, (train_set.mean, train_set.std))


def load_test(
    source: str | Path,
    *,
    images: int | None = None,
    image_size: int = 32,
    root: Path = Path("data"),
    download: bool = False,
    interpolation: Interpolation = "bilinear",
    max_pixels: int | None = None,
) -> ImageSet:
    """The test images of :func:`load` alone, in memory; no training image is read.

    Args:
        images: at most so many, those that ``load(seed=0)`` draws; all where None.
        source, image_size, root, download, interpolation, max_pixels: as for :func:`load`; of a
            folder that is one tree of classes, or images alone, all are taken.

    Returns:
        A set on the CPU, with CIFAR's published mean and std or those of the images themselves.

    Raises:
        InputError: as :func:`load`.

    Example:
        >>> len(load_test("digits")), load_test("digits", images=5).images.shape
        (360, torch.Size([5, 3, 32, 32]))
    """
    _check("test", interpolation, max_pixels, images=images, image_size=image_size)
    name = named_set(source)
    if name == "digits":
        _, test = digits.listings(image_size, interpolation)
    elif name in cifar.DATASETS:
        test = cifar.listing(name, "test", image_size, interpolation, root=root, download=download)
    else:
        found = folder.test_files(_folder(source, "digits", *cifar.DATASETS))
        test = folder.listing(found, image_size, interpolation, max_pixels)
    test = _draw(test, images, generator(0, 0, 0, "test images"))
    return _image_set(test, cifar.STATISTICS.get(name or ""))


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
    interpolation: Interpolation = "bilinear",
    max_pixels: int | None = None,
) -> tuple[StreamedSet, StreamedSet]:
    """A training and a test set that are read batch by batch: large images, or many.

    Args:
        source: ``"imagenet"``, or a folder as for :func:`load`.
        train_side: in pixels, of the training images; see :class:`StreamedSet`.
        train_reading: ``"resized"`` or ``"plain"``.
        test_side: in pixels, of the square in the centre of each test image.
        test_resize_side: in pixels, what its shorter side is resized to before.
        split, train_images, test_images, interpolation, max_pixels: as for :func:`load`.
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
    numbers = {"train_images": train_images, "test_images": test_images}
    _check(split, interpolation, max_pixels, **numbers)
    expect_one_of("train_reading", train_reading, ("resized", "plain"))
    if named_set(source) == "imagenet":
        train, test = imagenet.files(Path(root).expanduser())
    else:
        train, test = folder.files(_folder(source, "imagenet"), seed=seed)
    train, test = _choose(train, test, split, train_images, test_images, seed)
    how = workers, interpolation, max_pixels
    return (
        _streamed(train, train_reading, train_side, None, seed, *how),
        _streamed(test, "centre", test_side, test_resize_side, 0, *how),
    )


def stream_test(
    source: str | Path,
    *,
    side: int = 224,
    resize_side: int = 256,
    images: int | None = None,
    root: Path = Path("data"),
    workers: int | None = None,
    interpolation: Interpolation = "bilinear",
    max_pixels: int | None = None,
) -> StreamedSet:
    """Images to score a trained network on, read as :func:`stream` reads its test images.

    Args:
        source, root, workers, interpolation, max_pixels: as for :func:`stream`; of a folder that
            is one tree of classes, or images alone, all are taken. Of ImageNet, ``train/`` may be
            missing.
        side, resize_side: in pixels, as its ``test_side`` and ``test_resize_side``.
        images: at most so many, drawn at random, the same ones every time; all where None.

    Raises:
        InputError: as :func:`stream`.
    """
    _check("test", interpolation, max_pixels, images=images)
    if named_set(source) == "imagenet":
        test = imagenet.test_files(Path(root).expanduser())
    else:
        test = folder.test_files(_folder(source, "imagenet"))
    test = _draw(test, images, generator(0, 0, 0, "test images"))
    return _streamed(test, "centre", side, resize_side, 0, workers, interpolation, max_pixels)


def named_set(source: str | Path) -> str | None:
    """The name of a set that is known by name; None where a folder is meant.

    A name is one without any separator: ``digits`` is the built-in set, ``./digits``, ``~/digits``
    and ``Path("digits")`` are folders. A warning tells which is taken where there are both.

    Example:
        >>> named_set("digits"), named_set("./digits"), named_set("photos")
        ('digits', None, None)
    """
    if not isinstance(source, str) or source not in NAMES:
        return None
    if Path(source).is_dir():
        warnings.warn(
            f"data: {source} is the set of that name; ./{source} is the folder that lies here",
            stacklevel=3,
        )
    return source


def _folder(source: str | Path, *names: str) -> Path:
    path = Path(source).expanduser()
    if named_set(source) or not path.exists():
        raise InputError(
            f"data: there is no {source}; expected {', '.join(names)} or a folder of images"
        )
    return path


def _streamed(
    files: Files,
    reading: Reading,
    side: int,
    resize_side: int | None,
    seed: int,
    workers: int | None,
    interpolation: Interpolation,
    max_pixels: int | None,
) -> StreamedSet:
    return StreamedSet(
        *(files.paths, files.labels, files.classes, reading, side, resize_side, seed, workers),
        interpolation=interpolation,
        max_pixels=max_pixels,
    )


def _image_set(listing: Listing, statistics: Statistics | None) -> ImageSet:
    images = listing.read(torch.arange(len(listing.labels)))
    mean, std = statistics or _mean_and_std(images)
    return ImageSet(images, listing.labels, listing.classes, mean, std)


def _check(
    split: Split, interpolation: Interpolation, max_pixels: int | None, **numbers: int | None
) -> None:
    expect_one_of("split", split, get_args(Split))
    expect_one_of("interpolation", interpolation, get_args(Interpolation))
    expect_max_pixels(max_pixels)
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


def _mean_and_std(images: Tensor) -> Statistics:
    """Per channel, of images in [0, 1]; the std of a constant channel is 1."""
    # Without a float copy of the set: from how often each of the 256 values occurs.
    counts = torch.stack([torch.bincount(c.flatten(), minlength=256) for c in images.unbind(1)])
    shares = counts.double() / counts.sum(1, keepdim=True)
    values = torch.arange(256, dtype=torch.float64) / 255
    mean = (shares * values).sum(1)
    std = (shares * (values - mean[:, None]) ** 2).sum(1).sqrt()
    red, green, blue = zip(mean.tolist(), std.where(std > 0, 1.0).tolist(), strict=True)
    return (red[0], green[0], blue[0]), (red[1], green[1], blue[1])
