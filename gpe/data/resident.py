"""A whole set of images in device memory, and how an epoch is drawn from it without a loader."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from gpe.errors import InputError, expect_at_least_one


class Part(NamedTuple):
    """Which of a batch's ``whole`` images one of several processes has: ``start`` to ``stop``."""

    start: int
    stop: int
    whole: int


class Batch(NamedTuple):
    """Some images of a set.

    Attributes:
        images: uint8 ``[n,3,H,W]``, on the device of the set.
        labels: int64 ``[n]``, likewise.
        sizes: int64 ``[n,2]`` on the CPU, the height and width of each image, which is
            padded with zeros at the bottom and at the right; None where all have ``[H,W]``.
        indices: int64 ``[n]`` on the CPU, which images of the set they are.
        part: which images of the batch they are, where several processes share it; None: all.
    """

    images: Tensor
    labels: Tensor
    sizes: Tensor | None
    indices: Tensor
    part: Part | None = None


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images and labels, each in one tensor.

    Attributes:
        images: uint8 ``[N,3,h,w]``.
        labels: int64 ``[N]``, on the device of ``images``; -1 where there are none.
        classes: the name of each label; empty where images have no labels.
        mean: per channel, of images in [0, 1].
        std: per channel, of images in [0, 1].

    Raises:
        InputError: a tensor of another dtype or shape.

    Example:
        >>> images, labels = torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(4).long()
        >>> len(ImageSet(images, labels, ("cat",), (0.5,) * 3, (0.5,) * 3).to("cpu"))
        4
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self):
        images, labels = self.images, self.labels
        if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] != 3:
            raise InputError(f"images: expected uint8 [N,3,h,w], got {kind(images)}")
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
            raise InputError(f"labels: expected int64 [{len(images)}], got {kind(labels)}")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def labelled(self) -> bool:
        """Whether images have labels."""
        return bool(self.classes)

    @property
    def device(self) -> torch.device:
        return self.images.device

    def to(self, device: torch.device | str) -> "ImageSet":
        """The same set with its tensors on ``device``."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def batches(
        self, order: Tensor, batch_size: int, *, epoch: int = 0, rank: int = 0, world_size: int = 1
    ) -> Iterator[Batch]:
        """Cuts the set into batches on its own device.

        Args:
            order: int64 ``[n]``, indices into the set, on any device; moved once.
            batch_size: images a batch; the last batch may have fewer.
            epoch: changes nothing here; a :class:`StreamedSet` may read images anew in each.
            rank, world_size: which of how many processes this is; each has a part of each batch.

        Raises:
            InputError: a batch size below 1, or an order that is not of indices into the set.

        Example:
            >>> pixels = torch.zeros(5, 3, 8, 8, dtype=torch.uint8)
            >>> few = ImageSet(pixels, torch.arange(5), tuple("abcde"), (0.5,) * 3, (0.5,) * 3)
            >>> [batch.labels.tolist() for batch in few.batches(torch.tensor([4, 0, 3]), 2)]
            [[4, 0], [3]]
        """
        parts = cuts(order.cpu(), batch_size, len(self), rank=rank, world_size=world_size)
        moved = order.to(self.device).split(batch_size)
        return (
            Batch(self.images.index_select(0, there), self.labels[there], None, here, part)
            for (here, part), whole in zip(parts, moved, strict=False)  # no order is cut into one
            for there in [whole[part.start : part.stop]]
        )


def generator(seed: int, epoch: int, rank: int, purpose: str) -> torch.Generator:
    """A CPU generator that is a pure function of its arguments.

    Args:
        seed: of the run.
        epoch: counted from anywhere.
        rank: of the process; 0 for what all ranks share.
        purpose: what is drawn, ``"locations"``. Each purpose has a stream of its own.

    Returns:
        A fresh generator, the same one for the same arguments on every machine.

    Example:
        >>> draws = [torch.rand(1, generator=generator(0, 3, 0, "flips")) for _ in range(2)]
        >>> bool(draws[0] == draws[1])
        True
    """
    key = f"{seed:d} {epoch:d} {rank:d} {purpose}".encode()
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(key).digest()[:8]))


def epoch_order(count: int, *, seed: int, epoch: int, samples: int | None = None) -> Tensor:
    """Which images are seen in one epoch, and in which order: a permutation of (seed, epoch).

    Several processes share it: each takes its part of each batch (:func:`cuts`).

    Args:
        count: images in the set.
        seed: of the run.
        epoch: counted from anywhere.
        samples: images of the epoch; ``count`` where None. More than ``count`` go through the set
            repeatedly, each time in a new order.

    Returns:
        Indices, int64 ``[samples]``, on the CPU.

    Raises:
        InputError: a count below 1.

    Example:
        >>> epoch_order(6, seed=0, epoch=1).sort().values
        tensor([0, 1, 2, 3, 4, 5])
    """
    total = count if samples is None else samples
    for name, value in (("count", count), ("samples", total)):
        expect_at_least_one(name, value)

    shared = generator(seed, epoch, 0, "order")
    passes = -(-total // count)
    return torch.cat([torch.randperm(count, generator=shared) for _ in range(passes)])[:total]


def cuts(
    order: Tensor, batch_size: int, count: int, *, rank: int = 0, world_size: int = 1
) -> list[tuple[Tensor, Part]]:
    """Cuts an order of images into batches, and takes one process's part of each.

    The parts of a batch, one after the other, are the batch; they differ by at most one image.

    Raises:
        InputError: a batch size below 1, or an order that is not int64 ``[n]``, indices below
            ``count``.

    Example:
        >>> cuts(torch.tensor([4, 0, 3, 1]), 4, 5, rank=1, world_size=2)
        [(tensor([3, 1]), Part(start=2, stop=4, whole=4))]
    """
    expect_at_least_one("batch_size", batch_size)
    if order.dtype != torch.int64 or order.dim() != 1:
        raise InputError(f"order: expected int64 [n], got {kind(order)}")
    if len(order) and not 0 <= order.min() <= order.max() < count:
        raise InputError(
            f"order: expected indices from 0 to {count - 1}, got {order.min()} to {order.max()}"
        )
    found = []
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        before = [len(part) for part in batch.tensor_split(world_size)[: rank + 1]]
        part = Part(sum(before[:-1]), sum(before), len(batch))
        found.append((batch[part.start : part.stop], part))
    return found


def kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
