"""Figures 4, 6, S3 and S4: mIoU without the first channels, without a range, and what it costs."""

from typing import Any

from gpe.report.ablation_sides import SIDES, about_sides
from gpe.report.ablation_trials import PAPER_CHANNELS, Removal, Trial, top
from gpe.report.figures import BandLine, limits, panel
from gpe.report.rankings import RANDOM, ranking_of

# Dashes of what is measured in either half, where colours stand for no ranking.
HALVES = {"left": "", "right": "7 3"}
_SMALL, _LARGE = (2.6, 2.1), (4.6, 2.9)


def figures(trial: Trial) -> list[dict[str, Any]]:
    """Rows of panels that share an axis.

    ``wide`` ones are larger; ``legend`` is ``"rankings"``, ``"halves"`` or, where it stands
    above an earlier row, empty.
    """
    rows = []
    if trial.experiment != "figure6" or not about_sides(trial):
        rows += _rows(trial, trial.regions, "Figure 4", wide=False)
    if about_sides(trial):
        rows += _rows(trial, list(SIDES), "Figure 6", wide=True)
        if trial.counts:
            rows.append(_costs(trial))
    return rows


def lines(trial: Trial, region: str, kind: str) -> list[BandLine]:
    """Of one panel, ``kind`` ``"top"`` or ``"range"``; random orders first, below the others."""
    found = []
    for name in reversed(trial.lines):
        if kind == "top":
            points = {count: trial.value(name, top(count), region) for count in trial.counts}
            points = {0: (trial.baseline[region],) * 3} | points
        else:
            points = {
                _middle(removal): trial.value(name, removal, region) for removal in trial.ranges
            }
        found.append(_line(name, points, _paper(trial, name, region, kind)))
    return found


def _rows(trial: Trial, regions: list[str], name: str, *, wide: bool) -> list[dict[str, Any]]:
    rows = []
    if trial.counts:
        rows.append(
            {
                "title": f"{name}: the first N channels removed",
                "wide": wide,
                "legend": "rankings",
                "panels": _panels(trial, regions, "top", wide=wide),
            }
        )
    if len(trial.ranges) > 1 and not (wide and trial.experiment == "ablate"):
        rows.append(
            {
                "title": f"{name}: one range of the ranking removed at a time",
                "wide": wide,
                "legend": "" if rows else "rankings",
                "panels": _panels(trial, regions, "range", wide=wide),
            }
        )
    return rows


def _panels(trial: Trial, regions: list[str], kind: str, *, wide: bool) -> list[dict[str, Any]]:
    drawn = {region: lines(trial, region, kind) for region in regions}
    shown = _limits(trial, drawn, shared=kind == "top")
    label = "N, channels removed" if kind == "top" else "ranks of the channels removed"
    return [
        {
            "title": f"{region} half" if region in SIDES else region,
            "figure": panel(
                found,
                label=label,
                limits=shown[region],
                level=trial.baseline[region],
                size=_LARGE if wide else _SMALL,
            ),
        }
        for region, found in drawn.items()
    ]


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
    style = ranking_of(name)
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


def _costs(trial: Trial) -> dict[str, Any]:
    """Points that either half loses without the channels of one side: Figures S3 and S4."""
    drawn = {side: [_cost(trial, side, half) for half in reversed(SIDES)] for side in SIDES}
    shared = limits([line for found in drawn.values() for line in found], 0.0)
    return {
        "title": "Figures S4 and S3: what either half loses",
        "wide": True,
        "legend": "halves",
        "panels": [
            {
                "title": f"the first N {ranking_of(side).kind} channels removed",
                "figure": panel(
                    found, label="N, channels removed", limits=shared, level=0.0, size=_LARGE
                ),
            }
            for side, found in drawn.items()
        ],
    }


def _cost(trial: Trial, side: str, half: str) -> BandLine:
    before = trial.baseline[half]
    points = {0: (0.0,) * 3}
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
