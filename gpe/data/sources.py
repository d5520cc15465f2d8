"""Where images come from: the sets known by name, and any folder of images."""

from pathlib import Path

import torch
from torch import Tensor

from gpe.data import cifar, digits, folder
from gpe.data.listing import Listing
from gpe.data.resident import ImageSet, generator
from gpe.errors import InputError, expect_at_least_one


def load(
    source: str | Path,
    *,
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
        train_images: at most so many, drawn at random by ``seed``; all where None. Images
            that are not drawn are not decoded.
        test_images: the same for testing.
        image_size: height and width in pixels. Images of another size are resized
            (bilinear, antialiased) by their shorter side and cropped around the centre.
        root: where the files of CIFAR are.
        download: fetch CIFAR into ``root`` where it is not there.
        seed: of the draws and of the split of a single tree.

    Returns:
        Training and test set on the CPU. Both have the mean and std of the training set:
        the published ones for CIFAR, otherwise those of the training images drawn.

    Raises:
        InputError: a number below 1, or a source that is missing, damaged or laid out in
            another way.

    Example:
        >>> train, test = load("digits", train_images=100)
        >>> train.images.shape, len(test)
        (torch.Size([100, 3, 32, 32]), 360)
    """
    numbers = {"train_images": train_images, "test_images": test_images, "image_size": image_size}
    for name, number in numbers.items():
        if number is not None:
            expect_at_least_one(name, number)

    if source == "digits":
        train, test = digits.listings(image_size)
    elif source in cifar.DATASETS:
        train, test = cifar.listings(
            source, image_size, root=Path(root).expanduser(), download=download
        )
    elif (path := Path(source).expanduser()).exists():
        train, test = folder.listings(path, image_size, seed=seed)
    else:
        names = ", ".join(["digits", *cifar.DATASETS])
        raise InputError(f"data: there is no {source}; expected {names} or a folder of images")

    drawn = _draw(train, train_images, generator(seed, 0, 0, "training images"))
    images = train.read(drawn)
    mean, std = cifar.STATISTICS.get(source) or _mean_and_std(images)
    train_set = ImageSet(images, train.labels[drawn], train.classes, mean, std)

    drawn = _draw(test, test_images, generator(seed, 0, 0, "test images"))
    test_set = ImageSet(test.read(drawn), test.labels[drawn], test.classes, mean, std)
    return train_set, test_set


def _draw(listing: Listing, limit: int | None, generator: torch.Generator) -> Tensor:
    """Sorted indices of at most ``limit`` images of ``listing``."""
    return torch.randperm(len(listing.labels), generator=generator)[:limit].sort().values


def _mean_and_std(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Per channel, of images in [0, 1]; the std of a constant channel is 1."""
    # Without a float copy of the set: from how often each of the 256 values occurs.
    counts = torch.stack([torch.bincount(c.flatten(), minlength=256) for c in images.unbind(1)])
    shares = counts.double() / counts.sum(1, keepdim=True)
    values = torch.arange(256, dtype=torch.float64) / 255
    mean = (shares * values).sum(1)
    std = (shares * (values - mean[:, None]) ** 2).sum(1).sqrt()
    return tuple(mean.tolist()), tuple(std.where(std > 0, 1.0).tolist())
