"""Records of `gpe ablate --task classify` as the report reads them, checked once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any, NamedTuple

from gpe.experiments.removal.trials import Losses, Removal, Value, each, losses
from gpe.report.grouping import grouped
from gpe.report.runs import Run

# What a score counts, by what the network is held against.
MEASURES = {"labels": "top-1 accuracy", "answers": "answers kept"}


class Excess(NamedTuple):
    """Points that a ranking's first channels cost more than random ones; 95 % over images."""

    points: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Trial(Losses):
    """What one classifier loses without some of the channels before its linear layer.

    The whole image is its only region, and called as the score is.

    Attributes:
        label: tells it from the others of its group.
        data: that it was scored on.
        chance: of guessing.
        excess: by ranking and count, beyond random orders.
        beyond_matched: of Equation 2 by count, beyond the matched orders.
        measure: what is in percent: accuracy, or answers kept where images have no labels.
    """

    label: str
    data: str
    chance: float
    excess: dict[tuple[str, int], Excess]
    beyond_matched: dict[int, Excess]
    measure: str

    @property
    def whole(self) -> float:
        """The score with all channels."""
        return self.baseline[self.measure]

    def score(self, line: str, removal: Removal) -> Value:
        """Of one of ``lines``."""
        return self.value(line, removal, self.measure)


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
    result = run.record.result
    measure = MEASURES[str(result.get("reference", "labels"))]
    rows = [row | {"region": measure, "miou": float(row["accuracy"])} for row in result["rows"]]
    return Trial(
        **losses(run, rows),
        label="",
        data=str(run.record.config["data"]),
        chance=float(run.record.chance),
        measure=measure,
        excess={(str(r["ranking"]), int(r["stop"])): _excess(r) for r in result["excess"]},
        beyond_matched={int(r["stop"]): _excess(r) for r in result.get("beyond_matched", ())},
    )


def _excess(row: dict[str, Any]) -> Excess:
    found = Excess(*(float(row[name]) for name in Excess._fields))
    if not all(map(isfinite, found)) or not found.low <= found.high:
        raise ValueError(f"excess: expected points and an interval, got {found}")
    return found
