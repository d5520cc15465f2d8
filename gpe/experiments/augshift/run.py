"""A network that answers alike when the image moves (paper, section 4.1, Table 2, Figure S2)."""

from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import lr_scheduler

from gpe.augshift import fused_augshift_loss
from gpe.data import ImageSet, StreamedSet, epoch_order, expect_classes, generator, load, stream
from gpe.data.views import centre_view, random_views
from gpe.errors import InputError
from gpe.experiments.augshift.config import METHODS, AugShiftConfig
from gpe.experiments.images import Images
from gpe.experiments.options import Places
from gpe.experiments.processes import count, expect_enough, rank, several, share
from gpe.experiments.progress import Progress
from gpe.experiments.runs import run_all
from gpe.experiments.trained import Trained
from gpe.experiments.training import NetworkTrial, Tally, fit
from gpe.experiments.under_shifts import consistency_rows, probabilities_under_shifts
from gpe.models import Classifier, resnet18, resnet50
from gpe.records import Record

NETWORKS = {"resnet18": resnet18, "resnet50": resnet50}


def run(configs: Sequence[AugShiftConfig], places: Places, progress: Progress) -> list[Path]:
    """Trains and tests each network in a directory of its own; returns the directories.

    Raises:
        InputError: the data cannot be had; or what :func:`run_all` raises.
    """
    small = lru_cache(maxsize=1)(partial(load, root=places.root, download=places.download))

    def train(config: AugShiftConfig, directory: Path) -> Record:
        names = ("split", "train_images", "test_images", "seed")
        drawn: dict[str, Any] = {name: getattr(config, name) for name in names}
        sets: Sequence[ImageSet | StreamedSet]
        if config.resize_size is None:
            sets = small(config.data, image_size=config.image_size, **drawn)
        else:
            drawn |= {"root": places.root, "workers": places.workers, **config.sides}
            sets = stream(config.data, max_pixels=places.max_pixels, **drawn)
        expect_classes(sets[0].classes)
        train_set, test_set = (images.to(config.device) for images in sets)
        trial = AugShiftTrial(config, train_set, test_set, sync_batch_norm=places.sync_batch_norm)
        return fit("augshift", trial, config, directory, progress)

    return run_all(configs, places, progress, train)


