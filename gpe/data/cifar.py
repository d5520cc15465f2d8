"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009), read and fetched by torchvision."""

from http.client import HTTPException
from pathlib import Path

import torch
from torchvision import datasets
from torchvision.transforms.v2.functional import resize

from gpe.data.listing import Listing
from gpe.errors import InputError

DATASETS = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}

# Mean and std per channel. CIFAR-10's std is the one of the authors' code; the set's own is
# (0.2470, 0.2435, 0.2616).
STATISTICS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


def listings(name: str, image_size: int, *, root: Path, download: bool) -> tuple[Listing, Listing]:
    """The training and the test set.

    Args:
        name: ``"cifar10"`` or ``"cifar100"``.
        image_size: height and width, in pixels, that the 32×32 images are resized to.
        root: the folder that holds torchvision's ``cifar-10-batches-py`` or ``cifar-100-python``.
        download: fetch what is missing.

    Raises:
        InputError: files that are missing or damaged, or a download that failed.
    """
    dataset = DATASETS[name]
    try:
        train, test = (dataset(root, train=train, download=download) for train in (True, False))
    except (RuntimeError, OSError, HTTPException) as error:
        if download:
            raise InputError(f"data: could not download {name} into {root}: {error}") from None
        raise InputError(
            f"data: no intact {name} in {root / dataset.base_folder}; add --download to fetch it"
        ) from None
    return _listing(train, image_size), _listing(test, image_size)


def _listing(dataset: datasets.CIFAR10, image_size: int) -> Listing:
    images = torch.from_numpy(dataset.data).permute(0, 3, 1, 2)

    def read(chosen: torch.Tensor) -> torch.Tensor:
        return resize(images[chosen], [image_size, image_size]).contiguous()

    return Listing(torch.tensor(dataset.targets), tuple(dataset.classes), read)
