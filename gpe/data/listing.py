"""A set of images before any pixel is read: subsets are chosen here, at no cost."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Listing:
    """What is known of a set before it is read.

    Attributes:
        labels: int64 ``[N]``; -1 where there are none.
        classes: the name of each label; empty where images have no labels.
        read: from indices, int64 ``[n]``, to their images, uint8 ``[n,3,h,w]``.
    """

    labels: Tensor
    classes: tuple[str, ...]
    read: Callable[[Tensor], Tensor]

    def part(self, indices: Tensor) -> "Listing":
        """The images with ``indices``, int64 ``[n]``, as a listing of their own."""
        read = self.read
        return Listing(self.labels[indices], self.classes, lambda chosen: read(indices[chosen]))


@dataclass(frozen=True, eq=False)
class Files:
    """Images on disk.

    Attributes:
        paths: one an image, N of them.
        labels, classes: as of a :class:`Listing`.
    """

    paths: list[str]
    labels: Tensor
    classes: tuple[str, ...]

    def part(self, indices: Tensor) -> "Files":
        """The files with ``indices``, int64 ``[n]``."""
        paths = [self.paths[index] for index in indices.tolist()]
        return Files(paths, self.labels[indices], self.classes)


def split(labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Indices of about 80 % for training and 20 % for testing, drawn within each class.

    Both are sorted; together they hold each image once. Neither is empty from two images on.

    Example:
        >>> train, test = split(torch.arange(20) // 10, torch.Generator())
        >>> len(train), (test // 10).tolist()
        (16, [0, 0, 1, 1])
    """
    order = torch.randperm(len(labels), generator=generator)
    by_class = order[labels[order].argsort(stable=True)]
    in_test = torch.zeros(len(labels), dtype=torch.bool)
    in_test[by_class[1::5]] = True
    return (~in_test).nonzero().flatten(), in_test.nonzero().flatten()


def spread(count: int, most: int | None) -> list[int]:
    """Indices of at most so many of ``count`` images, evenly spread; of all where None.

    Example:
        >>> spread(10, 3), spread(2, None)
        ([0, 3, 6], [0, 1])
    """
    chosen = count if most is None else min(most, count)
    return [place * count // chosen for place in range(chosen)]
