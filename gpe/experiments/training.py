"""The training loop that all experiments share: epochs, checkpoints, progress, records."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpe.data import generator
from gpe.errors import InputError
from gpe.experiments.options import TrainingConfig
from gpe.experiments.parallel import Shared
from gpe.experiments.processes import expect_enough, is_first, several, summed
from gpe.experiments.progress import Progress
from gpe.experiments.runs import CHECKPOINT, as_json
from gpe.experiments.trained import autocast
from gpe.records import Record, atomic, save_arrays

SomeConfig = TypeVar("SomeConfig", bound=TrainingConfig)


class Tally:
    """Running sums of cross entropy and hits. They stay on the device: no step waits for it."""

    def __init__(self) -> None:
        self.count = 0  # of images, here
        self.sums: Tensor | None = None  # float64 [3]: loss, hits, and of how many

    def add(self, logits: Tensor, target: Tensor) -> Tensor:
        """Counts a batch; logits ``[N,K]``, target int64 ``[N]``. Returns the mean loss."""
        loss = F.cross_entropy(logits.float(), target)
        if len(target):  # processes that share a small batch may have none of its images
            hits = (logits.detach().argmax(1) == target).sum()
            self.keep(len(target), loss.detach() * len(target), hits, len(target))
        return loss

    def keep(self, images: int, loss: Tensor, hits: Tensor, of: Tensor | int) -> None:
        """Adds a batch: sums over ``of`` images or pixels."""
        self.count += images
        batch = torch.stack([torch.as_tensor(each).to(loss).double() for each in (loss, hits, of)])
        self.sums = batch if self.sums is None else self.sums + batch

    def of_all_processes(self) -> Self:
        """Of all processes; all call this."""
        if self.sums is not None:
            self.sums = summed(self.sums)
        return self

    @property
    def loss(self) -> float:
        """Mean cross entropy."""
        return self._mean(0)

    @property
    def accuracy(self) -> float:
        """In percent."""
        return 100 * self._mean(1)

    def _mean(self, which: int) -> float:
        return 0.0 if self.sums is None else float(self.sums[which] / self.sums[2].clamp(min=1))


class NetworkTrial(Generic[SomeConfig]):
    """One network and how it is trained and tested, as the loop sees it.

    Each experiment's own are its epochs and tests, and what is declared here: ``optimizer`` and
    ``scheduler`` are made after the network.

    Args:
        config: has ``device``, ``precision`` and ``compile``.
        model: with the weights to start from.
        channels_last: whether that is faster on the CPU, too. torch 2.15 crashes on it there where
            8 channels come in.
        sync_batch_norm: among several processes.
    """

    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    images_per_epoch: int
    num_classes: int
    train_set: Any
    clip: float | None = None  # greatest norm of the gradient
    # What whoever uses the network needs to know of the images it was trained on.
    IMAGES: tuple[str, ...] = ()

    def __init__(
        self,
        config: SomeConfig,
        model: nn.Module,
        *,
        channels_last: bool,
        sync_batch_norm: bool = True,
    ):
        self.config = config
        self.device = torch.device(config.device)
        channels_last = channels_last or self.device.type == "cuda"
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.model = model.to(self.device).to(memory_format=self.memory_format)
        self.network = torch.compile(self.model) if config.compile else self.model
        self.shared = Shared(self.model, sync_batch_norm=sync_batch_norm)

    def descend(self, loss: Tensor, of: Tensor | int) -> None:
        """One step of the optimizer, and of the schedule; ``loss`` is the mean over ``of`` images
        or pixels."""
        loss = self.shared.weighted(loss, of)
        self.optimizer.zero_grad()
        loss.backward()
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.shared.model.parameters(), self.clip)
        self.optimizer.step()
        self.scheduler.step()

    def train_epoch(self, epoch: int) -> Iterator[Tally]:
        """Train one epoch, counted from 1; yields its running tally after each step."""
        raise NotImplementedError

    def test(self, epoch: int) -> tuple[Tally, dict[str, Tensor]]:
        """Test once; also the arrays that a report draws pictures from, of any epoch."""
        raise NotImplementedError

    def measure(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What takes too long for every epoch: more results, more arrays. After the last."""
        return {}, {}

    def state_dict(self) -> dict[str, Any]:
        """All that the next epoch depends on, and what is known of the images."""
        state = {name: getattr(self, name).state_dict() for name in self._STATE}
        images = {name: getattr(self.train_set, name) for name in self.IMAGES}
        return state | ({"images": images} if images else {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state``."""
        for name in self._STATE:
            getattr(self, name).load_state_dict(state[name])

    _STATE: tuple[str, ...] = ("model", "optimizer", "scheduler")

    def autocast(self) -> torch.autocast:
        """To what the configuration's precision says."""
        return autocast(self.device, self.config.precision)


def steps_of(images: int, batch_size: int) -> int:
    """Whole batches in an epoch: batch norm of a batch of one image cannot be had.

    Raises:
        InputError: not one, or too small a batch for all processes.
    """
    if images < batch_size:
        raise InputError(
            f"batch_size: expected at most {images}, as many as there are images to train on, "
            f"got {batch_size}"
        )
    expect_enough(images - images % batch_size, batch_size)
    return images // batch_size


@dataclass
class _History:
    """What was reached, as the checkpoint keeps it."""

    epochs: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    training_seconds: float = 0.0


def fit(
    experiment: str,
    trial: NetworkTrial,
    config: TrainingConfig,
    directory: Path,
    progress: Progress,
) -> Record:
    """Trains and tests ``config.epochs`` epochs; returns the record.

    Continues from the checkpoint that an interrupted run left in ``directory``, in any number of
    processes.

    After each epoch a checkpoint is written, whole or not at all: an interruption at any moment
    loses at most one epoch, and a resumed run ends with the same bits on the CPU. What is drawn
    from torch's own generator is a function of ``config.seed`` and the epoch.

    Raises:
        InputError: the loss became infinite or not a number; a checkpoint of another run.
    """
    options = as_json(config)
    history = _resume(trial, directory, options)
    epochs, done = config.epochs, len(history.epochs)
    with progress.run(directory.name, epochs, trial.images_per_epoch, done) as bar:
        for epoch in range(done + 1, epochs + 1):
            # For dropout and its like, which draw from torch's own generator.
            torch.manual_seed(generator(config.seed, epoch, 0, "torch").initial_seed())
            start = time.perf_counter()
            for train in trial.train_epoch(epoch):
                bar.step(epoch, train)
            training_seconds = time.perf_counter() - start
            train = train.of_all_processes()
            test, arrays = trial.test(epoch)
            test = test.of_all_processes()
            metrics = {
                "epoch": epoch,
                "train_loss": train.loss,
                "train_accuracy": train.accuracy,
                "test_loss": test.loss,
                "test_accuracy": test.accuracy,
            }
            for loss in (train.loss, test.loss):
                if not math.isfinite(loss):
                    raise InputError(
                        f"learning_rate: the loss became {loss} in epoch {epoch}; try a smaller one"
                    )
            history.epochs.append(metrics)
            history.seconds += time.perf_counter() - start
            history.training_seconds += training_seconds
            if is_first():
                if arrays:
                    save_arrays(directory, arrays)
                _save(experiment, trial, directory, options, history)
            bar.epoch(metrics, trial.images_per_epoch / training_seconds)

    start = time.perf_counter()
    results, arrays = trial.measure()
    if arrays and is_first():
        save_arrays(directory, arrays)
    return Record.of(
        experiment,
        config,
        _result(history.epochs) | results,
        chance=100 / trial.num_classes,
        seconds=history.seconds + time.perf_counter() - start,
        device=trial.device,
        epochs=history.epochs,
        paper=config.paper,
        run={"images_per_second": epochs * trial.images_per_epoch / history.training_seconds}
        | ({"sync_batch_norm": trial.shared.sync_batch_norm} if several() else {}),
    )


def _result(epochs: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    best = max(epochs, key=lambda metrics: metrics["test_accuracy"])
    chosen = {"last": epochs[-1], "best": best}
    return {
        which: {name: metrics[name] for name in ("epoch", "test_accuracy")}
        for which, metrics in chosen.items()
    }


def _save(
    experiment: str, trial: NetworkTrial, directory: Path, config: dict[str, Any], history: _History
) -> None:
    state = {
        "experiment": experiment,
        "config": config,
        "history": vars(history),
        "trial": trial.state_dict(),
    }
    with atomic(directory / CHECKPOINT) as path:
        torch.save(state, path)


def _resume(trial: NetworkTrial, directory: Path, config: dict[str, Any]) -> _History:
    path = directory / CHECKPOINT
    if not path.exists():
        return _History()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises almost anything on a file not its own
        raise InputError(f"resume: {path} is no checkpoint: {type(error).__name__}") from error
    if not isinstance(state, dict) or state.get("config") != config:
        raise InputError(f"resume: {path} is of another configuration")
    trial.load_state_dict(state["trial"])
    return _History(**state["history"])
