"""What removing channels shows, in plain sentences: no more than random orders let one say."""

from collections import defaultdict

from gpe.experiments.removal.config import CONTROLS, IMPORTANCE, MATCHED, PAPER_CHANNELS, RANDOM
from gpe.experiments.removal.modes import mode_of
from gpe.experiments.removal.sides import (
    SIDES,
    about_sides,
    half,
    half_against_half,
    leaning,
    own_region,
    pairs_of,
)
from gpe.experiments.removal.trials import Removal, Trial, band, top
from gpe.report.words import listing, signed, spans
from gpe.statistics import rank_correlation

_FEW = 19  # draws, of which a ranking by chance lies below all in one case of 20
_BELOW, _WITHIN, _ABOVE = "below every draw", "within the draws", "above every draw"


def findings(trial: Trial) -> list[str]:
    """Paragraphs about one network, what matters most first."""
    if not trial.regions:
        return ["No region has a labelled pixel, so there is no mIoU."]
    paragraphs = []
    if pairs_of(trial):
        for number in list(trial.told)[-1:]:
            if about_sides(trial):
                paragraphs += [half(trial, side, number) for side in SIDES]
            paragraphs += half_against_half(trial, number)
        paragraphs += leaning(trial)
    if trial.grid:
        paragraphs.append(own_region(trial.grid))
    if trial.experiment != "figure6" or not paragraphs:
        paragraphs = [*_overall(trial), *paragraphs]
    return [*paragraphs, _caution(trial)]


def main_ranking(trial: Trial) -> str | None:
    """The one to tell of first; None where all orders are random."""
    return next(iter(trial.rankings), None)


def slopes(trial: Trial, line: str, region: str) -> list[float]:
    """Spearman correlation of mIoU with the place of the range removed; of each random order."""
    names = trial.draws if line == RANDOM else [line]
    places = [removal.start for removal in trial.ranges]
    return [
        float(
            rank_correlation(
                places, [trial.scores[name, removal][region] for removal in trial.ranges]
            )
        )
        for name in names
    ]


def _overall(trial: Trial) -> list[str]:
    name = main_ranking(trial)
    if name is None:
        return [_only_random(trial, number) for number in trial.told]
    paragraphs = [_against_random(trial, name, number) for number in trial.told]
    if trial.told:
        number = max(trial.told)
        paragraphs += _against_importance(trial, name, number)
        paragraphs += _by_region(trial, name, number) + _other_rankings(trial, name, number)
    paragraphs += _over_all_counts(trial)
    if len(trial.ranges) > 2:
        paragraphs.append(_along_the_ranking(trial, name))
    return paragraphs


def _against_random(trial: Trial, name: str, number: int) -> str:
    region = trial.regions[0]
    baseline, value = trial.baseline[region], trial.value(name, top(number), region).mean
    place = "" if region == "full" else f" in {region}"
    text = (
        f"Without its {number} most {mode_of(name).kind} channels of {trial.channels} the "
        f"network {_moves(baseline, value)} mIoU{place}"
    )
    if trial.draws:
        random = trial.value(RANDOM, top(number), region)
        text += (
            f"; without {number} random ones to {random.mean:.1f} "
            f"({band(random, len(trial.draws))})"
        )
    parts = [f"{text}.", _verdict(trial, name, number), _of_the_paper(trial, name, number)]
    return " ".join(filter(None, parts))


def _only_random(trial: Trial, number: int) -> str:
    region = trial.regions[0]
    value = trial.value(RANDOM, top(number), region)
    moves = _moves(trial.baseline[region], value.mean)
    return (
        f"Without {number} random channels of {trial.channels} the network {moves} mIoU "
        f"({band(value, len(trial.draws))})."
    )


def _verdict(trial: Trial, name: str, number: int) -> str:
    if not trial.draws:
        return "No random orders were tried, so this says nothing of the ranking."
    if len(trial.draws) == 1:
        return "One draw does not say how far random orders lie apart."
    return {
        _BELOW: "No draw costs as much.",
        _WITHIN: "That is within the draws: not told apart from a random order.",
        _ABOVE: "Every draw costs more.",
    }[_place(trial, name, number, trial.regions[0])]


def _place(trial: Trial, name: str, number: int, region: str, beside: str = RANDOM) -> str:
    value = trial.value(name, top(number), region).mean
    random = trial.value(beside, top(number), region)
    return _BELOW if value < random.low else _ABOVE if value > random.high else _WITHIN


def _of_the_paper(trial: Trial, name: str, number: int) -> str:
    counted, region = trial.told[number], trial.regions[0]
    removal = top(counted)
    value = trial.paper.get((name, removal, region))
    random = trial.paper.get((RANDOM, removal, region))
    if value is None:
        return ""
    against = "" if random is None else f", {random:.1f} at random"
    return f"The paper, without {counted} of {PAPER_CHANNELS}: {value:.1f}{against}."


