"""Where is the patch? GAPNet and PermuteNet on images in a grid (paper, section 3, Table 1)."""

from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.swa_utils import update_bn

from gpe.data import ImageSet, epoch_order, generator, load
from gpe.data.listing import spread
from gpe.data.resident import Part
from gpe.experiments.location.config import LocationConfig
from gpe.experiments.options import Places
from gpe.experiments.processes import count, expect_enough, joined, rank
from gpe.experiments.progress import Progress
from gpe.experiments.runs import run_all
from gpe.experiments.trained import Trained
from gpe.experiments.training import NetworkTrial, Tally, fit
from gpe.models import GAPNet, PermuteNet, resnet18
from gpe.ops.place_on_grid import place_on_grid
from gpe.records import Record

SAMPLES = 12  # canvases kept for pictures


def run(configs: Sequence[LocationConfig], places: Places, progress: Progress) -> list[Path]:
    """Trains and tests each network in a directory of its own; returns the directories.

    Raises:
        InputError: the data cannot be had; or what :func:`run_all` raises.
    """
    images = lru_cache(maxsize=1)(partial(load, root=places.root, download=places.download))

    def train(config: LocationConfig, directory: Path) -> Record:
        names = ("train_images", "test_images", "image_size", "seed")
        sets = images(config.data, **{name: getattr(config, name) for name in names})
        train_set, test_set = (each.to(config.device) for each in sets)
        trial = LocationTrial(config, train_set, test_set, sync_batch_norm=places.sync_batch_norm)
        return fit("location", trial, config, directory, progress)

    return run_all(configs, places, progress, train)


class _Batch(NamedTuple):
    canvases: Tensor
    target: Tensor
    cells: Tensor
    part: Part


