"""A set of images too large for memory: files that are decoded by workers, batch by batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, get_args

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode, RandomResizedCrop
from torchvision.transforms.v2.functional import center_crop, pil_to_tensor, resize

from gpe.data.imagenet import STATISTICS
from gpe.data.opening import Interpolation, expect_max_pixels, open_image
from gpe.data.resident import Batch, Part, cuts, generator, kind
from gpe.data.workers import default_workers, read_batches
from gpe.errors import InputError, expect_at_least_one, expect_one_of

Reading = Literal["resized", "plain", "centre"]


@dataclass(frozen=True, eq=False)
class StreamedSet:
    """Files and labels, in the place of an :class:`ImageSet`.

    All resizing is antialiased. There are three ways of reading an image:

    - ``"resized"``, torchvision's for training: a crop of random area and aspect ratio,
      resized to a square of ``side`` pixels. It is a function of ``seed``, the epoch and the
      image alone, so the same whatever the batch, the process and the number of workers;
    - ``"plain"``: the whole image, its shorter side resized to ``side`` pixels;
    - ``"centre"``, torchvision's for testing: the shorter side resized to ``resize_side``
      pixels, and the square of ``side`` pixels in the centre cut out.

    Attributes:
        files: paths, N of them.
        labels: int64 ``[N]``, on the device that batches go to; -1 where there are none.
        classes: the name of each label; empty where images have no labels.
        reading: ``"resized"``, ``"plain"`` or ``"centre"``.
        side: in pixels.
        resize_side: in pixels; only ``"centre"`` has one.
        seed: of the crops of ``"resized"``.
        workers: processes that decode; 0: this one does. One a core where None, 8 at most.
        mean: per channel, of images in [0, 1].
        std: per channel, of images in [0, 1].
        interpolation: ``"bilinear"`` or ``"bicubic"``, of all resizing.
        max_pixels: of an image; as for :func:`gpe.data.opening.open_image`.

    Raises:
        InputError: labels of another dtype or shape; a number or a reading that cannot be.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (60, 40)).save(file := f"{folder}/black.png")
        ...     images = StreamedSet([file], torch.tensor([0]), ("cat",), "plain", 20, workers=0)
        ...     [batch.images.shape for batch in images.batches(torch.tensor([0]), 1)]
        [torch.Size([1, 3, 20, 30])]
    """

    files: Sequence[str]
    labels: Tensor
    classes: tuple[str, ...]
    reading: Reading
    side: int
    resize_side: int | None = None
    seed: int = 0
    workers: int | None = None
    mean: tuple[float, float, float] = STATISTICS[0]
    std: tuple[float, float, float] = STATISTICS[1]
    interpolation: Interpolation = "bilinear"
    max_pixels: int | None = None

    def __post_init__(self):
        labels, largest = self.labels, self.resize_side
        if labels.dtype != torch.int64 or labels.shape != (len(self.files),):
            raise InputError(f"labels: expected int64 [{len(self.files)}], got {kind(labels)}")
        expect_one_of("reading", self.reading, get_args(Reading))
        expect_at_least_one("side", self.side)
        if (self.reading == "centre") != (largest is not None):
            raise InputError(
                f"resize_side: expected one for 'centre' alone, got {largest} for {self.reading!r}"
            )
        if largest is not None and self.side > largest:
            raise InputError(f"side: expected at most resize_side, {largest}, got {self.side}")
        if self.workers is not None and self.workers < 0:
            raise InputError(f"workers: expected at least 0, got {self.workers}")
        expect_one_of("interpolation", self.interpolation, get_args(Interpolation))
        expect_max_pixels(self.max_pixels)

    def __len__(self) -> int:
        return len(self.files)

    @property
    def labelled(self) -> bool:
        """Whether images have labels."""
        return bool(self.classes)

    @property
    def device(self) -> torch.device:
        return self.labels.device

    def to(self, device: torch.device | str) -> "StreamedSet":
        """The same set, whose batches go to ``device``."""
        return replace(self, labels=self.labels.to(device))

    def batches(
        self, order: Tensor, batch_size: int, *, epoch: int = 0, rank: int = 0, world_size: int = 1
    ) -> Iterator[Batch]:
        """Reads the set in batches. The workers end with the iterator.

        Args:
            order: int64 ``[n]``, indices into the set, on any device.
            batch_size: images a batch; the last batch may have fewer.
            epoch: ``"resized"`` reads images anew in each.
            rank, world_size: which of how many processes this is; each reads a part of each batch.

        Raises:
            InputError: a batch size below 1, or an order that is not of indices into the set;
                while iterating, a file that cannot be read, with its name.
        """
        parts = cuts(order.cpu(), batch_size, len(self), rank=rank, world_size=world_size)
        read = read_batches(
            partial(_read, replace(self, labels=self.labels.cpu()), epoch),
            _collate,
            [indices.tolist() for indices, _ in parts],
            workers=default_workers(self.workers),
            device=str(self.device),
        )
        return self._moved(parts, read)

    def _moved(
        self,
        parts: list[tuple[Tensor, Part]],
        batches: Iterator[tuple[Tensor, Tensor | None]],
    ) -> Iterator[Batch]:
        for (chosen, part), (images, sizes) in zip(parts, batches, strict=True):
            labels = self.labels[chosen.to(self.device, non_blocking=True)]
            yield Batch(images.to(self.device, non_blocking=True), labels, sizes, chosen, part)


def _read(images: StreamedSet, epoch: int, index: int) -> Tensor:  # uint8 [3,h,w]
    image = open_image(images.files[index], max_pixels=images.max_pixels)
    return pil_to_tensor(_resized(images, epoch, index, image))


def _resized(images: StreamedSet, epoch: int, index: int, image: Image.Image) -> Image.Image:
    how = InterpolationMode(images.interpolation)
    if images.reading == "plain":
        return resize(image, [images.side], how)
    if images.reading == "centre":
        return center_crop(resize(image, [images.resize_side], how), [images.side])
    # torchvision draws from torch's own generator, which is to go on as if nothing was drawn.
    draws = generator(images.seed, epoch, 0, f"resized crop of image {index}")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(draws.initial_seed())
        return RandomResizedCrop(images.side, interpolation=how)(image)


def _collate(images: list[Tensor]) -> tuple[Tensor, Tensor | None]:
    """One batch, padded at the bottom and at the right, and the sizes where they differ."""
    sizes = torch.tensor([image.shape[1:] for image in images])
    if (sizes == sizes[0]).all():
        return torch.stack(images), None
    padded = torch.zeros(len(images), 3, *sizes.amax(0).tolist(), dtype=torch.uint8)
    for place, image in zip(padded, images, strict=True):
        place[:, : image.shape[1], : image.shape[2]] = image
    return padded, sizes
