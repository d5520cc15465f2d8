"""What AugShift runs show: findings, Table 2 beside the paper's, Figure S2, pictures, curves."""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from gpe.report.augshift_findings import findings
from gpe.report.augshift_pictures import moved
from gpe.report.augshift_sweep import is_sweep, sweeps
from gpe.report.augshift_trials import ROW, Trial, by, colour_of, method_of, tables
from gpe.report.figures import DASHES, BandLine, Line, by_shift, curves
from gpe.report.grouping import recipe
from gpe.report.runs import Run
from gpe.report.scores import cells, points, shown_shifts
from gpe.report.words import count

_RECIPE = (
    *("width", "epochs", "train_images", "test_images", "epoch_images", "batch_size"),
    *("learning_rate", "schedule", "protocol", "passes"),
)


def section(runs: Sequence[Run]) -> dict[str, Any]:
    """The context of ``augshift.html``: one group for each table.

    Raises:
        InputError: a record lacks what an AugShift record has.
    """
    found = tables(runs)
    methods = by([trial for trials in found for trial in trials], "method").values()
    return {
        "groups": [_group(trials) for trials in found],
        "methods": {method_of(same[0]).label: colour_of(same[0]) for same in methods},
    }


def title(trials: Sequence[Trial]) -> str:
    """Of the table of ``trials``."""
    first = trials[0]
    name = f"{first.data}, {first.network}, {first.preset} preset"
    return name if first.split == "test" else f"{name}, {first.split} images"


def table(trials: Sequence[Trial], room: int) -> dict[str, Any]:
    """Rows of method and setting; columns of accuracy and of consistency for ``room`` shifts."""
    shifts = shown_shifts([trial.scores for trial in trials], room)
    rows = []
    for same in by(trials, "method").values():
        several = by(same, *ROW).values()
        for number, seeds in enumerate(several):
            scores = [trial.scores for trial in seeds]
            label = method_of(seeds[0]).label
            choice = [seeds[0].setting, *filter(None, [seeds[0].variant])]
            remark = filter(None, [method_of(seeds[0]).remark])
            rows.append(
                {
                    "label": label,
                    "name": label if len(several) == 1 else ", ".join((label, *choice)),
                    "notes": [*choice, _compute(seeds), *remark],
                    "cells": cells(scores, shifts),
                    "line": BandLine(
                        points=points(scores),
                        paper=scores[0].paper_by_shift,
                        colour=colour_of(seeds[0]),
                        dashes=DASHES[number % len(DASHES)],
                    ),
                }
            )
    return {"shifts": shifts, "chance": trials[0].chance, "rows": rows}


def _compute(seeds: Sequence[Trial]) -> str:
    twice = method_of(seeds[0]).crops == 2 and not seeds[0].equal_compute
    return f"compute ×{2 if twice else 1}, {count(len(seeds), 'seed')}"


def _group(trials: Sequence[Trial]) -> dict[str, Any]:
    swept = is_sweep(trials)
    content = table(trials, room=2)
    return {
        "title": title(trials),
        "preset": trials[0].preset,
        "split": trials[0].split,
        "recipe": recipe(trials, _RECIPE),
        "findings": findings(trials),
        "sweeps": sweeps(trials) if swept else [],
        "table": None if swept else content,
        "figure": None if swept else by_shift([row["line"] for row in content["rows"]]),
        "picture": None if swept else moved(trials),
        "curves": _curves(trials),
    }


def _curves(trials: Sequence[Trial]) -> dict[str, Markup]:
    """By metric, a line for each run."""
    accuracy = [_line(trial, trial.accuracy) for trial in trials]
    loss = [_line(trial, trial.loss) for trial in trials]
    return {
        "accuracy": curves(accuracy, percent=True, chance=trials[0].chance),
        "loss": curves(loss, percent=False),
    }


def _line(trial: Trial, points: dict[int, float]) -> Line:
    return Line(points=points, marked=trial.last, colour=colour_of(trial), width=1.4, dashes="")
