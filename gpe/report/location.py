"""What location runs show: findings, Table 1 beside the paper's, pictures, curves."""

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

from markupsafe import Markup

from gpe.report.figures import Line, curves
from gpe.report.grouping import recipe
from gpe.report.location_pictures import answers
from gpe.report.location_trials import NETWORKS, TASKS, Trial, by, read
from gpe.report.runs import Run
from gpe.report.words import listing

_DASHES = {"zeros": "", "reflect": "7 3", "replicate": "2.5 2.5", "circular": "8 3 2 3"}
_RECIPE = ("width", "epochs", "train_images", "test_images", "batch_size", "learning_rate")
_SUBJECTS = {
    "gapnet": "GAPNet",
    "permutenet": "PermuteNet, which shuffles its channels before it decides,",
    "fixed": "PermuteNet with the same shuffle every time (a control)",
}


def section(runs: Sequence[Run]) -> dict[str, Any]:
    """The context of ``location.html``: one group for each data set and preset.

    Raises:
        InputError: a record lacks what a location record has.
    """
    trials = read(runs)
    return {
        "groups": [
            {
                "data": data,
                "preset": preset,
                "recipe": recipe(members, _RECIPE),
                "findings": findings(members),
                "table": table(members),
                "pictures": answers(members),
                "curves": _curves(members),
            }
            for (preset, data), members in by(trials, "preset", "data").items()
        ],
        "asks_where": any(trial.task == "location" for trial in trials),
        "known": tuple(NETWORKS),
        "networks": {key: NETWORKS.get(key, key) for (key,) in by(trials, "network")},
        "paddings": {key: _DASHES.get(key, "") for (key,) in by(trials, "padding")},
    }


def findings(trials: Sequence[Trial]) -> dict[str, list[str]]:
    """Plain sentences by task, about the first padding and variant of each alone."""
    by_task = {}
    for (task,), members in by(trials, "task").items():
        choices = by(members, "padding", "variant")
        (padding, variant), chosen = next(iter(choices.items()))
        grids = [grid for (grid,) in by(chosen, "grid")]
        where = f"On {listing([f'{grid}×{grid}' for grid in grids])} grids"
        if len(choices) > 1:
            where += f" with padding {padding}" + (f" and {variant}" if variant else "")
        right = f"names the right {'cell' if task == 'location' else 'object'} for"

        sentences = []
        for (network,), same in by(chosen, "network").items():
            subject = _SUBJECTS.get(network, network)
            shares = _percents([_mean(same, grid) for grid in grids])
            if not sentences:
                sentences.append(f"{where} {subject} {right} {shares} of the test images.")
            else:
                sentences.append(f"{subject} does so for {shares}.")
        guesses = _percents([same[0].chance for same in by(chosen, "grid").values()])
        by_task[task] = [*sentences, f"Guessing would do so for {guesses}."]
    return by_task


def _mean(trials: Sequence[Trial], grid: int) -> float | None:
    shares = [trial.accuracy[trial.best] for trial in trials if trial.grid == grid]
    return fmean(shares) if shares else None


def _percents(shares: Sequence[float | None]) -> str:
    texts = ["-" if share is None else f"{share:.1f}" for share in shares]
    return listing(texts if len(set(texts)) > 1 else texts[:1]) + "\u00a0%"


def table(trials: Sequence[Trial]) -> dict[str, Any]:
    """Rows of padding, network and variant; columns of task and grid size."""
    columns = by(trials, "task", "grid")
    return {
        "tasks": {
            TASKS.get(task, task): len(by(members, "grid"))
            for (task,), members in by(trials, "task").items()
        },
        "columns": [(grid, members[0].chance) for (_, grid), members in columns.items()],
        "paddings": {
            padding: [_row(same, columns) for same in by(members, "variant", "network").values()]
            for (padding,), members in by(trials, "padding").items()
        },
    }


def _row(trials: Sequence[Trial], columns: Sequence[tuple]) -> dict[str, Any]:
    cells = by(trials, "task", "grid")
    return {
        "network": trials[0].network,
        "label": NETWORKS.get(trials[0].network, trials[0].network),
        "variant": trials[0].variant,
        "cells": [_cell(cells[column]) if column in cells else None for column in columns],
    }


def _cell(seeds: Sequence[Trial]) -> dict[str, Any]:
    best = [trial.accuracy[trial.best] for trial in seeds]
    return {
        "best": fmean(best),
        "last": fmean(trial.accuracy[trial.last] for trial in seeds),
        "spread": stdev(best) if len(seeds) > 1 else None,
        "seeds": len(seeds),
        "paper": seeds[0].paper,
        "chance": seeds[0].chance,
    }


def _curves(trials: Sequence[Trial]) -> dict[str, dict[tuple[str, int], Markup]]:
    """By metric, a figure for each task and grid size."""
    columns = by(trials, "task", "grid")
    accuracy = {
        column: curves(
            [_line(trial, trial.accuracy) for trial in members],
            percent=True,
            chance=members[0].chance,
        )
        for column, members in columns.items()
    }
    loss = {
        column: curves([_line(trial, trial.loss) for trial in members], percent=False)
        for column, members in columns.items()
    }
    return {"accuracy": accuracy, "loss": loss}


def _line(trial: Trial, points: dict[int, float]) -> Line:
    return Line(
        points=points,
        marked=trial.best,
        colour=trial.network if trial.network in NETWORKS else "ink",
        # Wider than the rest, to be seen under a control that reaches the same.
        width=3 if trial.network == "gapnet" else 1.4,
        dashes=_DASHES.get(trial.padding, ""),
    )
