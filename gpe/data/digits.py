"""Handwritten digits that come with scikit-learn: no network, no files.

1,797 images of 8×8 with values from 0 to 16 (Alpaydin and Kaynak, UCI, 1998).
"""

import torch
from torch.nn.functional import interpolate

from gpe.data.listing import Listing, split
from gpe.data.opening import Interpolation
from gpe.data.resident import generator
from gpe.errors import needs


def listings(image_size: int, interpolation: Interpolation = "bilinear") -> tuple[Listing, Listing]:
    """Training and test digits, in RGB, resized (antialiased) from 8×8 to ``image_size``.

    Example:
        >>> train, test = listings(32)
        >>> len(train.labels), len(test.labels), train.read(torch.arange(2)).shape
        (1437, 360, torch.Size([2, 3, 32, 32]))
    """
    with needs("digits"):
        from sklearn.datasets import load_digits  # takes a second, and only the digits need it

    digits = load_digits()
    images = torch.from_numpy(digits.images)[:, None].float() * (255 / 16)

    def read(chosen: torch.Tensor) -> torch.Tensor:
        size = image_size, image_size
        resized = interpolate(images[chosen], size, mode=interpolation, antialias=True)
        return resized.round().clamp(0, 255).to(torch.uint8).expand(-1, 3, -1, -1).contiguous()

    labels = torch.from_numpy(digits.target).long()
    classes = tuple(str(name) for name in digits.target_names)

    whole = Listing(labels, classes, read)
    # The split is the same for every seed: all runs are tested on the same images.
    train, test = split(labels, generator(0, 0, 0, "split"))
    return whole.part(train), whole.part(test)
