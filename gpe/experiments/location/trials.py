"""Location records as the report reads them: checked once, grouped in the paper's order."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gpe.experiments.location.config import CONTROLS, DASHES, NETWORKS, TASKS
from gpe.report.grouping import grouped, with_variants
from gpe.report.runs import Run

# Groups trials in the order of the paper's table.
by = partial(grouped, order=("paper", *TASKS, *DASHES, *NETWORKS))


@dataclass(frozen=True)
class Trial:
    """One location run.

    Attributes:
        network: a key of ``NETWORKS``.
        accuracy: test accuracy by epoch, in percent.
        loss: test loss by epoch.
        best: the epoch with the best test accuracy, which is the paper's protocol.
        chance: accuracy of guessing, in percent.
        paper: the paper's accuracy in percent, or None.
        variant: how it differs, but for the seed, from its neighbours in the table.
    """

    directory: Path
    config: dict[str, Any]
    data: str
    preset: str
    task: str
    grid: int
    padding: str
    network: str
    accuracy: dict[int, float]
    loss: dict[int, float]
    best: int
    last: int
    chance: float
    paper: float | None
    variant: str = ""


def read(runs: Sequence[Run]) -> list[Trial]:
    """The trials in ``runs``.

    Raises:
        InputError: a record lacks what a location record has.
    """
    tables = by([run.read(_read) for run in runs], "preset", "data").values()
    cell = "task", "grid", "padding", "network"
    return [trial for table in tables for trial in with_variants(table, cell)]


def _read(run: Run) -> Trial:
    record, config = run.record, run.record.config
    network = str(config["network"])
    if network == "permutenet" and config["permutation"] in CONTROLS:
        network = str(config["permutation"])
    trial = Trial(
        directory=run.directory,
        config=config,
        data=str(config["data"]),
        preset=str(config["preset"]),
        task=str(config["task"]),
        grid=int(config["grid_size"]),
        padding=str(config["padding_mode"]),
        network=network,
        accuracy={int(epoch["epoch"]): float(epoch["test_accuracy"]) for epoch in record.epochs},
        loss={int(epoch["epoch"]): float(epoch["test_loss"]) for epoch in record.epochs},
        best=int(record.result["best"]["epoch"]),
        last=int(record.result["last"]["epoch"]),
        chance=float(record.chance),
        paper=None if record.paper is None else float(record.paper["value"]),
    )
    # The result must name epochs that are there.
    trial.accuracy[trial.best], trial.accuracy[trial.last]
    return trial
