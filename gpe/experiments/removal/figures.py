"""Figures 4, 6, S3 and S4: mIoU without the first channels, without a range, and what it costs."""

from collections.abc import Iterable

from gpe.experiments.removal.config import PAPER_CHANNELS, RANDOM
from gpe.experiments.removal.modes import mode_of
from gpe.experiments.removal.sides import SIDES, about_sides
from gpe.experiments.removal.trials import Removal, Trial, top
from gpe.report.blocks import Block, Heading, Key, Legend, Plot, Plots
from gpe.report.plots import BandLine, limits, panel

# Dashes of what is measured in either half, where colours stand for no ranking.
HALVES = {"left": "", "right": "7 3"}
_SMALL, _LARGE = (2.6, 2.1), (4.6, 2.9)


def figures(trial: Trial) -> list[Block]:
    """Rows of panels that share an axis, each under its heading."""
    rows: list[Block] = []
    if trial.experiment != "figure6" or not about_sides(trial):
        rows += _rows(trial, trial.regions, "Figure 4", wide=False)
    if about_sides(trial):
        rows += _rows(trial, list(SIDES), "Figure 6", wide=True)
        if trial.counts:
            rows += _costs(trial)
    return rows


def lines(trial: Trial, region: str, kind: str) -> list[BandLine]:
    """Of one panel, ``kind`` ``"top"`` or ``"range"``; random orders first, below the others."""
    found = []
    for name in reversed(trial.lines):
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
    if trial.counts:
        rows += [
            Heading(f"{name}: the first N channels removed", level=3),
            legend(trial),
            _panels(trial, regions, "top", wide=wide),
        ]
    if len(trial.ranges) > 1 and not (wide and trial.experiment == "ablate"):
        title = f"{name}: one range of the ranking removed at a time"
        rows += [
            Heading(title, level=3),
            *([] if rows else [legend(trial)]),
            _panels(trial, regions, "range", wide=wide),
        ]
    return rows


def _panels(trial: Trial, regions: list[str], kind: str, *, wide: bool) -> Plots:
    drawn = {region: lines(trial, region, kind) for region in regions}
    shown = _limits(trial, drawn, shared=kind == "top")
    label = "N, channels removed" if kind == "top" else "ranks of the channels removed"
    plots = [
        Plot(
            panel(
                found,
                label=label,
                limits=shown[region],
                level=trial.baseline[region],
                size=_LARGE if wide else _SMALL,
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


def _paper(trial: Trial, name: str, region: str, kind: str) -> dict[float, float]:
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
    drawn = {side: [_cost(trial, side, half) for half in reversed(SIDES)] for side in SIDES}
    shared = limits([line for found in drawn.values() for line in found], 0.0)
    plots = [
        Plot(
            panel(found, label="N, channels removed", limits=shared, level=0.0, size=_LARGE),
            f"the first N {mode_of(side).kind} channels removed",
            "points lost",
        )
        for side, found in drawn.items()
    ]
    keys = [
        Key(f"points of mIoU lost in the {half} half", dashes=dashes)
        for half, dashes in HALVES.items()
    ]
    heading = Heading("Figures S4 and S3: what either half loses", level=3)
    return [heading, Legend(keys), Plots(plots, "wide")]


def legend(trial: Trial) -> Legend:
    """Of lines by ranking."""
    keys = mode_keys(trial.lines, len(trial.draws))
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
        text = mode.label + (band if name == RANDOM and draws > 1 else "")
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
