"""What `gpe rank` found: scores by rank, the first channels, and how far rankings agree."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import floor, log10
from typing import Any

import numpy as np

from gpe.records import load_arrays
from gpe.report.ablation_trials import PAPER_CHANNELS
from gpe.report.figures import BandLine, limits, panel
from gpe.report.given_networks import each
from gpe.report.grouping import recipe
from gpe.report.rankings import in_order, is_random, ranking_of
from gpe.report.runs import Run
from gpe.report.words import count, signed
from gpe.statistics import rank_correlation

_RECIPE = ("preset", "size", "batch_size", "precision", "seed")
_SIGNED = ("left", "right")
# Of all pairs in the table, those that there is something to say of.
_COMPARED = (("overall", "kernel_flip_mirror"), ("overall", "kernel_flip_pair"), _SIGNED)
_SHOWN = 10  # channels in the table
_DRAWN = 256  # ranks in a figure; more would not be told apart


@dataclass(frozen=True)
class Ranked:
    """The channels by one mode.

    Attributes:
        images: that it was ranked on.
        top: the first channels, each with its score.
        ends: both ends of the intervals of these scores; None where it has no intervals.
        order: int64 ``[C]``, the channels, first ones first; None without arrays.
        scores: float64 ``[C]``, by channel; None without arrays.
        interval: float64 ``[2,C]``; None without arrays or where it has no intervals.
    """

    images: int
    top: list[tuple[int, float]]
    ends: list[tuple[float, float]] | None
    order: np.ndarray | None
    scores: np.ndarray | None
    interval: np.ndarray | None


@dataclass(frozen=True)
class Trial:
    """The channels of one layer of one network, ranked by one mode or several."""

    config: dict[str, Any]
    channels: int
    images: int
    modes: dict[str, Ranked]

    @property
    def scored(self) -> dict[str, Ranked]:
        """Modes whose scores mean something; a random order has none."""
        return {name: one for name, one in self.modes.items() if not is_random(name)}

    @property
    def head(self) -> int:
        """How many first channels to compare: the share that 100 are of the paper's."""
        return max(1, round(100 / PAPER_CHANNELS * self.channels))


def section(runs: Sequence[Run]) -> dict[str, Any]:
    """The context of ``rank.html``: one group for each network.

    Raises:
        InputError: a record lacks what a record of a ranking has.
    """
    return {"groups": [_group(title, trial) for title, trial in each(runs, read)]}


def findings(runs: Sequence[Run]) -> list[str]:
    """Sentences about each network; with several, each under its title.

    Raises:
        InputError: as of :func:`section`.
    """
    found = each(runs, read)
    sentences = []
    for title, trial in found:
        sentences += [f"{title}:"] if len(found) > 1 else []
        sentences += of_one(trial)
    return sentences


def read(run: Run) -> Trial:
    """The trial in ``run``.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: its record is no such record.
        InputError: its arrays are damaged.
    """
    result = run.record.result
    arrays = {name: array.numpy() for name, array in load_arrays(run.directory).items()}
    channels = int(result["channels"])
    modes = {
        name: _ranked(name, result["rankings"][name], arrays, channels)
        for name in in_order(set(result["rankings"]))
    }
    if not modes:
        raise ValueError("no rankings")
    return Trial(run.record.config, channels, int(result["images"]), modes)


def _ranked(
    name: str, shown: dict[str, Any], arrays: dict[str, np.ndarray], channels: int
) -> Ranked:
    first = [int(channel) for channel in shown["top"]]
    if not first or not all(0 <= channel < channels for channel in first):
        raise ValueError(f"{name}: expected first channels below {channels}, got {first}")
    ends = None
    if "low" in shown:
        low, high = ([float(value) for value in shown[end]] for end in ("low", "high"))
        ends = list(zip(low, high, strict=True))
    scores = [float(score) for score in shown["scores"]]
    order, by_channel, interval = (None,) * 3
    if arrays:
        order, by_channel = arrays[f"order.{name}"], arrays[f"scores.{name}"]
        if by_channel.shape != (channels,) or not np.isfinite(by_channel).all():
            raise ValueError(f"scores.{name}: expected {channels} finite numbers")
        if not np.array_equal(np.sort(order), np.arange(channels)):
            raise ValueError(f"order.{name}: expected each of {channels} channels once")
        if f"low.{name}" in arrays:
            interval = np.stack([arrays[f"{end}.{name}"] for end in ("low", "high")])
            if interval.shape != (2, channels) or not np.isfinite(interval).all():
                raise ValueError(f"low.{name}, high.{name}: expected {channels} finite numbers")
    top = list(zip(first, scores, strict=True))
    return Ranked(int(shown["images"]), top, ends, order, by_channel, interval)


