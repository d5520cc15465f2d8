"""Figures 4, 6, S3 and S4: mIoU without the first channels, without a range, and what it costs."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from gpe.experiments.removal.config import CONTROLS, GRID, MATCHED, PAPER_CHANNELS, RANDOM, SIDED
from gpe.experiments.removal.modes import mode_of
from gpe.experiments.removal.sides import SIDES, about_sides, pairs_of, specificity
from gpe.experiments.removal.trials import Grid, Losses, Removal, Trial, Value, top
from gpe.report.blocks import (
    Block,
    Cell,
    Column,
    Heading,
    Key,
    Legend,
    Note,
    Plot,
    Plots,
    Row,
    Section,
    Table,
)
from gpe.report.plots import BandLine, limits, panel
from gpe.report.words import number

# The cells of the grid, as a picture's parts are called.
_ROWS, _COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")
PLACES = {cell: f"{_ROWS[n // 3]} {_COLUMNS[n % 3]}" for n, cell in enumerate(GRID)}
# Dashes of what is measured in either half, where colours stand for no ranking.
HALVES = {"left": "", "right": "7 3"}
# Neither in the paper nor random: drawn apart, beside the first ranking.
_OTHERS = {*CONTROLS, *(mode for pair in SIDED for mode in pair)} - {*SIDES}
_SMALL, LARGE = (2.6, 2.1), (4.6, 2.9)
AXES = {"top": "N, channels removed", "range": "ranks of the channels removed"}


def figures(trial: Trial) -> list[Block]:
    """Rows of panels that share an axis, each under its heading."""
    rows: list[Block] = []
    if trial.experiment != "figure6" or not about_sides(trial):
        rows += _rows(trial, trial.regions, "Figure 4", wide=False)
    if about_sides(trial):
        rows += _rows(trial, list(SIDES), "Figure 6", wide=True)
        if trial.counts:
            rows += _costs(trial)
    if trial.counts and pairs_of(trial):
        rows += _specificities(trial)
    return rows + (_map(trial.grid) if trial.grid else [])


def lines(
    trial: Losses, region: str, kind: str, names: Sequence[str] | None = None
) -> list[BandLine]:
    """Of one panel, ``kind`` ``"top"`` or ``"range"``; random orders first, below the others."""
    found = []
    for name in reversed(trial.lines if names is None else names):
        points: dict[float, tuple[float, float, float]] = {}
        if kind == "top":
            points |= {0: (trial.baseline[region],) * 3}
            points |= {count: trial.value(name, top(count), region) for count in trial.counts}
        else:
            points |= {
                _middle(removal): trial.value(name, removal, region) for removal in trial.ranges
            }
        found.append(_line(name, points, _paper(trial, name, region, kind)))
    return found


def _rows(trial: Trial, regions: list[str], name: str, *, wide: bool) -> list[Block]:
    rows: list[Block] = []
    others = [line for line in trial.lines if line in _OTHERS]
    papers = [line for line in trial.lines if line not in _OTHERS]
    if trial.counts:
        rows += [
            Heading(f"{name}: the first N channels removed", level=3),
            legend(trial, papers),
            _panels(trial, regions, "top", papers, wide=wide),
        ]
        beside = [*trial.rankings[:1], *others, *([RANDOM] if trial.draws else [])]
        if set(others) & {*CONTROLS}:
            rows += [
                Heading(f"{name}, position against importance", level=3),
                legend(trial, list(dict.fromkeys(beside))),
                _panels(trial, regions, "top", list(dict.fromkeys(beside)), wide=wide),
            ]
    if len(trial.ranges) > 1 and not (wide and trial.experiment == "ablate"):
        title = f"{name}: one range of the ranking removed at a time"
        rows += [
            Heading(title, level=3),
            *([] if rows else [legend(trial, papers)]),
            _panels(trial, regions, "range", papers, wide=wide),
        ]
    return rows


def _panels(
    trial: Trial, regions: list[str], kind: str, names: Sequence[str], *, wide: bool
) -> Plots:
    drawn = {region: lines(trial, region, kind, names) for region in regions}
    shown = _limits(trial, drawn, shared=kind == "top")
    plots = [
        Plot(
            panel(
                found,
                label=AXES[kind],
                limits=shown[region],
                level=trial.baseline[region],
                size=LARGE if wide else _SMALL,
            ),
            f"{region} half" if region in SIDES else region,
            "mIoU, %",
        )
        for region, found in drawn.items()
    ]
    return Plots(plots, "wide" if wide else "small")


def _limits(
    trial: Trial, drawn: dict[str, list[BandLine]], *, shared: bool
) -> dict[str, tuple[float, float]]:
    """By region the same limits, or as far apart about each region's own middle.

    What a single range costs is little beside what lies between regions.
    """
    if shared:
        levels = (trial.baseline[region] for region in drawn)
        same = limits([line for found in drawn.values() for line in found], *levels)
        return dict.fromkeys(drawn, same)
    own = {region: limits(found, trial.baseline[region]) for region, found in drawn.items()}
    half = max(high - low for low, high in own.values()) / 2
    middles = {region: (low + high) / 2 for region, (low, high) in own.items()}
    return {region: (middle - half, middle + half) for region, middle in middles.items()}


def _line(name: str, points: dict, paper: dict[float, float]) -> BandLine:
    style = mode_of(name)
    return BandLine(points=points, paper=paper, colour=style.colour, dashes=style.dashes)


def _paper(trial: Losses, name: str, region: str, kind: str) -> dict[float, float]:
    """The paper's values, at the same share of this network's channels."""
    share = trial.channels / PAPER_CHANNELS
    return {
        share * (removal.stop if kind == "top" else _middle(removal)): value
        for (line, removal, where), value in trial.paper.items()
        if (line, removal.kind, where) == (name, kind, region)
    }


def _middle(removal: Removal) -> float:
    return (removal.start + removal.stop) / 2


def _costs(trial: Trial) -> list[Block]:
    """Points that either half loses without the channels of one side: Figures S3 and S4."""
    drawn = {
        f"the first N {mode_of(side).kind} channels removed": (
            [_cost(trial, side, half) for half in reversed(SIDES)],
            "points lost",
        )
        for side in SIDES
    }
    keys = [
        Key(f"points of mIoU lost in the {half} half", dashes=dashes)
        for half, dashes in HALVES.items()
    ]
    heading = Heading("Figures S4 and S3: what either half loses", level=3)
    return [heading, Legend(keys), _pair(drawn)]


def _specificities(trial: Trial) -> list[Block]:
    """Points that a half loses more than the other, by every ranking of that half."""
    random = [RANDOM] if trial.draws else []
    drawn = {
        f"channels of the {side} half": (
            [_specific(trial, name, side) for name in [*random, *own]],
            f"points lost on the {side} minus elsewhere",
        )
        for side, own in zip(SIDES, zip(*pairs_of(trial), strict=True), strict=True)
    }
    names = [name for pair in pairs_of(trial) for name in pair]
    return [
        Heading("Which channels hurt their own half more", level=3),
        legend(trial, [*names, *random]),
        _pair(drawn),
    ]


def _specific(trial: Trial, line: str, side: str) -> BandLine:
    points: dict[float, tuple[float, float, float]] = {0: (0.0,) * 3}
    for count in trial.counts:
        values = [specificity(trial, order, side, count) for order in trial.orders(line)]
        points[count] = Value(fmean(values), min(values), max(values))
    return _line(line, points, {})


def _pair(drawn: Mapping[str, tuple[list[BandLine], str]]) -> Plots:
    """Panels on one scale about zero, by their titles: lines, and what their axis shows."""
    shared = limits([line for found, _ in drawn.values() for line in found], 0.0)
    plots = [
        Plot(panel(found, label=AXES["top"], limits=shared, level=0.0, size=LARGE), title, text)
        for title, (found, text) in drawn.items()
    ]
    return Plots(plots, "wide")


def _map(grid: Grid) -> list[Block]:
    """Which region's channels hurt which region, as one picture."""
    lost = {(own, region): grid.beyond(own, region) for own in GRID for region in GRID}
    most = max((abs(value) for value in lost.values() if value is not None), default=0.0) or 1.0
    rows = []
    for own in GRID:
        cells = [
            None
            if (value := lost[own, region]) is None
            else Cell(number(value), tint=max(value / most, 0.0))
            for region in GRID
        ]
        rows.append(Row(PLACES[own], cells))
    return [
        Heading("Which region's channels hurt which region", level=3),
        Table("", [Column(PLACES[region]) for region in GRID], [Section(rows)], style="map"),
        Note(
            f"Rows: the first {grid.count} channels active in a region of a 3×3 grid are removed. "
            "Columns: points of mIoU that a region loses by it, beyond the mean of random draws "
            f"({len(grid.draws)}).",
            where="both",
        ),
    ]


