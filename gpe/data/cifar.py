"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009), read and fetched by torchvision."""

from http.client import HTTPException
from pathlib import Path
from typing import Literal

import torch
from torchvision import datasets
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

from gpe.data.listing import Listing
from gpe.data.opening import Interpolation
from gpe.errors import InputError

Part = Literal["train", "test"]
PARTS: tuple[Part, Part] = ("train", "test")
DATASETS = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}

# Mean and std per channel. CIFAR-10's std is the one of the authors' code; the set's own is
# (0.2470, 0.2435, 0.2616).
STATISTICS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


def listing(
    name: str,
    part: Part,
    image_size: int,
    interpolation: Interpolation,
    *,
    root: Path,
    download: bool,
) -> Listing:
    """The training or the test set, its 32×32 images resized (antialiased) to ``image_size``.

    ``root`` holds torchvision's ``cifar-10-batches-py`` or ``cifar-100-python``, or is where
    ``download`` puts them.

    Raises:
        InputError: files that are missing or damaged, or a download that failed.
    """
    kind, root = DATASETS[name], Path(root).expanduser()
    try:
        dataset = kind(root, train=part == "train", download=download)
    except (RuntimeError, OSError, HTTPException) as error:
        if download:
            raise InputError(f"data: could not download {name} into {root}: {error}") from None
        raise InputError(
            f"data: no intact {name} in {root / kind.base_folder}; add --download to fetch it"
        ) from None
    images = torch.from_numpy(dataset.data).permute(0, 3, 1, 2)

    def read(chosen: torch.Tensor) -> torch.Tensor:
        size = [image_size, image_size]
        return resize(images[chosen], size, InterpolationMode(interpolation)).contiguous()

    return Listing(torch.tensor(dataset.targets), tuple(dataset.classes), read)