class LocationTrial(NetworkTrial[LocationConfig]):
    """One network, trained and tested on canvases with one image each."""

    def __init__(
        self,
        config: LocationConfig,
        train: ImageSet,
        test: ImageSet,
        *,
        sync_batch_norm: bool = True,
    ):
        self.train_set, self.test_set = train, test
        self.images_per_epoch = config.train_images or len(train)
        self.num_classes = config.grid_size**2 if config.task == "location" else len(train.classes)
        expect_enough(self.images_per_epoch, config.batch_size)
        super().__init__(
            config,
            build(config, self.num_classes),
            channels_last=False,
            sync_batch_norm=sync_batch_norm,
        )
        self.optimizer = torch.optim.Adam(
            self.model.parameters(),
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.scheduler = self._scheduler()
        self._canvases: dict[int, tuple[Tensor, Tensor]] = {}  # by batch size, used again and again

    def train_epoch(self, epoch: int) -> Iterator[Tally]:
        self.model.train()
        tally, seed = Tally(), self.config.seed
        order = epoch_order(
            len(self.train_set), seed=seed, epoch=epoch, samples=self.images_per_epoch
        )
        flips = generator(seed, epoch, 0, "flips") if self.config.flip else None
        locations = generator(seed, epoch, 0, "training locations")
        size = self.config.batch_size
        for batch in self._batches(self.train_set, order, size, locations, flips):
            logits = self.shared(self._logits, batch.canvases, part=batch.part)
            self.descend(tally.add(logits, batch.target), len(batch.target))
            yield tally

    @torch.no_grad()
    def test(self, epoch: int) -> tuple[Tally, dict[str, Tensor]]:
        if self.config.bn_batches:
            self._estimate_batch_norm(epoch)
        self.shared.evaluating()
        tally, answers = Tally(), []
        order = torch.arange(len(self.test_set))
        locations = generator(self.config.seed, epoch, 0, "test locations")
        size = self.config.test_batch_size
        for batch in self._batches(self.test_set, order, size, locations):
            logits = self._logits(batch.canvases)
            tally.add(logits, batch.target)
            answers.append(torch.stack([batch.cells, batch.target, logits.argmax(1)]))
        return tally, self._arrays(*torch.cat(joined(answers), 1))

    def _logits(self, canvases: Tensor) -> Tensor:
        with self.autocast():
            return self.network(canvases)

    def _estimate_batch_norm(self, epoch: int) -> None:
        """The mean over many batches; a running one stands on the last few.

        The pooled features of neighbouring cells differ by so little that after a short training
        its noise decides between them.
        """
        seed, size = self.config.seed, self.config.batch_size
        images = self.config.bn_batches * size
        order = epoch_order(len(self.train_set), seed=seed, epoch=epoch, samples=images)
        locations = generator(seed, epoch, 0, "batch norm locations")
        drawn = self._batches(self.train_set, order, size, locations)
        with self.autocast():
            update_bn((batch.canvases for batch in drawn), self.model)

    def _batches(
        self,
        images: ImageSet,
        order: Tensor,
        batch_size: int,
        locations: torch.Generator,
        flips: torch.Generator | None = None,
    ) -> Iterator["_Batch"]:
        """This process's part of each batch. The draws of an epoch go to the device at once."""
        cells = torch.randint(self.config.grid_size**2, (len(order),), generator=locations)
        cells = cells.to(self.device).split(batch_size)
        mirrored = None
        if flips is not None:
            mirrored = torch.rand(len(order), generator=flips) < 0.5
            mirrored = mirrored.view(-1, 1, 1, 1).to(self.device).split(batch_size)
        batches = images.batches(order, batch_size, rank=rank(), world_size=count())
        for i, batch in enumerate(batches):
            part = batch.part or Part(0, len(cells[i]), len(cells[i]))
            here, patches = cells[i][part.start : part.stop], batch.images
            if mirrored is not None:
                flipped = mirrored[i][part.start : part.stop]
                patches = torch.where(flipped, patches.flip(3), patches)
            target = here if self.config.task == "location" else batch.labels
            yield _Batch(self._place(patches, here, images), target, here, part)

    def _place(self, patches: Tensor, cells: Tensor, images: ImageSet) -> Tensor:
        before, placed = self._canvases.get(len(patches), (None, None))
        canvas = place_on_grid(
            patches,
            cells,
            self.config.grid_size,
            mean=images.mean,
            std=images.std,
            dtype=torch.bfloat16 if self.config.precision == "bf16" else torch.float32,
            memory_format=self.memory_format,
            out=before,
            placed=placed,  # nobody else writes to it
        )
        self._canvases[len(patches)] = canvas, cells.clone()
        return canvas

    def _arrays(self, cells: Tensor, targets: Tensor, predictions: Tensor) -> dict[str, Tensor]:
        """The confusion of the whole test set, and samples spread over it."""
        pairs = targets * self.num_classes + predictions
        confusion = torch.bincount(pairs, minlength=self.num_classes**2)
        chosen = torch.tensor(spread(len(cells), SAMPLES))
        images = self.test_set.images[chosen.to(self.device)]
        canvases = place_on_grid(images, cells[chosen].to(self.device), self.config.grid_size)
        arrays = {
            "canvases": (canvases * 255).round().to(torch.uint8),
            "locations": cells[chosen],
            "targets": targets[chosen],
            "predictions": predictions[chosen],
            "confusion": confusion.view(self.num_classes, self.num_classes),
        }
        return {name: array.cpu() for name, array in arrays.items()}

    def _scheduler(self) -> torch.optim.lr_scheduler.LRScheduler:
        config = self.config
        if config.schedule == "constant":
            return torch.optim.lr_scheduler.ConstantLR(self.optimizer, factor=1.0)
        steps = -(-self.images_per_epoch // config.batch_size) * config.epochs
        return torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, config.learning_rate, total_steps=steps, cycle_momentum=False
        )


def build(config: LocationConfig, num_classes: int) -> GAPNet | PermuteNet:
    """The network of a configuration, its weights drawn from ``config.seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        backbone = resnet18(width=config.width, padding_mode=config.padding_mode)
        if config.permutation is None:
            return GAPNet(backbone, num_classes, padding_mode=config.padding_mode)
        permutations = torch.Generator().manual_seed(config.seed)
        return PermuteNet(
            backbone, num_classes, permutation=config.permutation, generator=permutations
        )


def rebuilt(config: dict[str, Any], state: dict[str, Any]) -> Trained:
    """The network of a checkpoint, before any training."""
    location = LocationConfig(**config | {"betas": tuple(config["betas"])})
    model = build(location, len(state["model"]["classifier.bias"]))
    # The images' mean and std are not in such a checkpoint: those at hand stand in for them.
    return Trained(model, "", "location", "backbone")
