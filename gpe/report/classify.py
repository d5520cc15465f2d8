"""What classifiers lose without some of their channels: `gpe ablate --task classify`."""

from collections.abc import Sequence
from typing import Any

from gpe.report.ablation_trials import band, top
from gpe.report.classify_trials import Excess, Trial, groups
from gpe.report.figures import DASHES, BandLine, limits, panel
from gpe.report.grouping import recipe
from gpe.report.rankings import RANDOM, ranking_of
from gpe.report.runs import Run
from gpe.report.words import count, listing, signed
from gpe.statistics import Estimate, difference_of

_RECIPE = ("image_size", "precision", "random_seeds", "seed")
# Of networks of these methods, which gpe augshift begins their names with; of others in turn.
_COLOURS = ("baseline", "augshift", "wide-crops", "blurpool-augshift", "blurpool")


def section(runs: Sequence[Run]) -> dict[str, Any]:
    """The context of ``classify.html``: one group for each set of images.

    Raises:
        InputError: a record lacks what a record of this experiment has.
    """
    return {"groups": [_group(trials) for trials in groups(runs)]}


def tables(runs: Sequence[Run]) -> list[tuple[str, dict[str, Any]]]:
    """(title, table) of each set of images, as :func:`table` makes it."""
    return [(_title(trials), table(trials)) for trials in groups(runs)]


def findings(runs: Sequence[Run]) -> list[str]:
    """Paragraphs about all networks, then what sets them apart."""
    return [sentence for trials in groups(runs) for sentence in _findings(trials)]


def table(trials: Sequence[Trial]) -> dict[str, Any]:
    """A row for each network and ranking; columns by how much was removed.

    A cell has ``number`` (of channels), ``value`` (top-1), ``random`` (with its band) and
    ``excess``, the last two None where there are no random orders.
    """
    columns = sorted({paper for trial in trials for paper in trial.told})
    rows = []
    for trial in trials:
        for name in trial.rankings or [RANDOM]:
            cells = [_cell(trial, name, trial.told.get(paper)) for paper in columns]
            row = {"label": trial.label, "ranking": ranking_of(name), "baseline": trial.baseline}
            rows.append(row | {"channels": trial.channels, "cells": cells})
    shares = [f"{100 * paper / 2048:.0f} %" for paper in columns]
    return {"columns": shares, "rows": rows, "chance": trials[0].chance}


def _cell(trial: Trial, name: str, number: int | None) -> dict[str, Any] | None:
    if number is None:
        return None
    random = trial.value(RANDOM, top(number)) if trial.draws else None
    value = trial.value(name, top(number)).mean
    excess = trial.excess.get((name, number))
    return {"number": number, "value": value, "random": random, "excess": excess}


def _group(trials: Sequence[Trial]) -> dict[str, Any]:
    return {
        "title": _title(trials),
        "recipe": recipe(trials, _RECIPE),
        "findings": _findings(trials),
        "styles": {line: ranking_of(line) for trial in trials for line in trial.lines},
        "draws": len(trials[0].draws),
        "rows": [row for kind in ("top", "range") if (row := _row(trials, kind))],
        "excess": _excess_figure(trials),
        "table": table(trials),
    }


def _title(trials: Sequence[Trial]) -> str:
    return f"{trials[0].data}, {count(trials[0].images, 'image')}"


def _row(trials: Sequence[Trial], kind: str) -> dict[str, Any] | None:
    """A panel for each network, on one scale."""
    drawn = [(trial, _lines(trial, kind)) for trial in trials if _removals(trial, kind)]
    if not drawn:
        return None
    shared = limits(
        [line for _, lines in drawn for line in lines], *(trial.baseline for trial, _ in drawn)
    )
    label = "N, channels removed" if kind == "top" else "ranks of the channels removed"
    options = {"label": label, "limits": shared, "size": (4.6, 2.9)}
    return {
        "title": "The first N channels" if kind == "top" else "One range at a time",
        "panels": [
            {"title": trial.label, "figure": panel(lines, level=trial.baseline, **options)}
            for trial, lines in drawn
        ],
    }


def _removals(trial: Trial, kind: str) -> list:
    return trial.ranges if kind == "range" else [top(number) for number in trial.counts[1:]]


def _lines(trial: Trial, kind: str) -> list[BandLine]:
    """Random orders first: they lie below the others."""
    found = []
    for name in reversed(trial.lines):
        style, points = ranking_of(name), {}
        if kind == "top":
            points[0] = (trial.baseline,) * 3
        for removal in _removals(trial, kind):
            place = removal.stop if kind == "top" else (removal.start + removal.stop) / 2
            points[place] = trial.value(name, removal)
        found.append(BandLine(points, {}, style.colour, style.dashes))
    return found


