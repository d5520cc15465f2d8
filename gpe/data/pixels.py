"""Sets of images with a label for each pixel, in one form wherever they come from."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from gpe.data.augmentation import Augmentation
from gpe.data.imagenet import STATISTICS
from gpe.data.resident import cuts, generator
from gpe.data.workers import default_workers as default_workers
from gpe.data.workers import read_batches
from gpe.errors import InputError, expect_at_least_one

IGNORE = 255  # the label of pixels that count nowhere

Sample = tuple[Tensor, Tensor]  # uint8 [3,H,W], RGB, and uint8 [H,W]


class Samples(Protocol):
    """Images and their labels by index, as a list of them has."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


@runtime_checkable
class Apart(Protocol):
    """Samples whose labels are read without their images."""

    def labels_at(self, index: int) -> Tensor: ...


class SegmentationBatch(NamedTuple):
    """Some images of a set.

    Attributes:
        images: float32 ``[n,3,H,W]``, normalised, on the device of the set.
        labels: uint8 ``[n,H,W]``, likewise; 255 is to be ignored.
        ids: which images they are, as the dataset names them.
    """

    images: Tensor
    labels: Tensor
    ids: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class SegmentationSet:
    """Images with labels, read as they are asked for.

    Attributes:
        name: of the dataset.
        samples: what reads them.
        ids: a name for each image.
        classes: the name of each label.
        palette: RGB of each label, for pictures.
        mean, std: per channel, of images in [0, 1]; ImageNet's, as pretrained networks want.
        device: that batches go to.
        workers: processes that read; 0: this one does.

    Raises:
        InputError: no images, another number of ids or of colours, or fewer than no workers.

    Example:
        >>> sample = torch.zeros(3, 4, 6, dtype=torch.uint8), torch.ones(4, 6, dtype=torch.uint8)
        >>> colours = (0, 0, 0), (255, 0, 0)
        >>> few = SegmentationSet("two", [sample] * 2, ("a", "b"), ("sky", "road"), colours)
        >>> [(batch.images.shape, batch.ids) for batch in few.batches(1)]
        [(torch.Size([1, 3, 4, 6]), ('a',)), (torch.Size([1, 3, 4, 6]), ('b',))]
    """

    name: str
    samples: Samples
    ids: tuple[str, ...]
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    mean: tuple[float, float, float] = STATISTICS[0]
    std: tuple[float, float, float] = STATISTICS[1]
    device: str = "cpu"
    workers: int = 0

    def __post_init__(self):
        expect_at_least_one("images", len(self.samples))
        for name, expected in (("ids", self.samples), ("palette", self.classes)):
            if len(getattr(self, name)) != len(expected):
                got = len(getattr(self, name))
                raise InputError(f"{name}: expected {len(expected)}, got {got}")
        if self.workers < 0:
            raise InputError(f"workers: expected at least 0, got {self.workers}")

    def __len__(self) -> int:
        return len(self.samples)

    def to(self, device: torch.device | str) -> "SegmentationSet":
        """The same set, whose batches go to ``device``."""
        return replace(self, device=str(device))

    def part(self, indices: Sequence[int]) -> "SegmentationSet":
        """The images with these indices, in this order."""
        ids = tuple(self.ids[index] for index in indices)
        return replace(self, samples=_Part(self.samples, tuple(indices)), ids=ids)

    def cached(self) -> "SegmentationSet":
        """The same set, read once and kept in memory, as uint8."""
        places = [[place] for place in range(len(self))]
        samples = self._read(self.samples.__getitem__, _only, places)
        # Cloned, since what other processes read lies in shared memory, of which there is little.
        return replace(self, samples=[(a.clone(), b.clone()) for a, b in samples], workers=0)

    def batches(
        self, batch_size: int, *, order: Sequence[int] | None = None
    ) -> Iterator[SegmentationBatch]:
        """Whole images in batches.

        Args:
            batch_size: images a batch; the last one may have fewer. Images of a batch must have
                one size: 1 suits all sets.
            order: indices into the set; all, in the set's order, where None.

        Raises:
            InputError: a batch size below 1, or an order that is not of indices into the set;
                while iterating, what cannot be read, or images of different sizes.
        """
        batches = self._cut(order, batch_size)
        return self._finished(self._read(self.samples.__getitem__, _collate, batches), batches)

    def label_batches(self, batch_size: int) -> Iterator[tuple[Tensor, tuple[str, ...]]]:
        """Labels alone, uint8 ``[n,H,W]`` on the CPU, with their ids, in the set's order.

        Where a set has them apart from its images, no image is decoded.

        Raises:
            InputError: as :meth:`batches`.
        """
        batches = self._cut(None, batch_size)
        read = self._read(partial(_labels_alone, self.samples), _collate, batches)
        for chosen, (_, labels) in zip(batches, read, strict=True):
            yield labels, tuple(self.ids[index] for index in chosen)

    def training_batches(
        self,
        order: Tensor,
        batch_size: int,
        *,
        augmentation: Augmentation,
        seed: int = 0,
        epoch: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> Iterator[SegmentationBatch]:
        """Random views in batches; a function of the seed, the epoch and the place in the order.

        Args:
            order: int64 ``[n]``, indices into the set; an index may come again and then gives
                another view.
            batch_size: images a batch; the last one may have fewer.
            augmentation: how a view is cut. Beyond a small image its border is black in the mean
                and has the label 255.
            seed, epoch: of the draws.
            rank, world_size: which of how many processes this is; each reads a part of each batch.

        Raises:
            InputError: as :meth:`batches`.
        """
        red, green, blue = (round(255 * mean) for mean in self.mean)
        fill = red, green, blue, IGNORE
        cut = cuts(
            torch.arange(len(order)), batch_size, len(order), rank=rank, world_size=world_size
        )
        places = [batch.tolist() for batch, _ in cut]
        views = _Views(self.samples, order.tolist(), augmentation, fill, seed, epoch)
        batches = [[views.order[place] for place in batch] for batch in places]
        return self._finished(self._read(views, _collate, places), batches)

    def normalise(self, images: Tensor) -> Tensor:
        """From uint8 ``[n,3,H,W]`` to what networks take, float32."""
        return normalised(images, self.mean, self.std)

    def _cut(self, order: Sequence[int] | None, batch_size: int) -> list[list[int]]:
        whole = range(len(self)) if order is None else order
        indices = torch.as_tensor(whole, dtype=torch.int64)
        return [batch.tolist() for batch, _ in cuts(indices, batch_size, len(self))]

    def _read(
        self,
        read: Callable[[int], Sample],
        collate: Callable[[list[Sample]], Sample],
        places: list[list[int]],
    ) -> Iterator[Sample]:
        return read_batches(read, collate, places, workers=self.workers, device=self.device)

    def _finished(
        self, read: Iterator[Sample], batches: list[list[int]]
    ) -> Iterator[SegmentationBatch]:
        for chosen, batch in zip(batches, read, strict=True):
            images, labels = (t.to(self.device, non_blocking=True) for t in batch)
            ids = tuple(self.ids[index] for index in chosen)
            yield SegmentationBatch(self.normalise(images), labels, ids)


def normalised(
    images: Tensor,
    mean: Sequence[float] = STATISTICS[0],
    std: Sequence[float] = STATISTICS[1],
) -> Tensor:
    """From uint8 ``[n,3,H,W]`` to what networks take, float32."""
    means, stds = (torch.tensor(v, device=images.device).view(-1, 1, 1) * 255 for v in (mean, std))
    return images.float().sub_(means).div_(stds)


def named(names: Sequence[object]) -> str:
    """The first three ``names``, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(str, names[:3])) + more


@dataclass(frozen=True)
class _Part:
    samples: Samples
    indices: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[self.indices[index]]

    def labels_at(self, index: int) -> Tensor:
        return _labels_at(self.samples, self.indices[index])


def _labels_alone(samples: Samples, index: int) -> Sample:
    """Labels with an image of no pixels."""
    labels = _labels_at(samples, index)
    return labels.new_empty(0), labels


def _labels_at(samples: Samples, index: int) -> Tensor:
    return samples.labels_at(index) if isinstance(samples, Apart) else samples[index][1]


@dataclass(frozen=True)
class _Views:
    """Views by their place in the order of an epoch."""

    samples: Samples
    order: list[int]
    augmentation: Augmentation
    fill: tuple[int, int, int, int]
    seed: int
    epoch: int

    def __call__(self, place: int) -> Sample:
        image, labels = self.samples[self.order[place]]
        drawing = generator(self.seed, self.epoch, 0, f"view {place}")
        draws = torch.rand(4, generator=drawing, dtype=torch.float64).tolist()
        return self.augmentation.view(image, labels, draws, self.fill)


def _only(samples: list[Sample]) -> Sample:
    return samples[0]


def _collate(samples: list[Sample]) -> Sample:
    sizes = sorted({tuple(labels.shape) for _, labels in samples})
    if len(sizes) > 1:
        found = ", ".join(f"{height}×{width}" for height, width in sizes[:3])
        raise InputError(
            "batch_size: expected 1 where images have different sizes (or a size to resize them "
            f"to), got {len(samples)} with images of {found}"
        )
    images, labels = zip(*samples, strict=True)
    return torch.stack(images), torch.stack(labels)
