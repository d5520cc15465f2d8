"""Records of `gpe ablate`, `figure4` and `figure6` as the report reads them, checked once."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple, TypeVar

from gpe.experiments.removal.config import (
    GRID,
    MATCHED,
    PAPER_CHANNELS,
    PAPER_COUNTS,
    RANDOM,
    REGIONS,
)
from gpe.experiments.removal.modes import band_of, in_order
from gpe.report.grouping import told_apart
from gpe.report.runs import Run

_TITLE = ("data", "split", "network", "layer")
# By what to tell apart those that agree in that, before any other option.
_FIRST = ("preset", "checkpoint", "size", "seed")

Found = TypeVar("Found")


class Removal(NamedTuple):
    """Channels ``start`` to ``stop`` of an order; ``kind`` is ``"top"`` or ``"range"``."""

    kind: str
    start: int
    stop: int


class Value(NamedTuple):
    """An mIoU in percent; of random orders the mean, the lowest and the highest draw."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Grid:
    """What each region of a grid loses without the channels that are active in each.

    Attributes:
        count: of channels removed.
        lost: points of mIoU by the region whose channels are removed, or a draw, and by region;
            None where a region has no labels.
        draws: the random orders.
    """

    count: int
    lost: dict[str, dict[str, float | None]]
    draws: list[str]

    def beyond(self, order: str, region: str) -> float | None:
        """Points lost beyond the mean of the draws."""
        values = [self.lost[draw][region] for draw in self.draws]
        value = self.lost[order][region]
        known = [each for each in values if each is not None]
        return None if value is None else value - (fmean(known) if known else 0.0)


@dataclass(frozen=True, kw_only=True)
class Losses:
    """What one network of any task loses without some of its channels.

    Attributes:
        channels: of the layer.
        images: that were scored.
        baseline: the score in percent by region, nothing removed.
        empty: regions without a labelled pixel, which have no score.
        rankings: in the order of the paper's figures, random orders not among them.
        draws: names of the random orders.
        matched: names of the random orders that deviate as Equation 2's does.
        shared: by count, how many of its first channels these share with Equation 2, on average.
        counts: how many of the first channels were removed, rising.
        ranges: what else was removed, from the first channels to the last.
        scores: by ranking or draw and by what was removed; in percent by region.
        paper: the paper's score, by ranking, removal and region; of its own channels.
    """

    config: dict[str, Any]
    channels: int
    images: int
    baseline: dict[str, float]
    empty: list[str]
    rankings: list[str]
    draws: list[str]
    matched: list[str]
    shared: dict[int, float]
    counts: list[int]
    ranges: list[Removal]
    scores: dict[tuple[str, Removal], dict[str, float]]
    paper: dict[tuple[str, Removal, str], float]

    @property
    def regions(self) -> list[str]:
        return list(self.baseline)

    @property
    def bands(self) -> dict[str, list[str]]:
        """The orders that are drawn and told of as one, by what they are called."""
        bands = {MATCHED: self.matched, RANDOM: self.draws}
        return {name: orders for name, orders in bands.items() if orders}

    @property
    def lines(self) -> list[str]:
        """What a figure or table shows: every ranking, and orders of a kind as one."""
        return [*self.rankings, *self.bands]

    def orders(self, line: str) -> list[str]:
        """Those that one of ``lines`` stands for."""
        return self.bands.get(line, [line])

    def value(self, line: str, removal: Removal, region: str) -> Value:
        """Of one of ``lines``."""
        values = [self.scores[order, removal][region] for order in self.orders(line)]
        return Value(fmean(values), min(values), max(values))

    @property
    def partial_counts(self) -> list[int]:
        """Where some channels are removed, not none and not all."""
        return [count for count in self.counts if 0 < count < self.channels]

    @property
    def told(self) -> dict[int, int]:
        """The counts to tell of, as near to the paper's shares as was measured; the paper's."""
        found: dict[int, int] = {}
        counts = self.partial_counts
        for paper in PAPER_COUNTS if counts else ():
            share = paper / PAPER_CHANNELS * self.channels
            found.setdefault(min(counts, key=lambda count: abs(count - share)), paper)
        return found


@dataclass(frozen=True, kw_only=True)
class Trial(Losses):
    """What a segmentation network loses: mIoU.

    Attributes:
        engine: which ran, and how near it came to plainly zeroing channels.
        grid: regions of a grid against each other; None where that was not asked for.
        ranked_on: how many images each ranking is of.
    """

    experiment: str
    engine: str
    grid: Grid | None
    ranked_on: dict[str, int]


def each(runs: Sequence[Run], read: Callable[[Run], Found]) -> list[tuple[str, Found]]:
    """What ``read`` makes of each of ``runs``, under a title that tells it from the others.

    Raises:
        InputError: a record lacks what ``read`` looks for.
    """
    configs = [run.record.config for run in runs]
    names = [", ".join(str(config[o]) for o in _TITLE if o in config) for config in configs]
    titles = told_apart(names, configs, _FIRST)
    return [(title, run.read(read)) for title, run in zip(titles, runs, strict=True)]


def top(count: int) -> Removal:
    return Removal("top", 0, count)


def band(value: Value, draws: int) -> str:
    """What a sentence says of random draws beside their mean."""
    return "one draw" if draws == 1 else f"{value.low:.1f} to {value.high:.1f}, {draws} draws"


