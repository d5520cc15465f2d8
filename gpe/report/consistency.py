"""What `gpe consistency` found: given networks beside one another, by shift."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gpe.report.figures import DASHES, BandLine, by_shift
from gpe.report.grouping import grouped, recipe, with_variants
from gpe.report.runs import Run, distinct
from gpe.report.scores import Scores, cells, consistency_of, points, read_shifts, shown_shifts
from gpe.report.words import count, listing, percent, random_shifts

_COLOURS = ("augshift", "baseline", "blurpool-augshift", "wide-crops", "blurpool")
_RECIPE = ("images", "image_size", "resize_size", "passes")


@dataclass(frozen=True)
class Trial:
    """One network, scored on one folder.

    Attributes:
        weights: where they came from; empty where that is not said.
        protocol: what comes in where a shifted image leaves: a name of ``gpe.metrics``.
        variant: how it differs, but for the seed, from others of the same network.
    """

    config: dict[str, Any]
    data: str
    protocol: str
    model: str
    weights: str
    scores: Scores
    chance: float
    variant: str = ""


def section(runs: Sequence[Run]) -> dict[str, Any]:
    """The context of ``consistency.html``: one group for each table.

    Raises:
        InputError: a record lacks what a consistency record has.
    """
    return {"groups": [_group(members) for members in tables(runs)]}


def tables(runs: Sequence[Run]) -> list[list[Trial]]:
    """The trials in ``runs``, by data and protocol.

    Raises:
        InputError: a record lacks what a consistency record has.
    """
    trials = [run.read(_read) for run in distinct(runs)]
    return [
        with_variants(table, cell=("model", "weights"))
        for table in grouped(trials, "data", "protocol").values()
    ]


def title(trials: Sequence[Trial]) -> str:
    """Of the table of ``trials``."""
    return f"{trials[0].data}, protocol {trials[0].protocol}"


def findings(trials: Sequence[Trial]) -> list[str]:
    """A sentence for each shift that is told of, with all networks that were put to it."""
    networks = defaultdict(list)
    for row in _rows(trials):
        scores = [trial.scores for trial in row]
        shift = scores[0].headline
        mean, low, high = consistency_of(scores, shift)
        share = f"{percent(mean)} (95\u00a0% interval {low:.1f} to {high:.1f})"
        networks[shift].append(f"{share} with {_name(row[0], trials)}")
    return [
        f"Of the images, so many keep their answer under {random_shifts(shift)}: {listing(shares)}."
        for shift, shares in networks.items()
    ]


def table(trials: Sequence[Trial], room: int) -> dict[str, Any]:
    """Rows of networks; columns of accuracy and of consistency for ``room`` shifts."""
    shifts = shown_shifts([trial.scores for trial in trials], room)
    rows = []
    for number, row in enumerate(_rows(trials)):
        scores = [trial.scores for trial in row]
        dashes, colour = divmod(number, len(_COLOURS))
        rows.append(
            {
                "label": row[0].model,
                "name": _name(row[0], trials),
                "notes": [*_notes(row[0]), count(len(row), "seed")],
                "cells": cells(scores, shifts),
                "line": BandLine(
                    points=points(scores),
                    paper={},
                    colour=_COLOURS[colour],
                    dashes=DASHES[dashes % len(DASHES)],
                ),
            }
        )
    return {"shifts": shifts, "chance": trials[0].chance, "rows": rows}


def _group(trials: Sequence[Trial]) -> dict[str, Any]:
    content = table(trials, room=6)
    return {
        "title": title(trials),
        "recipe": recipe(trials, _RECIPE),
        "findings": findings(trials),
        "table": content,
        "figure": by_shift([row["line"] for row in content["rows"]]),
    }


def _rows(trials: Iterable[Trial]) -> Collection[list[Trial]]:
    return grouped(trials, "model", "weights", "variant").values()


def _notes(trial: Trial) -> list[str]:
    return list(filter(None, (trial.weights, trial.variant)))


def _name(trial: Trial, trials: Sequence[Trial]) -> str:
    """Of its row, with what tells it apart from others of its model."""
    rows = _rows(other for other in trials if other.model == trial.model)
    return trial.model if len(rows) == 1 else f"{trial.model} ({', '.join(_notes(trial))})"


def _read(run: Run) -> Trial:
    record, config = run.record, run.record.config
    accuracy = record.result["accuracy"]
    return Trial(
        config=config,
        data=str(config["data"]),
        protocol=str(config["protocol"]),
        model=str(config["model"]),
        weights="" if config["weights"] is None else str(config["weights"]),
        scores=Scores(None if accuracy is None else float(accuracy), read_shifts(record)),
        chance=float(record.chance),
    )
