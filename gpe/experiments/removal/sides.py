"""Figures 6, S3 and S4 in plain sentences: whether one side of the image can be hurt alone."""

from collections.abc import Mapping
from statistics import fmean

from gpe.experiments.removal.config import GRID, RANDOM, SIDED
from gpe.experiments.removal.modes import mode_of
from gpe.experiments.removal.trials import Grid, Trial, band, top
from gpe.report.words import listing, spans

SIDES = ("left", "right")


def about_sides(trial: Trial) -> bool:
    """Whether it can show what Figure 6 shows: both sides ranked, and both measured."""
    return {*SIDES} <= {*trial.rankings} and {*SIDES} <= {*trial.regions}


def pairs_of(trial: Trial) -> list[tuple[str, str]]:
    """The rankings of left and right that can be held against each other."""
    if not {*SIDES} <= {*trial.regions}:
        return []
    return [pair for pair in SIDED if {*pair} <= {*trial.rankings}]


def specificity(trial: Trial, order: str, side: str, number: int) -> float:
    """Points that a half loses more than the other without the first channels of an order."""
    return _lean(trial, order, number) * (1 if side == "left" else -1)


def half(trial: Trial, side: str, number: int) -> str:
    (other,) = {*SIDES} - {side}
    removal = top(number)
    left = {
        mode_of(line).kind: trial.value(line, removal, side).mean
        for line in trial.lines
        if line in (*SIDES, "overall")
    }
    parts = [f"{left[kind]:.1f} ({kind})" for kind in sorted(left, key=lambda kind: left[kind])]
    if trial.draws:
        random, draws = trial.value(RANDOM, removal, side), len(trial.draws)
        parts.append(f"{random.mean:.1f} (random: {band(random, draws)})")
    own, rival = (trial.value(line, removal, side).mean for line in (side, other))
    return (
        f"On the {side} half, removing {number} channels of {trial.channels} takes mIoU from "
        f"{trial.baseline[side]:.1f} to {listing(parts)}. "
        f"{_apart(trial, side, other, number, rival - own)}"
    )


def _apart(trial: Trial, side: str, other: str, number: int, difference: float) -> str:
    less = "more" if difference > 0 else "less"
    text = (
        f"{side.capitalize()}-specific channels cost it {abs(difference):.1f} points {less} than "
        f"{other}-specific ones"
    )
    if len(trial.draws) < 2:
        return f"{text}, and there are no draws to say what chance does."
    random = trial.value(RANDOM, top(number), side)
    apart = random.high - random.low
    if abs(difference) <= apart:
        return f"{text}, but random draws lie {apart:.1f} apart: this may be chance."
    against = "" if difference > 0 else ", which is the opposite of what the paper found"
    return f"{text}; random draws lie no more than {apart:.1f} apart{against}."


def half_against_half(trial: Trial, number: int) -> list[str]:
    """Figures S3 and S4: points lost on either half, and whether one loses more than by chance."""
    found = []
    for pair in pairs_of(trial):
        parts = []
        for mode in pair:
            lost = [trial.baseline[s] - trial.value(mode, top(number), s).mean for s in SIDES]
            parts.append(
                f"{mode_of(mode).kind} ones cost the left half {_points(lost[0])} and the right "
                f"half {_points(lost[1])} ({_told(_lean(trial, mode, number))})"
            )
        found.append(f"Half against half, {number} channels removed: {'; '.join(parts)}.")
    if found and len(trial.draws) > 1:
        leans = [_lean(trial, draw, number) for draw in trial.draws]
        found[0] += f" In random draws it is from {_told(min(leans))} to {_told(max(leans))}."
    return found


def leaning(trial: Trial) -> list[str]:
    """One count out of many may be a lucky one: at which a side loses more than in every draw."""
    counts = trial.partial_counts
    if len(counts) < 3 or len(trial.draws) < 2:
        return []
    parts = []
    for pair in pairs_of(trial):
        for side, mode in zip(SIDES, pair, strict=True):
            beyond = [
                specificity(trial, mode, side, number)
                > max(specificity(trial, draw, side, number) for draw in trial.draws)
                for number in counts
            ]
            where = f"at {spans(counts, beyond)}" if any(beyond) else "at none"
            kind = mode_of(mode).kind
            parts.append(f"{kind} ones lean to the {side} more than every draw {where}")
    return [f"Over all {len(counts)} counts, from {counts[0]} to {counts[-1]}: {'; '.join(parts)}."]


def own_region(grid: Grid) -> str:
    """Whether the channels that are active in a region of the grid hurt that region most."""
    own = [points for region in GRID for points in _inside(grid.lost[region], region)]
    chance = [p for d in grid.draws for region in GRID for p in _inside(grid.lost[d], region)]
    if not own:
        return "No region of the grid has labels to be hurt."
    first = 0
    for region in GRID:
        beyond = {other: grid.beyond(other, region) for other in GRID}
        costs = {other: points for other, points in beyond.items() if points is not None}
        first += bool(costs) and max(costs, key=lambda other: costs[other]) == region
    text = (
        f"Of a 3×3 grid, {grid.count} channels removed: those active in a region cost it "
        f"{fmean(own):.1f} points more than they cost the others on average"
    )
    if chance:
        text += f" (random draws: {min(chance):.1f} to {max(chance):.1f})"
    text += f"; {first} of {len(own)} regions are hurt most by their own channels."
    return text.replace("-", "−")


def _inside(lost: Mapping[str, float | None], region: str) -> list[float]:
    """Points that a region loses more than the others on average; none without labels."""
    others = [points for r, points in lost.items() if r != region and points is not None]
    points = lost[region]
    return [points - fmean(others)] if points is not None and others else []


def _lean(trial: Trial, order: str, number: int) -> float:
    """By how many points the left half loses more than the right one, by a ranking or a draw."""
    left, right = (trial.baseline[s] - trial.scores[order, top(number)][s] for s in SIDES)
    return left - right


def _told(points: float) -> str:
    if abs(points) < 0.05:
        return "0.0 between them"
    return f"{abs(points):.1f} more on the {'left' if points > 0 else 'right'}"


def _points(lost: float) -> str:
    return f"{lost:.1f} points".replace("-", "−")