def _against_importance(trial: Trial, name: str, number: int) -> list[str]:
    """What position is worth: beside channels that do as much, wherever things are."""
    region, removal = trial.regions[0], top(number)
    value = trial.value(name, removal, region).mean
    left = {
        mode_of(one).label: trial.value(one, removal, region).mean
        for one in trial.rankings
        if one in (*IMPORTANCE, "relative") and one != name
    }
    found = []
    if left:
        parts = [f"{label} leaves {miou:.1f}" for label, miou in left.items()]
        worse = [label for label, miou in left.items() if miou < value]
        verdict = f"None does more harm than {mode_of(name).label}"
        if worse:
            verdict = f"More harm than by {mode_of(name).label} is done by {listing(worse)}"
        found.append(
            f"Position against importance, without {number} channels: {mode_of(name).label} leaves "
            f"{value:.1f}, {listing(parts)}. {verdict}."
        )
    if trial.matched and "overall" in trial.rankings:
        value = trial.value("overall", removal, region).mean
        matched = trial.value(MATCHED, removal, region)
        points, draws = matched.mean - value, len(trial.matched)
        shared = (
            f"; {trial.shared[number]:.0f} of {number} the same" if number in trial.shared else ""
        )
        told = f"{abs(points):.1f} points {'more' if points > 0 else 'less'} than these"
        place = {
            _BELOW: "no draw costs as much",
            _WITHIN: "within the draws, so not told apart from them",
            _ABOVE: "every draw costs more",
        }[_place(trial, "overall", number, region, MATCHED)]
        found.append(
            f"Random channels that deviate as those of Equation 2 do leave {matched.mean:.1f} "
            f"({band(matched, draws)}{shared}): position costs {told}, {place}."
        )
    return found


def _by_region(trial: Trial, name: str, number: int) -> list[str]:
    if len(trial.regions) < 2 or len(trial.draws) < 2:
        return []
    places = defaultdict(list)
    for region in trial.regions:
        places[_place(trial, name, number, region)].append(region)
    parts = [
        f"{place} in {'every region' if len(places) == 1 else listing(places[place])}"
        for place in (_BELOW, _WITHIN, _ABOVE)
        if place in places
    ]
    return [f"By region, without {number} channels, {mode_of(name).label} lies {'; '.join(parts)}."]


def _other_rankings(trial: Trial, name: str, number: int) -> list[str]:
    others = [one for one in trial.rankings if one not in (name, *SIDES, *CONTROLS)]
    if not others:
        return []
    region = trial.regions[0]
    parts = []
    for other in others:
        value = trial.value(other, top(number), region).mean
        place = f" ({_place(trial, other, number, region)})" if len(trial.draws) > 1 else ""
        parts.append(f"{mode_of(other).label} leaves {value:.1f}{place}")
    return [f"Without {number} channels by another ranking: {listing(parts)}."]


def _over_all_counts(trial: Trial) -> list[str]:
    """Two counts out of many may be lucky ones: where on its curve a ranking leaves the band."""
    counts = trial.partial_counts
    if len(counts) < 3 or len(trial.draws) < 2:
        return []
    region, parts = trial.regions[0], []
    for name in trial.rankings:
        if name in CONTROLS and name != trial.rankings[0]:
            continue
        places = [_place(trial, name, number, region) for number in counts]
        where = [
            f"{place} at {spans(counts, [found == place for found in places])}"
            for place in (_BELOW, _ABOVE)
            if place in places
        ]
        where = where or [f"{_WITHIN} at every one"]
        parts.append(f"{mode_of(name).label} lies {', '.join(where)}")
    return [f"Over all {len(counts)} counts, from {counts[0]} to {counts[-1]}: {'; '.join(parts)}."]


def _along_the_ranking(trial: Trial, name: str) -> str:
    region, first, last = trial.regions[0], trial.ranges[0], trial.ranges[-1]
    values = [trial.value(name, removal, region).mean for removal in (first, last)]
    (slope,) = slopes(trial, name, region)
    text = (
        f"One range at a time: without {_ranks(first)} of {mode_of(name).label} {values[0]:.1f} "
        f"is left, without {_ranks(last)} {values[1]:.1f}. Spearman correlation of place "
        f"with what is left is {signed(slope, 2)} over {len(trial.ranges)} ranges; above zero, the "
        "first channels count most"
    )
    if len(trial.draws) < 2:
        return f"{text}."
    random = slopes(trial, RANDOM, region)
    inside = min(random) <= slope <= max(random)
    told = ": within the draws" if inside else ""
    span = f"{signed(min(random), 2)} to {signed(max(random), 2)}"
    return f"{text}. In random orders it is {span}{told}."


def _caution(trial: Trial) -> str:
    draws = len(trial.draws)
    if not draws:
        return "Without random orders beside it, no removal tells what a ranking is worth."
    if draws >= _FEW:
        return f"Random: mean, lowest and highest of {draws} draws."
    below = "a single one" if draws == 1 else f"all {draws}"
    return (
        f"Few draws say little: an order that is itself random lies below {below} in one case of "
        f"{draws + 1}."
    )


def _moves(before: float, after: float) -> str:
    before, after = round(before, 1), round(after, 1)
    if before == after:
        return f"stays at {after:.1f}"
    return f"{'falls' if after < before else 'rises'} from {before:.1f} to {after:.1f}"


def _ranks(removal: Removal) -> str:
    return f"ranks {removal.start + 1} to {removal.stop}"
