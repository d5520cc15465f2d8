"""Training a DeepLabv3, and scoring it and others on the whole image and on its parts."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import PolynomialLR

from gpe.choices import PixelData
from gpe.data import SegmentationSet, epoch_order, segmentation_set
from gpe.data.augmentation import Augmentation
from gpe.data.imagenet import STATISTICS
from gpe.data.pixels import IGNORE, default_workers
from gpe.data.resident import cuts
from gpe.errors import InputError
from gpe.experiments.options import Places
from gpe.experiments.processes import count, is_first, rank, share
from gpe.experiments.progress import Progress
from gpe.experiments.runs import Partial, record, run_all
from gpe.experiments.segmentation.config import EvaluationConfig, PixelConfig, SegmentationConfig
from gpe.experiments.segmentation.scores import region_scores
from gpe.experiments.trained import Trained, open_trained
from gpe.experiments.training import NetworkTrial, Tally, fit, steps_of
from gpe.models import open_model
from gpe.models.deeplab import deeplabv3
from gpe.records import Record, save_arrays


def run(configs: Sequence[SegmentationConfig], places: Places, progress: Progress) -> list[Path]:
    """Trains each configuration in a directory of its own; returns the directories.

    Raises:
        InputError: the data or the backbone's weights cannot be had; or what :func:`run_all`
            raises.
    """

    def train(config: SegmentationConfig, directory: Path) -> Record:
        sets = (
            pixels(config, places, split, config.size, images)
            for split, images in (
                ("train", config.train_images),
                (config.split, config.test_images),
            )
        )
        trial = SegmentationTrial(config, *sets, sync_batch_norm=places.sync_batch_norm)
        return fit("segment", trial, config, directory, progress)

    return run_all(configs, places, progress, train)


def pixels(
    config: SegmentationConfig | PixelConfig,
    places: Places,
    split: str,
    size: tuple[int, int] | None,
    images: int | None,
) -> SegmentationSet:
    """A set of labelled images on the device; what is small enough stays in memory."""
    if config.data is None:
        known = ", ".join(get_args(PixelData))
        raise InputError(f"data: expected one of {known} with a file, got none")
    found = segmentation_set(
        config.data,
        places.root,
        split,
        size,
        images=images,
        workers=default_workers(places.workers),
    )
    if config.data in ("streets", "camvid"):
        found = found.cached()
    return found.to(config.device)


class PixelTally(Tally):
    """Of the pixels that are not to be ignored."""

    def add(self, logits: Tensor, target: Tensor) -> Tensor:
        """Counts a batch; logits ``[N,K,H,W]``, labels uint8 ``[N,H,W]``. Returns the mean loss."""
        target = target.long()
        loss = F.cross_entropy(logits.float(), target, ignore_index=IGNORE, reduction="sum")
        hits = (logits.detach().argmax(1) == target).sum()
        pixels = labelled(target)
        self.keep(len(target), loss.detach(), hits, pixels)
        return loss / pixels.clamp(min=1)


def labelled(target: Tensor) -> Tensor:
    """How many pixels are not to be ignored."""
    return (target != IGNORE).sum()


class SegmentationTrial(NetworkTrial[SegmentationConfig]):
    """One DeepLabv3, trained on views of images and tested on whole ones."""

    IMAGES = ("classes", "palette", "mean", "std")

    def __init__(
        self,
        config: SegmentationConfig,
        train: SegmentationSet,
        test: SegmentationSet,
        *,
        sync_batch_norm: bool = True,
    ):
        self.train_set, self.test_set = train, test
        self.num_classes = len(train.classes)
        steps = steps_of(len(train), config.batch_size)
        self.images_per_epoch = steps * config.batch_size
        super().__init__(
            config,
            build(config, self.num_classes),
            channels_last=config.width % 16 == 0,
            sync_batch_norm=sync_batch_norm,
        )
        rate = config.learning_rate
        head, backbone = (self.model.get_submodule(name) for name in ("classifier", "backbone"))
        groups: list[dict[str, Any]] = [
            {"params": head.parameters()},
            {"params": backbone.parameters(), "lr": config.backbone_rate * rate},
        ]
        self.optimizer = torch.optim.SGD(
            groups,
            lr=rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            fused=True,
        )
        steps *= config.epochs
        self.scheduler = PolynomialLR(self.optimizer, total_iters=steps, power=config.power)

    def train_epoch(self, epoch: int) -> Iterator[PixelTally]:
        self.model.train()
        config, tally = self.config, PixelTally()
        order = epoch_order(
            len(self.train_set), seed=config.seed, epoch=epoch, samples=self.images_per_epoch
        )
        shared = {"rank": rank(), "world_size": count()}
        cut = cuts(order, config.batch_size, len(self.train_set), **shared)
        views = self.train_set.training_batches(
            order,
            config.batch_size,
            augmentation=Augmentation(config.crop, config.scales, config.flip),
            seed=config.seed,
            epoch=epoch,
            **shared,
        )
        for batch, (_, part) in zip(views, cut, strict=True):
            logits = self.shared(self._logits, batch.images, part=part)
            loss = tally.add(logits, batch.labels)
            self.descend(loss, labelled(batch.labels))
            yield tally

    @torch.no_grad()
    def test(self, epoch: int) -> tuple[PixelTally, dict[str, Tensor]]:
        self.shared.evaluating()
        tally, order = PixelTally(), share(range(len(self.test_set)))
        for batch in self.test_set.batches(self.config.test_batch_size, order=order):
            tally.add(self._logits(batch.images), batch.labels)
        return tally, {}

    def measure(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        config = self.config
        return region_scores(
            self.model.eval(),
            self.test_set,
            batch_size=config.test_batch_size,
            precision=config.precision,
        )

    def _logits(self, images: Tensor) -> Tensor:
        with self.autocast():
            return self.network(images.contiguous(memory_format=self.memory_format))["out"]


def build(config: SegmentationConfig, num_classes: int) -> nn.Module:
    """The network of a configuration; weights that are not given are drawn from its seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = deeplabv3(
            config.backbone,
            num_classes,
            output_stride=config.output_stride,
            width=config.width,
        )
        if config.weights is not None:
            file = None if config.weights == "imagenet" else config.weights
            classifier = open_model(f"torchvision/{config.backbone}", weights=file).model
            classifier.fc = nn.Identity()
            model.get_submodule("backbone").load_state_dict(classifier.state_dict())
    return model


