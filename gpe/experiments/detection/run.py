"""Training pedestrian detectors, and scoring them and others' detections (supplement S4)."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from gpe.data import epoch_order
from gpe.data.boxed_views import (
    BoxAugmentation,
    BoxedBatch,
    BoxedSet,
    view_batches,
    whole_batches,
)
from gpe.data.pixels import default_workers
from gpe.data.resident import Part, cuts
from gpe.errors import InputError
from gpe.experiments.detection.config import (
    PARTS,
    AblationConfig,
    DetectionConfig,
    DetectorConfig,
    EvaluationConfig,
)
from gpe.experiments.detection.images import annotated, boxed_images
from gpe.experiments.detection.layers import Place
from gpe.experiments.detection.networks import build, open_detector, rebuilt
from gpe.experiments.detection.removal import Removal
from gpe.experiments.detection.scores import (
    Boxes,
    People,
    curves_of,
    flat,
    pictures,
    rates_of,
    summary,
    unflat,
)
from gpe.experiments.options import Places
from gpe.experiments.processes import (
    count,
    expect_one_process,
    expect_trained,
    is_first,
    rank,
    share,
    summed,
)
from gpe.experiments.progress import Progress
from gpe.experiments.runs import Partial, record, run_all
from gpe.experiments.trained import autocast
from gpe.experiments.training import NetworkTrial, Tally, fit, steps_of
from gpe.metrics.detections import read_detections
from gpe.models.detection import Detector
from gpe.records import Record, save_arrays

__all__ = ["ablate", "evaluate", "rebuilt", "run"]


def run(configs: Sequence[DetectionConfig], places: Places, progress: Progress) -> list[Path]:
    """Trains each configuration in a directory of its own; returns the directories.

    Raises:
        InputError: the data or the backbone's weights cannot be had; torchrun started several
            processes for a two-stage detector; or what :func:`run_all` raises.
    """
    for config in configs:
        if config.detector != "csp":
            what = f"training {config.detector}, whose random regions depend on how many draw them,"
            expect_one_process(f"detector: {what}")

    def train(config: DetectionConfig, directory: Path) -> Record:
        progress.tell(f"{directory.name}: reads its images")
        train_set, test_set = (
            boxed_images(config.data, places, split, size=config.size, images=images)
            for split, images in (
                ("train", config.train_images),
                (config.split, config.test_images),
            )
        )
        workers = 0 if config.data == "streets" else default_workers(places.workers)
        trial = DetectionTrial(
            config, train_set, test_set, workers, sync_batch_norm=places.sync_batch_norm
        )
        return fit("detect", trial, config, directory, progress)

    return run_all(configs, places, progress, train)


class LossTally(Tally):
    """The mean loss of the images so far; boxes have no accuracy."""

    def add_loss(self, loss: Tensor, part: Part) -> None:
        """Counts a part of a batch by what it adds to the batch's loss."""
        images = part.stop - part.start
        self.keep(images, loss.detach() * part.whole, torch.tensor(math.nan), images)


def miss_tally(images: int, miss_rate: float) -> Tally:
    """Of a tested detector: the loss is the miss rate of the first setting, as a share."""
    tally, missed = Tally(), torch.tensor(images * miss_rate / 100, dtype=torch.float64)
    tally.keep(images, missed, images - missed, images)
    return tally