class AugShiftTrial(NetworkTrial[AugShiftConfig]):
    """One network, trained on one crop or two of each image, and tested on shifted images."""

    IMAGES = ("classes", "mean", "std")
    model: Classifier

    def __init__(
        self,
        config: AugShiftConfig,
        train: Images,
        test: Images,
        *,
        sync_batch_norm: bool = True,
    ):
        self.train_set, self.test_set = train, test
        self.num_classes = len(train.classes)
        self.crops = METHODS[config.method].crops

        # A crop more of each image is an image less, or else it is one image more to compute.
        crops = self.crops if config.equal_compute else 1
        self._images = max(1, (config.epoch_images or len(train)) // crops)
        self._batch_size = max(1, config.batch_size // crops)
        self.images_per_epoch = self._images * self.crops

        self.classifier = model = build(config, self.num_classes)
        expect_enough(self._images, self._batch_size)
        super().__init__(
            config,
            model,
            channels_last=config.width % 16 == 0,
            sync_batch_norm=sync_batch_norm,
        )
        self._step = torch.compile(self._loss) if config.compile else self._loss
        self.optimizer = torch.optim.SGD(
            self.model.parameters(),
            lr=config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            nesterov=config.momentum > 0,
            fused=True,
        )
        self.scheduler = self._scheduler()

    def train_epoch(self, epoch: int) -> Iterator[Tally]:
        self.model.train()
        config, tally = self.config, Tally()
        order = epoch_order(
            len(self.train_set), seed=config.seed, epoch=epoch, samples=self._images
        )
        draws = generator(config.seed, epoch, 0, "crops")
        shared = {"rank": rank(), "world_size": count()}
        for batch in self.train_set.batches(order, self._batch_size, epoch=epoch, **shared):
            crops = random_views(
                batch,
                config.image_size,
                views=self.crops,
                flip=config.flip,
                padding=config.crop_padding,
                generator=draws,
                **self._view_options(self.train_set),
            )
            try:
                loss, logits = self.shared(
                    self._step, crops.flatten(0, 1), batch.labels, part=batch.part
                )
            except InputError as error:  # NaN, which the loss sees at once on the CPU
                raise InputError(
                    f"learning_rate: the features became nan in epoch {epoch}; try a smaller one"
                ) from error
            tally.add(logits, batch.labels.repeat(self.crops))
            self.descend(loss, len(batch.labels))
            yield tally

    @torch.no_grad()
    def test(self, epoch: int) -> tuple[Tally, dict[str, Tensor]]:
        self.shared.evaluating()
        tally = Tally()
        order = torch.as_tensor(share(range(len(self.test_set))))
        for batch in self.test_set.batches(order, self.config.test_batch_size):
            options = self._view_options(self.test_set)
            images = centre_view(batch, self.config.image_size, **options)
            tally.add(self._logits(images), batch.labels)
        return tally, {}

    def measure(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        config = self.config
        options = {
            "protocol": config.protocol,
            "size": config.image_size,
            "batch_size": config.test_batch_size,
            **self._view_options(self.test_set),
        }
        self.model.eval()
        rows = consistency_rows(
            self._logits, self.test_set, shifts=config.shifts, passes=config.passes, **options
        )
        arrays = probabilities_under_shifts(self._logits, self.test_set, **options)
        return {"consistency": rows, "classes": list(self.test_set.classes)}, arrays

    def _loss(self, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and logits of crops ``[V·N,3,h,w]``, as a mean over crops: with Equation 1's sum,
        rows with two crops would take steps of twice the length."""
        config = self.config
        with self.autocast():
            features = self.classifier.forward_features(images)
            if self.crops == 1:
                logits = self.classifier.head(features.mean((2, 3)))
                smoothing = config.label_smoothing
                return F.cross_entropy(logits, target, label_smoothing=smoothing), logits
            result = fused_augshift_loss(
                features,
                None,
                self.classifier.head,
                target,
                weight=config.weight,
                label_smoothing=config.label_smoothing,
                relative=config.relative,
                all_processes=several(),
            )
        return result.loss / 2, torch.cat([result.logits_a, result.logits_b])

    def _logits(self, images: Tensor) -> Tensor:
        with self.autocast():
            return self.network(images)

    def _view_options(self, images: Images) -> dict[str, Any]:
        return {
            "mean": images.mean,
            "std": images.std,
            "dtype": torch.bfloat16 if self.config.precision == "bf16" else torch.float32,
            "memory_format": self.memory_format,
        }

    def _scheduler(self) -> lr_scheduler.LRScheduler:
        config = self.config
        steps_per_epoch = -(-self._images // self._batch_size)
        steps = steps_per_epoch * config.epochs
        if config.schedule == "cosine":
            return lr_scheduler.CosineAnnealingLR(self.optimizer, steps)
        if config.schedule == "step":  # torchvision's: a tenth every 30 epochs
            return lr_scheduler.StepLR(self.optimizer, 30 * steps_per_epoch)
        return lr_scheduler.OneCycleLR(
            self.optimizer, config.learning_rate, total_steps=steps, cycle_momentum=False
        )


def rebuilt(config: dict[str, Any], state: dict[str, Any]) -> Trained:
    """The network of a checkpoint, before any training."""
    augshift = AugShiftConfig(**config | {"shifts": tuple(config["shifts"])})
    images = state["images"]
    classes = tuple(images["classes"])
    return Trained(
        build(augshift, len(classes)),
        "",
        "classification",
        "backbone",
        num_classes=len(classes),
        classes=classes,
        mean=images["mean"],
        std=images["std"],
        input_size=augshift.image_size,
        resize_size=augshift.resize_size or augshift.image_size,
    )


def build(config: AugShiftConfig, num_classes: int) -> Classifier:
    """The network of a configuration, its weights drawn from ``config.seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        backbone = NETWORKS[config.network](
            width=config.width, stem=config.stem, blur=METHODS[config.method].blur
        )
        return Classifier(backbone, num_classes)
