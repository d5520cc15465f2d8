"""What `gpe rank` found: scores by rank, the first channels, and how far rankings agree."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import floor, log10
from typing import Any, NamedTuple

import numpy as np

from gpe.experiments.removal.config import IMPORTANCE, PAPER_CHANNELS, SIDED
from gpe.experiments.removal.modes import band_of, in_order, mode_of
from gpe.experiments.removal.trials import each
from gpe.records import load_arrays
from gpe.report.blocks import (
    Block,
    Cell,
    Column,
    Finding,
    Heading,
    Note,
    Plot,
    Plots,
    Row,
    Section,
    Table,
)
from gpe.report.grouping import recipe
from gpe.report.plots import BandLine, limits, panel
from gpe.report.runs import Run
from gpe.report.words import count, number, signed
from gpe.statistics import rank_correlation

_RECIPE = ("preset", "size", "batch_size", "precision", "seed")
_SIGNED = tuple(mode for pair in SIDED for mode in pair)
# Of all pairs in the table, those that there is something to say of.
_COMPARED = (
    *(("overall", mode) for mode in ("kernel_flip_mirror", "kernel_flip_pair", *IMPORTANCE)),
    *SIDED,
)
_SHOWN = 10  # channels in the table
_DRAWN = 256  # ranks in a figure; more would not be told apart


class Pair(NamedTuple):
    """Two modes, their rank correlation, and how many of the first channels they share."""

    names: tuple[str, str]
    rho: float
    shared: int


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
        """Modes whose scores mean something; those of a random order do not."""
        return {name: one for name, one in self.modes.items() if not band_of(name)}

    @property
    def head(self) -> int:
        """How many first channels to compare: the share that 100 are of the paper's."""
        return max(1, round(100 / PAPER_CHANNELS * self.channels))


def blocks(runs: Sequence[Run]) -> list[Block]:
    """The report of rankings.

    Raises:
        InputError: a record lacks what a record of a ranking has.
    """
    trials = each(runs, read)
    found: list[Block] = [Heading("Which channels hold position?", level=1)]
    for title, trial in trials:
        for place, text in enumerate(of_one(trial)):
            named = title if len(trials) > 1 and place == 0 else ""
            found.append(Finding(text, named, lead=place == 0))
    found.append(
        Note(
            "Each channel is averaged over all places, of an image and of its mirror. Their "
            "difference, in the units of the layer, says how far the channel tells left from "
            "right: its absolute value, averaged over images (Equation 2), or as it is, over "
            "images with people on one side alone (Equation 3). Kernel-Flip* and Kernel-Flip** "
            "mirror the kernels of the network as well. Magnitude, deviation and Taylor know "
            "nothing of position: they say how much a channel does."
        )
    )
    for title, trial in trials:
        found += _of_network(title, trial)
    about = "Channel and score; the report has the intervals."
    return [*found, Note(about, where="terminal")]


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
            f"{mode_of(name).label}, over {count(ranked.images, 'image')}: channel {channel} of "
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
        if pair.names in _COMPARED:
            one, other = (mode_of(name).label for name in pair.names)
            found.append(
                f"{one} and {other}: Spearman correlation {signed(pair.rho, 2)}, "
                f"{pair.shared} of the first {count(trial.head, 'channel')} in both "
                f"({_expected(trial):.1f} by chance)."
            )
    return found


def _of_network(title: str, trial: Trial) -> list[Block]:
    plots = _plots(trial)
    drawn = min(trial.channels, _DRAWN)
    bands = "Bands are 95 % intervals over images, each channel's own"
    more = f"; {drawn} of {trial.channels} ranks are drawn" if drawn < trial.channels else ""
    found: list[Block] = [
        Heading(title),
        Note(f"{recipe([trial], _RECIPE)}. {trial.images} images."),
    ]
    if plots:
        found += [Heading("Scores by rank", level=3), Plots(plots), Note(f"{bands}{more}.")]
    found += [
        Heading("The first channels", level=3),
        _top_table(title, trial),
        Note(
            "Bold: the channel. Then its score and the 95 % interval over images. The first "
            "channels were picked for their scores, which makes these a little too high."
        ),
    ]
    pairs = {pair.names: pair for pair in _pairs(trial)}
    return found + (_agreement(trial, pairs) if pairs else [])