class DetectionTrial(NetworkTrial[DetectionConfig]):
    """One detector, trained on views of images and tested on whole ones."""

    num_classes = 1
    _STATE = ("model", "raw", "optimizer", "scheduler")

    def __init__(
        self,
        config: DetectionConfig,
        train: BoxedSet,
        test: BoxedSet,
        workers: int,
        *,
        sync_batch_norm: bool = True,
    ):
        self.train_set, self.test_set, self.workers = train, test, workers
        steps = steps_of(len(train), config.batch_size)
        self.people = People(test)
        self.images_per_epoch = steps * config.batch_size
        # What is trained; and what is tested and kept: its running mean.
        self.raw = build(config)
        super().__init__(
            config,
            self.raw,
            channels_last=config.width % 16 == 0,
            sync_batch_norm=sync_batch_norm,
        )
        self.clip = config.clip
        self._averaged: AveragedModel | None = None
        if config.averaging:
            mean = get_ema_multi_avg_fn(config.averaging)
            self._averaged = AveragedModel(self.raw, multi_avg_fn=mean, use_buffers=True)
            self.model = self._averaged.module
        if config.compile:  # what is behind them depends on what is found
            for part in PARTS:
                self.raw.get_submodule(part).compile()
        settings: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
        self.optimizer = (
            torch.optim.Adam(self.raw.parameters(), **settings)
            if config.optimizer == "adam"
            else torch.optim.SGD(self.raw.parameters(), momentum=0.9, **settings)
        )
        self.scheduler = LambdaLR(self.optimizer, lambda step: _rate(config, step, steps))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        if self._averaged is not None:
            self._averaged.n_averaged.fill_(1)  # or the next step would begin the mean anew

    def train_epoch(self, epoch: int) -> Iterator[LossTally]:
        config, tally = self.config, LossTally()
        self.raw.train()
        order = epoch_order(
            len(self.train_set), seed=config.seed, epoch=epoch, samples=self.images_per_epoch
        )
        shared = {"rank": rank(), "world_size": count()}
        cut = cuts(order, config.batch_size, len(self.train_set), **shared)
        how = BoxAugmentation(config.crop, config.scales, config.flip, config.brightness)
        batches = view_batches(
            self.train_set,
            order,
            config.batch_size,
            augmentation=how,
            seed=config.seed,
            epoch=epoch,
            workers=self.workers,
            device=config.device,
            **shared,
        )
        for batch, (_, part) in zip(batches, cut, strict=True):
            loss = self.shared(self._loss, batch, part=part)
            self.descend(loss * count(), 1)  # the mean over the processes is that of the batch
            if self._averaged is not None:
                self._averaged.update_parameters(self.raw)
            tally.add_loss(loss, part)
            yield tally

    def _loss(self, batch: BoxedBatch) -> Tensor:
        """What this process's part adds to the loss of the batch."""
        images = batch.images.contiguous(memory_format=self.memory_format)
        with self.autocast():
            parts = self.raw.losses(images, batch.wanted, batch.ignored, of_all=summed)
        return torch.stack([part.float() for part in parts.values()]).sum()

    def test(self, epoch: int) -> tuple[Tally, dict[str, Tensor]]:
        self.shared.evaluating(self.model)
        self.found = found_by(
            cast(Detector, self.model),
            self.test_set,
            share(range(len(self.test_set))),
            self.config,
            workers=self.workers,
        )
        rate = next(iter(rates_of(self.people.metric(self.found)).values()))
        return miss_tally(len(self.test_set), rate), {}

    def measure(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        if not hasattr(self, "found"):  # continued behind the last epoch
            self.test(self.config.epochs)
        return scores_of(self.people, self.test_set, self.found)


def _rate(config: DetectionConfig, step: int, steps: int) -> float:
    """The learning rate at a step, as a share of the whole."""
    warm = min(1.0, 1 / 3 + 2 / 3 * step / config.warmup) if config.warmup else 1.0
    if config.schedule == "cosine":
        return warm * (1 + math.cos(math.pi * step / (steps * config.epochs))) / 2
    return warm * 0.1 ** sum(step >= milestone * steps for milestone in config.milestones)


@torch.no_grad()
def found_by(
    model: Detector,
    images: BoxedSet,
    indices: Sequence[int],
    config: DetectionConfig | DetectorConfig,
    *,
    workers: int,
    partial: Partial | None = None,
) -> Boxes:
    """What a detector in evaluation mode finds in the images with these indices."""
    size = config.test_batch_size if isinstance(config, DetectionConfig) else config.batch_size or 1
    done, rows = 0, torch.zeros(0, 6)
    if partial is not None and (kept := partial.load()) is not None:
        done, rows = kept[0], kept[1]["rows"]
    for batch in whole_batches(
        images, size, order=indices[done:], workers=workers, device=config.device
    ):
        with autocast(config.device, config.precision):
            found = model.detect(model.latent(batch), images.size, least_score=config.least_score)
        rows, done = torch.cat([rows, flat(found, done)]), done + len(batch)
        if partial is not None:
            partial.save(done, {"rows": rows})
    return unflat(rows, indices)


def scores_of(
    people: People, images: BoxedSet, found: Boxes
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The result of a record and its arrays: curves, and a few images with boxes."""
    metric = people.metric(found)
    return summary(metric, people), curves_of(metric, "") | pictures(images, people, {"": found})


def evaluate(configs: Sequence[EvaluationConfig], places: Places, progress: Progress) -> list[Path]:
    """Scores detectors and files of detections; returns the directories of the records.

    Raises:
        InputError: a detector, a file or images that cannot be had or do not go together.
    """
    given = [_opened(config) for config in configs]
    networks = {config.weights_digest: model for config, model in given}

    def score(config: EvaluationConfig, directory: Path) -> Record:
        progress.tell(f"{config.network} on {config.data}")
        model = networks[config.weights_digest]
        if model is None:
            split = config.split or "val"
            people = People(annotated(config.data, places, split, annotations=config.annotations))
            listed = read_detections(config.checkpoint, len(people.rows))
            metric = people.metric(dict(enumerate(listed)), box_format="xywh")
            result, arrays = summary(metric, people), curves_of(metric, "")
        else:
            images, workers = _images(config, places)
            found = found_by(
                model.to(config.device),
                images,
                share(range(len(images))),
                config,
                workers=workers,
                partial=Partial(directory),
            )
            result, arrays = scores_of(People(images), images, found)
        if is_first():
            save_arrays(directory, arrays)
        return record("detect", config, result, chance=100)

    return run_all([config for config, _ in given], places, progress, score)


def _opened(config: EvaluationConfig) -> tuple[EvaluationConfig, Detector | None]:
    """The network, and what is known of it; of a file of detections its digest alone."""
    path = Path(config.checkpoint).expanduser()
    if path.suffix != ".json":
        return open_detector(config)
    if not path.is_file():
        raise InputError(f"checkpoint: there is no {path}")
    content = hashlib.sha256(path.read_bytes()).hexdigest()[:32]
    config = replace(config, network=path.name, weights_digest=content)
    return replace(config, data=config.data or "citypersons", split=config.split or "val"), None


def _images(config: DetectorConfig, places: Places) -> tuple[BoxedSet, int]:
    """The images of a configuration, and how many processes read them."""
    images = boxed_images(
        config.data,
        places,
        config.split or "val",
        size=config.size,
        images=config.images,
        annotations=config.annotations,
    )
    return images, 0 if config.data == "streets" else default_workers(places.workers)


def ablate(configs: Sequence[AblationConfig], places: Places, progress: Progress) -> list[Path]:
    """Removes channels of each detector's latent; returns the directories of the records.

    Raises:
        InputError: a detector or images that cannot be had or do not go together.
    """
    given = [open_detector(config) for config in _trained(configs, places, progress)]
    networks = {config.weights_digest: model for config, model in given}

    def remove(config: AblationConfig, directory: Path) -> Record:
        progress.tell(f"{config.job}: {config.network} on {config.data}")
        images, workers = _images(config, places)
        model = networks[config.weights_digest].to(config.device)
        return Removal(config, model, images, directory, workers).done()

    return run_all([config for config, _ in given], places, progress, remove)


def _trained(
    configs: Sequence[AblationConfig], places: Places, progress: Progress
) -> list[AblationConfig]:
    """With the preset's detectors where none is given: trained, unless they were before."""
    if all(config.checkpoint for config in configs):
        return list(configs)
    expect_trained("gpe detect train")
    names = ("preset", "detector", "data", "size", "device", "precision", "seed")
    trainings = [
        DetectionConfig.of(**{name: getattr(config, name) for name in names}) for config in configs
    ]
    for config, training in zip(configs, trainings, strict=True):
        untrained = build(replace(training, weights=None)).eval()
        Place(untrained, config.level, config.layer, (128, 256))  # told before hours of training
    directories = run(trainings, replace(places, force=False), progress)
    return [
        replace(config, checkpoint=str(directory), preset=None)
        for config, directory in zip(configs, directories, strict=True)
    ]
