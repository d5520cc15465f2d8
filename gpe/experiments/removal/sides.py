"""Figures 6, S3 and S4 in plain sentences: whether one side of the image can be hurt alone."""

from gpe.experiments.removal.config import RANDOM
from gpe.experiments.removal.modes import mode_of
from gpe.experiments.removal.trials import Trial, band, top
from gpe.report.words import listing, spans

SIDES = ("left", "right")


def about_sides(trial: Trial) -> bool:
    """Whether it can show what Figure 6 shows: both sides ranked, and both measured."""
    return {*SIDES} <= {*trial.rankings} and {*SIDES} <= {*trial.regions}


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


def half_against_half(trial: Trial, number: int) -> str:
    """Figures S3 and S4: points lost on either half, and whether one loses more than by chance."""
    parts = []
    for side in SIDES:
        lost = [trial.baseline[s] - trial.value(side, top(number), s).mean for s in SIDES]
        parts.append(
            f"{side}-specific ones cost the left half {_points(lost[0])} and the right half "
            f"{_points(lost[1])} ({_told(_lean(trial, side, number))})"
        )
    text = f"Half against half, {number} channels removed: {'; '.join(parts)}."
    if len(trial.draws) < 2:
        return text
    leans = [_lean(trial, draw, number) for draw in trial.draws]
    return f"{text} In random draws it is from {_told(min(leans))} to {_told(max(leans))}."


def leaning(trial: Trial) -> list[str]:
    """One count out of many may be a lucky one: at which a side loses more than in every draw."""
    counts = trial.partial_counts
    if len(counts) < 3 or len(trial.draws) < 2:
        return []
    parts = []
    for side, sign in zip(SIDES, (1, -1), strict=True):
        beyond = [
            sign * _lean(trial, side, number)
            > max(sign * _lean(trial, draw, number) for draw in trial.draws)
            for number in counts
        ]
        where = f"at {spans(counts, beyond)}" if any(beyond) else "at none"
        parts.append(f"{side}-specific ones lean to the {side} more than every draw {where}")
    return [f"Over all {len(counts)} counts, from {counts[0]} to {counts[-1]}: {'; '.join(parts)}."]


def _lean(trial: Trial, order: str, number: int) -> float:
    """By how many points the left half loses more than the right one, by a ranking or a draw."""
    left, right = (trial.baseline[s] - trial.miou[order, top(number)][s] for s in SIDES)
    return left - right


def _told(points: float) -> str:
    if abs(points) < 0.05:
        return "0.0 between them"
    return f"{abs(points):.1f} more on the {'left' if points > 0 else 'right'}"


def _points(lost: float) -> str:
    return f"{lost:.1f} points".replace("-", "−")
