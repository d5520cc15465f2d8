"""What `gpe rank` found: scores by rank, the first channels, and how far rankings agree."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import floor, log10
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from gpe.records import load_arrays
from gpe.report.ablation_trials import PAPER_CHANNELS
from gpe.report.figures import BandLine, limits, panel
from gpe.report.given_networks import each
from gpe.report.grouping import recipe
from gpe.report.rankings import RANDOM, in_order, ranking_of
from gpe.report.runs import Run
from gpe.report.words import count, signed

_RECIPE = ("preset", "checkpoint", "size", "batch_size", "precision", "seed")
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
        top: the first channels, and of each its score with both ends of its interval.
        scores: float64 ``[3,C]``, by channel: score and both ends; None without arrays.
    """

    images: int
    top: list[tuple[int, float, float, float]]
    scores: np.ndarray | None

    @property
    def order(self) -> np.ndarray:
        """Channels, highest score first, ties as they come."""
        return np.argsort(-self.scores[0], kind="stable")


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
        return {name: one for name, one in self.modes.items() if name != RANDOM}

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
    result, arrays = run.record.result, load_arrays(run.directory)
    channels = int(result["channels"])
    modes = {}
    for name in in_order(set(result["rankings"])):
        one = result["rankings"][name]
        scores = None
        if arrays:
            ends = [arrays[f"{end}.{name}"].numpy() for end in ("scores", "low", "high")]
            scores = np.stack(ends).astype(np.float64)
            if scores.shape != (3, channels) or not np.isfinite(scores[0]).all():
                raise ValueError(f"scores.{name}: expected {channels} finite numbers")
        columns = ([int(c) for c in one["top"]], *(one[end] for end in ("scores", "low", "high")))
        top = [(c, *map(float, numbers)) for c, *numbers in zip(*columns, strict=True)]
        if not top or not all(0 <= channel < channels for channel, *_ in top):
            raise ValueError(f"{name}: expected first channels below {channels}, got {columns[0]}")
        modes[name] = Ranked(images=int(one["images"]), top=top, scores=scores)
    if not modes:
        raise ValueError("no rankings")
    return Trial(run.record.config, channels, int(result["images"]), modes)


def of_one(trial: Trial) -> list[str]:
    """Sentences about one network."""
    found = []
    for name, ranked in trial.scored.items():
        channel, score, low, high = ranked.top[0]
        shown = _format(ranked)
        text = (
            f"{ranking_of(name).label}, over {count(ranked.images, 'image')}: channel {channel} of "
            f"{trial.channels} comes first, {shown(score)} (95\u00a0% interval {shown(low)} to "
            f"{shown(high)})"
        )
        if ranked.scores is None:
            found.append(f"{text}.")
        elif name in _SIGNED:
            sure = int((ranked.scores[1] > 0).sum())
            found.append(
                f"{text}; of {sure} channels the interval lies above zero, where chance would "
                f"put it for about {0.025 * trial.channels:.0f}."
            )
        else:
            times = score / float(np.median(ranked.scores[0]))
            found.append(f"{text}, {times:.1f} times the median channel.")
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
        rho = float(spearmanr(one.scores[0], other.scores[0])[0])
        found.append({"names": names, "rho": rho, "shared": len(heads[0] & heads[1])})
    return found


def _expected(trial: Trial) -> float:
    """How many of the first channels two unrelated orders share."""
    return trial.head**2 / trial.channels


def _top_cell(ranked: Ranked, rank: int) -> dict[str, Any] | None:
    if rank >= min(_SHOWN, len(ranked.top)):
        return None
    channel, *numbers = ranked.top[rank]
    score, low, high = map(_format(ranked), numbers)
    return {"channel": channel, "score": score, "low": low, "high": high}


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
        by_rank = ranked.scores[:, ranked.order[ranks]].T.tolist()
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
