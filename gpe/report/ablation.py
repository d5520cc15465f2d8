"""What networks lose without some of their channels: `gpe ablate`, Figure 4 and Figure 6."""

from collections.abc import Sequence
from typing import Any

from gpe.report.ablation_figures import HALVES, figures, has_paper
from gpe.report.ablation_findings import findings as of_one
from gpe.report.ablation_trials import PAPER_CHANNELS, Trial, read, top
from gpe.report.given_networks import each
from gpe.report.grouping import recipe
from gpe.report.rankings import RANDOM, ranking_of
from gpe.report.runs import Run
from gpe.report.words import count

_RECIPE = ("preset", "size", "batch_size", "precision", "seed")
_HEADINGS = {
    "ablate": "What does the network lose without these channels?",
    "figure4": "What do the channels that hold position do for the network?",
    "figure6": "Can one side of the image be hurt alone?",
}


def section(runs: Sequence[Run]) -> dict[str, Any]:
    """The context of ``ablation.html``: one group for each network.

    Raises:
        InputError: a record lacks what a record of an ablation has.
    """
    groups = [_group(title, trial) for title, trial in each(runs, read)]
    heading = _HEADINGS[runs[0].record.experiment]
    return {"heading": heading, "halves": HALVES, "groups": groups}


def tables(runs: Sequence[Run]) -> list[tuple[str, dict[str, Any]]]:
    """(title, table) of each network, as :func:`table` makes it.

    Raises:
        InputError: as of :func:`section`.
    """
    return [(title, table(trial)) for title, trial in each(runs, read)]


def findings(runs: Sequence[Run]) -> list[str]:
    """Paragraphs about all networks; with several, each under its title.

    Raises:
        InputError: as of :func:`section`.
    """
    found = each(runs, read)
    paragraphs = []
    for title, trial in found:
        paragraphs += [f"{title}:"] if len(found) > 1 else []
        paragraphs += of_one(trial)
    return paragraphs


def table(trial: Trial) -> dict[str, Any]:
    """A block of rows for nothing and for each count that is told of; columns of regions."""
    blocks = [{"title": "", "rows": [_untouched(trial)]}]
    for number, counted in trial.told.items():
        title = f"{number} of {trial.channels} removed"
        if any(removal == top(counted) for _, removal, _ in trial.paper):
            exact = (number, trial.channels) == (counted, PAPER_CHANNELS)
            title += "" if exact else f"; the paper, {counted} of {PAPER_CHANNELS}"
        rows = [_row(trial, line, number, counted) for line in trial.lines]
        blocks.append({"title": title, "rows": rows})
    return {"regions": trial.regions, "draws": len(trial.draws), "blocks": blocks}


def _untouched(trial: Trial) -> dict[str, Any]:
    def paper(region: str) -> float | None:
        names = (*trial.rankings, RANDOM)
        values = (trial.paper.get((name, top(0), region)) for name in names)
        return next((value for value in values if value is not None), None)

    cells = [
        _cell(value, value, value, value, paper(region)) for region, value in trial.baseline.items()
    ]
    return {"label": "Nothing removed", "note": "", "colour": "ink", "cells": cells}


def _row(trial: Trial, line: str, number: int, counted: int) -> dict[str, Any]:
    style = ranking_of(line)
    note = count(len(trial.draws), "draw") if line == RANDOM else style.note
    cells = [
        _cell(
            *trial.value(line, top(number), region),
            trial.baseline[region],
            trial.paper.get((line, top(counted), region)),
        )
        for region in trial.regions
    ]
    return {"label": style.label, "note": note, "colour": style.colour, "cells": cells}


def _cell(mean: float, low: float, high: float, before: float, paper: float | None) -> dict:
    band = (low, high) if low < high else None
    return {"mean": mean, "band": band, "before": before, "paper": paper}


def _group(title: str, trial: Trial) -> dict[str, Any]:
    styles = {line: ranking_of(line) for line in trial.lines}
    return {
        "title": title,
        "recipe": recipe([trial], _RECIPE),
        "findings": of_one(trial),
        "images": trial.images,
        "ranked_on": {
            ranking_of(name).label: number
            for name, number in trial.ranked_on.items()
            if name in trial.rankings
        },
        "engine": trial.engine,
        "draws": len(trial.draws),
        "channels": trial.channels,
        "paper_channels": PAPER_CHANNELS if has_paper(trial) else None,
        "styles": styles,
        "figures": figures(trial),
        "table": table(trial),
    }