def _top_table(title: str, trial: Trial) -> Table:
    """The first channels of each mode, a row for each rank."""
    columns = [
        Column(mode_of(name).label, aside=count(ranked.images, "image"))
        for name, ranked in trial.scored.items()
    ]
    rows = [
        Row(str(rank + 1), [_top_cell(ranked, rank) for ranked in trial.scored.values()])
        for rank in range(min(_SHOWN, trial.channels))
    ]
    return Table("rank", columns, [Section(rows)], style="plain", title=title)


def _top_cell(ranked: Ranked, rank: int) -> Cell | None:
    if rank >= min(_SHOWN, len(ranked.top)):
        return None
    shown, (channel, score) = _format(ranked), ranked.top[rank]
    ends = " to ".join(map(shown, ranked.ends[rank])) if ranked.ends else ""
    return Cell(str(channel), shown(score), aside=(ends,) if ends else ())


def _agreement(trial: Trial, pairs: dict[tuple[str, str], Pair]) -> list[Block]:
    """Spearman correlation and shared first channels of any two modes."""
    names = list(trial.modes)
    rows = []
    for one in names[:-1]:
        cells = []
        for other in names[1:]:
            pair = pairs.get((one, other))
            cells.append(
                pair
                and Cell(
                    f"{pair.rho:.2f}".replace("-", "−"),
                    lines=(f"{pair.shared}",),
                    tint=max(pair.rho, 0.0),
                )
            )
        rows.append(Row(mode_of(one).label, cells))
    columns = [Column(mode_of(name).label) for name in names[1:]]
    return [
        Heading("How far the rankings agree", level=3),
        Table("", columns, [Section(rows)], style="map"),
        Note(
            "Spearman's rank correlation of the scores, and how many of the first "
            f"{trial.head} channels two rankings share; unrelated ones share "
            f"{number(_expected(trial))} on average.",
            where="both",
        ),
    ]


def _pairs(trial: Trial) -> list[Pair]:
    found = []
    for one, other in combinations(trial.modes, 2):
        first, second = trial.modes[one], trial.modes[other]
        if first.scores is None or second.scores is None:
            continue
        if first.order is None or second.order is None:
            continue
        heads = [set(order[: trial.head].tolist()) for order in (first.order, second.order)]
        rho = float(rank_correlation(first.scores, second.scores))
        found.append(Pair((one, other), rho, len(heads[0] & heads[1])))
    return found


def _expected(trial: Trial) -> float:
    """How many of the first channels two unrelated orders share."""
    return trial.head**2 / trial.channels


def _format(ranked: Ranked) -> Callable[[float], str]:
    """Writes the scores of a ranking with so many decimals that the highest has three digits."""
    highest = abs(ranked.top[0][1]) or 1.0
    decimals = max(0, 2 - floor(log10(highest)))
    return lambda value: f"{value:.{decimals}f}".replace("-", "−")


def _plots(trial: Trial) -> list[Plot]:
    ranks = np.unique(np.linspace(0, trial.channels - 1, _DRAWN).round().astype(int))
    lines = {}
    for name, ranked in trial.scored.items():
        if ranked.scores is None or ranked.order is None:
            continue
        ends = ranked.scores[None].repeat(2, 0) if ranked.interval is None else ranked.interval
        by_rank = np.stack([ranked.scores, *ends])[:, ranked.order[ranks]].T.tolist()
        points = {float(rank) + 1: tuple(of) for rank, of in zip(ranks, by_rank, strict=True)}
        lines[name] = BandLine(points=points, paper={}, colour=mode_of(name).colour, dashes="")
    return [
        Plot(
            panel([line], label="rank", limits=_limits(lines, name), level=0.0, size=(3.2, 2.3)),
            mode_of(name).label,
            count(trial.modes[name].images, "image"),
        )
        for name, line in lines.items()
    ]


def _limits(lines: dict[str, BandLine], name: str) -> tuple[float, float]:
    """Shared by those modes that have a sign, and by those that have none."""
    alike = [line for other, line in lines.items() if (other in _SIGNED) == (name in _SIGNED)]
    return limits(alike, 0.0)
