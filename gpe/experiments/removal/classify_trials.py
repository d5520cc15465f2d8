"""Records of `gpe ablate --task classify` as the report reads them, checked once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from statistics import fmean
from typing import Any, NamedTuple

from gpe.experiments.removal.config import MATCHED, RANDOM
from gpe.experiments.removal.modes import band_of, in_order
from gpe.experiments.removal.trials import (
    Removal,
    Value,
    bands_of,
    each,
    percentage,
    removal_of,
    told,
    top,
)
from gpe.report.grouping import grouped
from gpe.report.runs import Run

# What a score counts, by what the network is held against.
MEASURES = {"labels": "top-1 accuracy", "answers": "answers kept"}


class Excess(NamedTuple):
    """Points that a ranking's first channels cost more than random ones; 95 % over images."""

    points: float
    low: float
    high: float


@dataclass(frozen=True)
class Trial:
    """What one classifier loses without some of the channels before its linear layer.

    Attributes:
        label: tells it from the others of its group.
        data: that it was scored on.
        images: that were scored.
        channels: of the layer.
        baseline: top-1 in percent, nothing removed.
        chance: of guessing.
        rankings: random orders not among them.
        draws: names of the random orders.
        matched: names of the random orders that deviate as Equation 2's does.
        shared: by count, how many of its first channels these share with Equation 2, on average.
        counts: how many of the first channels were removed, rising.
        ranges: what else was removed, from the first channels to the last.
        accuracy: in percent by ranking or draw and what was removed.
        excess: by ranking and count, beyond random orders.
        beyond_matched: of Equation 2 by count, beyond the matched orders.
        measure: what is in percent: accuracy, or answers kept where images have no labels.
    """

    config: dict[str, Any]
    label: str
    data: str
    images: int
    channels: int
    baseline: float
    chance: float
    rankings: list[str]
    draws: list[str]
    matched: list[str]
    shared: dict[int, float]
    counts: list[int]
    ranges: list[Removal]
    accuracy: dict[tuple[str, Removal], float]
    excess: dict[tuple[str, int], Excess]
    beyond_matched: dict[int, Excess]
    measure: str

    @property
    def lines(self) -> list[str]:
        """What a figure or table shows: every ranking, and orders of a kind as one."""
        return [*self.rankings, *bands_of(self)]

    @property
    def told(self) -> dict[int, int]:
        """By one of the paper's counts, of its 2,048, the one of this network to tell of."""
        counts = [count for count in self.counts if 0 < count < self.channels]
        return {paper: count for count, paper in told(counts, self.channels).items()}

    def value(self, line: str, removal: Removal) -> Value:
        """Of one of ``lines``; of several orders the mean, the lowest and the highest."""
        values = [self.accuracy[name, removal] for name in bands_of(self).get(line, [line])]
        return Value(fmean(values), min(values), max(values))


def groups(runs: Sequence[Run]) -> list[list[Trial]]:
    """The networks that were scored on the same images, side by side.

    Raises:
        InputError: a record lacks what a record of this experiment has.
    """
    trials = [_labelled(title, trial) for title, trial in each(runs, _read)]
    return list(grouped(trials, "data", "images", "measure").values())


def _labelled(title: str, trial: Trial) -> Trial:
    """Without what the whole group has in common."""
    label = title.removeprefix(f"{trial.data}, ").replace(f", {trial.config['layer']}", "", 1)
    return replace(trial, label=label)


def _read(run: Run) -> Trial:
    config, result = run.record.config, run.record.result
    accuracy = {
        (str(row["ranking"]), removal_of(row)): percentage(row["accuracy"])
        for row in result["rows"]
    }
    names = {name for name, _ in accuracy}
    removals = {removal for _, removal in accuracy}
    if len(accuracy) != len(names) * len(removals) or top(0) not in removals:
        raise ValueError("rows: some are missing, or none is of the whole network")
    bands = {kind: sorted(n for n in names if band_of(n) == kind) for kind in (MATCHED, RANDOM)}
    channels = int(result["channels"])
    if max(removal.stop for removal in removals) > channels:
        raise ValueError(f"rows: the layer has {channels} channels")
    return Trial(
        config=config,
        label="",
        data=str(config["data"]),
        images=int(result["images"]),
        channels=channels,
        baseline=next(value for (_, removed), value in accuracy.items() if removed == top(0)),
        chance=float(run.record.chance),
        rankings=in_order(names - {name for band in bands.values() for name in band}),
        draws=bands[RANDOM],
        matched=bands[MATCHED],
        shared={int(count): float(n) for count, n in result.get("shared", {}).items()},
        counts=sorted(removal.stop for removal in removals if removal.kind == "top"),
        ranges=sorted(removal for removal in removals if removal.kind == "range"),
        accuracy=accuracy,
        measure=MEASURES[str(result.get("reference", "labels"))],
        excess={(str(r["ranking"]), int(r["stop"])): _excess(r) for r in result["excess"]},
        beyond_matched={int(r["stop"]): _excess(r) for r in result.get("beyond_matched", ())},
    )


def _excess(row: dict[str, Any]) -> Excess:
    found = Excess(*(float(row[name]) for name in Excess._fields))
    if not all(map(isfinite, found)) or not found.low <= found.high:
        raise ValueError(f"excess: expected points and an interval, got {found}")
    return found