def read(run: Run) -> Trial:
    """The trial in ``run``.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: its record is no such record.
    """
    result = run.record.result
    rows = _rows(result["curves"]) if "curves" in result else result["rows"]
    return Trial(
        **losses(run, rows, result.get("baseline")),
        experiment=run.record.experiment,
        engine=_engine(result),
        grid=_grid(result["grid"]) if "grid" in result else None,
        ranked_on={str(name): int(one["images"]) for name, one in result["rankings"].items()},
    )


def losses(
    run: Run, rows: Iterable[dict[str, Any]], baseline: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The fields of :class:`Losses`, checked; each row has its region and its ``miou``."""
    result, channels = run.record.result, int(run.record.result["channels"])
    scores = _scores(rows, channels)
    names = {name for name, _ in scores}
    removals = {removal for _, removal in scores}
    before = _baseline(baseline, scores)
    empty = {r for of in (before, *scores.values()) for r, value in of.items() if value is None}
    whole = _without(before, empty)
    known = {key: _without(regions, empty) for key, regions in scores.items()}
    for name in names:
        for removal in removals:
            if known[name, removal].keys() != whole.keys():
                raise ValueError(f"{name}, {removal}: regions are not those of the baseline")
    return {
        "config": run.record.config,
        "channels": channels,
        "images": int(result["images"]),
        "baseline": whole,
        "empty": [region for region in REGIONS if region in empty],
        "rankings": in_order({name for name in names if not band_of(name)}),
        "draws": sorted(name for name in names if band_of(name) == RANDOM),
        "matched": sorted(name for name in names if band_of(name) == MATCHED),
        "shared": {int(count): float(n) for count, n in result.get("shared", {}).items()},
        "counts": sorted(removal.stop for removal in removals if removal.kind == "top"),
        "ranges": sorted(removal for removal in removals if removal.kind == "range"),
        "scores": known,
        "paper": _paper(run.record.paper),
    }


Scores = dict[str, float | None]  # by region


def _without(scores: Scores, empty: set[str]) -> dict[str, float]:
    return {r: value for r, value in scores.items() if value is not None and r not in empty}


def _scores(rows: Iterable[dict[str, Any]], channels: int) -> dict[tuple[str, Removal], Scores]:
    found: dict[tuple[str, Removal], Scores] = defaultdict(dict)
    for row in rows:
        removal = removal_of(row)
        if removal.stop > channels:
            raise ValueError(f"{removal}: the layer has {channels} channels")
        regions = found[str(row["ranking"]), removal]
        if row["region"] in regions:
            raise ValueError(f"twice: {row['ranking']}, {removal}, {row['region']}")
        regions[str(row["region"])] = percentage(row["miou"])
    if not found:
        raise ValueError("no rows")
    return found


def _rows(curves: dict[str, dict[str, float]]) -> Iterator[dict[str, Any]]:
    """Rows as the records in ``results/`` pack them: ``{"overall top full": {"0-6": 84.5}}``."""
    for name, points in curves.items():
        ranking, removal, region = name.rsplit(" ", 2)
        for span, miou in points.items():
            start, stop = map(int, span.split("-"))
            yield {"ranking": ranking, "removal": removal, "start": start, "stop": stop} | {
                "region": region,
                "miou": miou,
            }


def _baseline(given: dict[str, Any] | None, miou: dict[tuple[str, Removal], Scores]) -> Scores:
    """Nothing removed: said so, or the first of no channels."""
    if given:
        return {str(name): percentage(value) for name, value in given.items()}
    for (_, removal), regions in miou.items():
        if removal == top(0):
            return regions
    raise ValueError("expected a baseline, or rows with nothing removed")


def _grid(result: dict[str, Any]) -> Grid:
    count, miou = int(result["count"]), {}
    for row in result["rows"]:
        key = str(row["ranking"]), int(row["stop"]), str(row["region"])
        miou[key] = percentage(row["miou"])
    orders = list(dict.fromkeys(name for name, *_ in miou))
    lost: dict[str, dict[str, float | None]] = {order: {} for order in orders}
    for order in orders:
        for region in GRID:
            before, after = miou[order, 0, region], miou[order, count, region]
            lost[order][region] = None if before is None or after is None else before - after
    return Grid(count, lost, sorted(order for order in orders if band_of(order) == RANDOM))


def _engine(result: dict[str, Any]) -> str:
    accuracy = f"tolerance {result['tolerance']}"
    if "measured" in result:
        accuracy = f"logits within {result['measured']:.1g} of plainly zeroing channels, {accuracy}"
    why = f"; {result['why']}" if result.get("why") else ""
    return f"{result['engine']} ({accuracy}{why})"


def removal_of(row: dict[str, Any]) -> Removal:
    """What was removed for a row of a record; a ValueError if that cannot be."""
    removal = Removal(str(row["removal"]), int(row["start"]), int(row["stop"]))
    known = {"top": removal.start == 0, "range": removal.start >= 0}
    if not known.get(removal.kind) or removal.start > removal.stop:
        raise ValueError(f"no removal: {removal}")
    return removal


def _paper(paper: dict[str, Any] | None) -> dict[tuple[str, Removal, str], float]:
    return {
        (str(row["ranking"]), removal_of(row), str(row["region"])): float(row["miou"])
        for row in (paper["rows"] if paper else ())
    }


def percentage(value: Any) -> float | None:
    """A score of a record, None where there is none; a ValueError if it is no score."""
    if value is None:
        return None
    value = float(value)
    if not 0 <= value <= 100:  # NaN is not
        raise ValueError(f"expected a score in percent, got {value}")
    return value
