"""AugShift records as the report reads them: checked once, grouped in the order of Table 2."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gpe.experiments.augshift.config import METHODS, Method
from gpe.experiments.shift_scores import Scores, read_shifts
from gpe.records import Record
from gpe.report.grouping import grouped, with_variants
from gpe.report.runs import Run

# Groups trials in the order of the paper's table.
by = partial(grouped, order=("test", "validation", "paper", "fast", "quick", *METHODS))
ROW = ("method", "variant", "crop_shift", "weight")


@dataclass(frozen=True)
class Trial:
    """One AugShift run, as it was after its last epoch.

    Attributes:
        split: ``"test"``, or ``"validation"`` where options were being chosen.
        method: a key of ``METHODS``.
        crop_shift: pixels that a training crop may lie off the centre.
        weight: λ of Equation 1.
        protocol: what comes in where a shifted image leaves: a name of ``gpe.metrics``.
        equal_compute: whether two crops an image mean half as many images an epoch.
        accuracy: by epoch, in percent.
        loss: by epoch, where it was kept.
        chance: accuracy of guessing, in percent.
        variant: how it differs, but for the seed and the above, from others of its method.
    """

    directory: Path
    config: dict[str, Any]
    data: str
    network: str
    preset: str
    split: str
    method: str
    crop_shift: int
    weight: float
    equal_compute: bool
    seed: int
    image_size: int
    protocol: str
    accuracy: dict[int, float]
    loss: dict[int, float]
    last: int
    scores: Scores
    classes: list[str]
    chance: float
    variant: str = ""

    @property
    def setting(self) -> str:
        """What may be chosen for it: the crops, and λ where an image has two."""
        weight = f", λ {self.weight:g}" if method_of(self).crops == 2 else ""
        return f"crops ±{self.crop_shift}{weight}"


def method_of(trial: Trial) -> Method:
    """Also of one that this version does not know."""
    crops = 2 if trial.weight > 0 else 1
    return METHODS.get(trial.method, Method(trial.method, trial.method, "ink", crops))


def tables(runs: Sequence[Run]) -> list[list[Trial]]:
    """The trials in ``runs``, by data, network, preset and split.

    Raises:
        InputError: a record lacks what an AugShift record has.
    """
    trials = [run.read(_read) for run in runs]
    return [
        with_variants(table, cell=("method",), shown=("crop_shift", "weight"))
        for table in by(trials, "preset", "data", "network", "split").values()
    ]


def _read(run: Run) -> Trial:
    record, config = run.record, run.record.config
    split = str(config["split"])
    accuracy = {epoch["epoch"]: float(epoch["test_accuracy"]) for epoch in record.epochs}
    last = record.result["last"]["epoch"]
    return Trial(
        directory=run.directory,
        config=config,
        data=str(config["data"]),
        network=str(config["network"]),
        preset=str(config["preset"]),
        split=split,
        method=str(config["method"]),
        crop_shift=int(config["crop_shift"]),
        weight=float(config["weight"]),
        equal_compute=bool(config["equal_compute"]),
        seed=int(config["seed"]),
        image_size=int(config["image_size"]),
        protocol=str(config["protocol"]),
        accuracy=accuracy,
        loss={
            epoch["epoch"]: float(epoch["test_loss"])
            for epoch in record.epochs
            if "test_loss" in epoch
        },
        last=last,
        scores=_scores(record, accuracy[last], split),
        classes=[str(name) for name in record.result["classes"]],
        chance=float(record.chance),
    )


def _scores(record: Record, top1: float, split: str) -> Scores:
    measured = read_shifts(record)
    if record.paper is None or split != "test":  # the paper tells of test images alone
        return Scores(top1, measured)
    consistency = dict(record.paper["consistency"])
    paper = {int(shift): float(value) for shift, value in consistency.items()}
    return Scores(top1, measured, float(record.paper["value"]), paper)