def legend(trial: Trial, names: Sequence[str]) -> Legend:
    """Of lines by ranking."""
    keys = mode_keys(names, len(trial.draws))
    if has_paper(trial):
        share = f", at the same share of its {PAPER_CHANNELS} channels"
        text = "the paper's" + (share if trial.channels != PAPER_CHANNELS else "")
        keys.append(Key(text, shape="diamond"))
    return Legend(keys)


def mode_keys(names: Iterable[str], draws: int) -> list[Key]:
    """Of rankings, of random orders as one, and of nothing removed."""
    keys = []
    for name in names:
        mode = mode_of(name)
        band = f", mean of {draws} draws, band from lowest to highest"
        text = mode.label + (band if name in (RANDOM, MATCHED) and draws > 1 else "")
        keys.append(Key(text, mode.colour, dashes=mode.dashes))
    return [*keys, Key("nothing removed", "muted", dashes="1 3")]


def _cost(trial: Trial, side: str, half: str) -> BandLine:
    before = trial.baseline[half]
    points: dict[float, tuple[float, float, float]] = {0: (0.0,) * 3}
    for count in trial.counts:
        lost = before - trial.value(side, top(count), half).mean
        points[count] = (lost,) * 3
    return BandLine(points=points, paper={}, colour="ink", dashes=HALVES[half])


def has_paper(trial: Trial) -> bool:
    """Whether a figure shows a value of the paper's."""
    return any(
        _paper(trial, name, region, kind)
        for name in (*trial.rankings, RANDOM)
        for region in trial.regions
        for kind in ("top", "range")
    )