def rebuilt(config: dict[str, Any], state: dict[str, Any]) -> Trained:
    """The network of a checkpoint, before any training."""
    classes = tuple(state["images"]["classes"])
    pairs = {name: config[name] and tuple(config[name]) for name in ("size", "crop", "scales")}
    if pairs["crop"] is None:  # once, scales were taken without one and did nothing
        pairs["scales"] = (1.0, 1.0)
    model = build(SegmentationConfig(**config | pairs | {"weights": None}), len(classes))
    return segmenter(model, classes)


def segmenter(model: nn.Module, classes: tuple[str, ...] | None = None) -> Trained:
    """A network for segmentation: all are trained on images normalised as ImageNet's."""
    number = None if classes is None else len(classes)
    mean, std = STATISTICS
    return Trained(model, "", "segmentation", "backbone", number, classes, mean, std)


def evaluate(configs: Sequence[EvaluationConfig], places: Places, progress: Progress) -> list[Path]:
    """Scores trained networks; returns the directories of the records.

    Raises:
        InputError: a network or images that cannot be had or do not go together.
    """
    given = [open_segmenter(config) for config in configs]
    trained = {found.weights_digest: network for found, network in given}

    def score(config: EvaluationConfig, directory: Path) -> Record:
        progress.tell(f"{config.network} on {config.data}")
        images = pixels(config, places, config.split or "val", config.size, config.images)
        network = trained[config.weights_digest]
        expect_classes(network, images)
        device = torch.device(config.device)
        result, arrays = region_scores(
            network.model.to(device),
            images,
            batch_size=config.batch_size or 1,
            precision=config.precision,
            partial=Partial(directory),
        )
        if is_first():
            save_arrays(directory, arrays)
        return record("segment", config, result, chance=100 / len(images.classes))

    return run_all([config for config, _ in given], places, progress, score)


SomePixelConfig = TypeVar("SomePixelConfig", bound=PixelConfig)


def open_segmenter(config: SomePixelConfig) -> tuple[SomePixelConfig, Trained]:
    """The network of a configuration; and that, with what it was trained with for what is None."""
    network = open_trained(
        config.checkpoint,
        config.weights,
        tasks=["segmentation"],
        output_stride=config.output_stride,
    )
    known: dict[str, Any] = {name: network.config.get(name) for name in ("data", "split", "size")}
    if config.data not in (None, known["data"]):
        known = {}  # of another dataset, which has splits and a size of its own
    elif network.config:
        known["images"] = network.config["test_images"]
        known["batch_size"] = network.config["test_batch_size"]
    given = {name: value for name, value in known.items() if getattr(config, name) is None}
    if given.get("size") is not None:
        given["size"] = tuple(given["size"])
    found = replace(config, **given, network=network.name, weights_digest=network.digest)
    defaults: dict[str, Any] = {"split": "val", "batch_size": 1}
    unset = {name: value for name, value in defaults.items() if getattr(found, name) is None}
    return replace(found, **unset), network


def expect_classes(network: Trained, images: SegmentationSet) -> None:
    """Raise an InputError where the classes are known and are not those of the images."""
    if network.classes not in (None, images.classes):
        raise InputError(
            f"data: expected a set with the classes of {network.name}, got {images.name}"
        )