def of_one(trial: Trial) -> list[str]:
    """Sentences about one network."""
    found = []
    for name, ranked in trial.scored.items():
        shown, (channel, score) = _format(ranked), ranked.top[0]
        text = (
            f"{ranking_of(name).label}, over {count(ranked.images, 'image')}: channel {channel} of "
            f"{trial.channels} comes first, {shown(score)}"
        )
        if ranked.ends:
            low, high = map(shown, ranked.ends[0])
            text += f" (95\u00a0% interval {low} to {high})"
        if name in _SIGNED and ranked.interval is not None:
            sure = int((ranked.interval[0] > 0).sum())
            text += (
                f"; of {sure} channels the interval lies above zero, where chance would put it "
                f"for about {0.025 * trial.channels:.0f}"
            )
        if name not in _SIGNED and ranked.scores is not None and np.median(ranked.scores) > 0:
            times = score / float(np.median(ranked.scores))
            text += f", {times:.1f} times the median channel"
        found.append(f"{text}.")
    for pair in _pairs(trial):
        if pair["names"] in _COMPARED:
            one, other = (ranking_of(name).label for name in pair["names"])
            found.append(
                f"{one} and {other}: Spearman correlation {signed(pair['rho'], 2)}, "
                f"{pair['shared']} of the first {trial.head} channels in both "
                f"({_expected(trial):.1f} by chance)."
            )
    return found


def table(trial: Trial) -> dict[str, Any]:
    """The first channels of each mode, a row for each rank."""
    names = list(trial.scored)
    return {
        "heads": [
            (ranking_of(n).label, trial.modes[n].images, ranking_of(n).colour) for n in names
        ],
        "rows": [
            [_top_cell(ranked, rank) for ranked in trial.scored.values()]
            for rank in range(min(_SHOWN, trial.channels))
        ],
    }


def agreement(trial: Trial) -> dict[str, Any] | None:
    """Spearman correlation and shared first channels of any two modes; None without arrays."""
    pairs = {pair["names"]: pair for pair in _pairs(trial)}
    if not pairs:
        return None
    names = list(trial.modes)
    return {
        "head": trial.head,
        "chance": _expected(trial),
        "columns": [ranking_of(name).label for name in names[1:]],
        "rows": [
            (ranking_of(one).label, [pairs.get((one, other)) for other in names[1:]])
            for one in names[:-1]
        ],
    }


def _pairs(trial: Trial) -> list[dict[str, Any]]:
    known = [name for name, ranked in trial.modes.items() if ranked.scores is not None]
    found = []
    for names in combinations(known, 2):
        one, other = (trial.modes[name] for name in names)
        heads = [set(ranked.order[: trial.head].tolist()) for ranked in (one, other)]
        rho = float(rank_correlation(one.scores, other.scores))
        found.append({"names": names, "rho": rho, "shared": len(heads[0] & heads[1])})
    return found


def _expected(trial: Trial) -> float:
    """How many of the first channels two unrelated orders share."""
    return trial.head**2 / trial.channels


def _top_cell(ranked: Ranked, rank: int) -> dict[str, Any] | None:
    if rank >= min(_SHOWN, len(ranked.top)):
        return None
    shown, (channel, score) = _format(ranked), ranked.top[rank]
    ends = list(map(shown, ranked.ends[rank])) if ranked.ends else None
    return {"channel": channel, "score": shown(score), "ends": ends}


def _format(ranked: Ranked) -> Callable[[float], str]:
    """Writes the scores of a ranking with so many decimals that the highest has three digits."""
    highest = abs(ranked.top[0][1]) or 1.0
    decimals = max(0, 2 - floor(log10(highest)))
    return lambda value: f"{value:.{decimals}f}".replace("-", "−")


def _group(title: str, trial: Trial) -> dict[str, Any]:
    return {
        "title": title,
        "recipe": recipe([trial], _RECIPE),
        "images": trial.images,
        "findings": of_one(trial),
        "figures": _figures(trial),
        "drawn": min(trial.channels, _DRAWN),
        "channels": trial.channels,
        "table": table(trial),
        "agreement": agreement(trial),
    }


def _figures(trial: Trial) -> list[dict[str, Any]]:
    ranks = np.unique(np.linspace(0, trial.channels - 1, _DRAWN).round().astype(int))
    lines = {}
    for name, ranked in trial.scored.items():
        if ranked.scores is None:
            continue
        ends = ranked.scores[None].repeat(2, 0) if ranked.interval is None else ranked.interval
        by_rank = np.stack([ranked.scores, *ends])[:, ranked.order[ranks]].T.tolist()
        points = {int(rank) + 1: tuple(values) for rank, values in zip(ranks, by_rank, strict=True)}
        style = ranking_of(name)
        lines[name] = BandLine(points=points, paper={}, colour=style.colour, dashes="")
    return [
        {
            "label": ranking_of(name).label,
            "images": trial.modes[name].images,
            "figure": panel(
                [line], label="rank", limits=_limits(lines, name), level=0.0, size=(3.2, 2.3)
            ),
        }
        for name, line in lines.items()
    ]


def _limits(lines: dict[str, BandLine], name: str) -> tuple[float, float]:
    """Shared by those modes that have a sign, and by those that have none."""
    alike = [line for other, line in lines.items() if (other in _SIGNED) == (name in _SIGNED)]
    return limits(alike, 0.0)