def _excess_figure(trials: Sequence[Trial]) -> dict[str, Any] | None:
    """By how much more than random channels those of the first ranking cost, all networks."""
    lines, keys = [], []
    for number, trial in enumerate(trials):
        name = next(iter(trial.rankings), None)
        points = {
            100 * stop / trial.channels: tuple(excess)
            for (ranking, stop), excess in sorted(trial.excess.items(), key=lambda item: item[0][1])
            if ranking == name
        }
        if points:
            colour = _colour(trial, number)
            before = sum(key["colour"] == colour for key in keys)
            dashes = DASHES[before % len(DASHES)]
            lines.append(BandLine({0: (0.0,) * 3} | points, {}, colour, dashes))
            keys.append({"label": trial.label, "colour": colour, "dashes": dashes})
    if not lines:
        return None
    options = {"label": "channels removed, %", "limits": limits(lines, 0.0), "level": 0.0}
    return {"keys": keys, "figure": panel(lines, size=(5.2, 3), **options)}


def _colour(trial: Trial, number: int) -> str:
    own = [name for name in _COLOURS if trial.label.startswith(f"{name}-")]
    return max(own, key=len, default=_COLOURS[number % len(_COLOURS)])


def _findings(trials: Sequence[Trial]) -> list[str]:
    found = [sentence for trial in trials for sentence in _of_one(trial)]
    return [*found, *_side_by_side(trials)]


def _of_one(trial: Trial) -> list[str]:
    found = []
    for name in trial.rankings:
        for number in list(trial.told.values())[-1:]:
            value = trial.value(name, top(number)).mean
            text = (
                f"{trial.label}: without its {number} most {ranking_of(name).kind} channels of "
                f"{trial.channels} ({ranking_of(name).label}) top-1 goes from {trial.baseline:.1f} "
                f"to {value:.1f}"
            )
            if trial.draws:
                random = trial.value(RANDOM, top(number))
                text += (
                    f"; without {number} random ones to {random.mean:.1f} "
                    f"({band(random, len(trial.draws))}). {_verdict(trial, name, number)}"
                )
            else:
                text += ". No random orders were tried, so this says nothing of the ranking."
            found.append(text)
    return found


def _verdict(trial: Trial, name: str, number: int) -> str:
    """Beside the draws, and over images: both must tell them apart."""
    value, random = trial.value(name, top(number)).mean, trial.value(RANDOM, top(number))
    points, low, high = trial.excess[name, number]
    interval = f"95 % interval over images {signed(low)} to {signed(high)}"
    if low <= 0 <= high or random.low <= value <= random.high:
        beyond = f"{signed(points)} points beyond random"
        return f"That is not told apart from random ({beyond}, {interval})."
    more = "more" if points > 0 else "less"
    return f"They cost {abs(points):.1f} points {more} than random ones ({interval})."


def _side_by_side(trials: Sequence[Trial]) -> list[str]:
    """Whether one network hangs on these channels more than another."""
    found = []
    for trial in trials:
        name, number = next(iter(trial.rankings), None), next(reversed(trial.told.values()), None)
        if (name, number) in trial.excess:
            found.append((trial, name, number))
    if len(found) < 2 or len({name for _, name, _ in found}) > 1:
        return []
    costs = [(trial.label, trial.excess[name, number]) for trial, name, number in found]
    parts = [
        f"{signed(trial.excess[name, number].points)} in {trial.label} ({number} channels)"
        for trial, name, number in found
    ]
    text = (
        f"Side by side, points that the first channels of {ranking_of(found[0][1]).label} cost "
        f"beyond random ones: {listing(parts)}."
    )
    first, *others = costs
    verdicts = " ".join(_apart(first, other) for other in others)
    return [f"{text} {verdicts} One training of each: this is of these networks alone."]


def _apart(one: tuple[str, Excess], other: tuple[str, Excess]) -> str:
    """The interval of a difference of two estimates, as of independent ones."""
    (first, a), (second, b) = one, other
    points = a.points - b.points
    low, high = difference_of(Estimate(*a), Estimate(*b)).ends or (points, points)
    interval = f"{signed(low)} to {signed(high)}"
    if low <= 0 <= high:
        return f"{first} and {second} are not told apart (by {signed(points)} points, {interval})."
    more, less = (first, second) if points > 0 else (second, first)
    return f"{more} hangs on them more than {less}, by {abs(points):.1f} points ({interval})."
