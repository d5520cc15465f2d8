"""What was tried on validation images to choose crops and λ, and what each setting scored."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from gpe.report.augshift_trials import Trial, by
from gpe.report.scores import consistency_of
from gpe.report.words import percent

# Wide crops alone are AugShift with λ 0.
_KINDS = {
    "baseline": "One crop",
    "wide-crops": "Two crops",
    "augshift": "Two crops",
    "blurpool": "BlurPool, one crop",
    "blurpool-augshift": "BlurPool, two crops",
}


def is_sweep(trials: Sequence[Trial]) -> bool:
    """Whether these runs of one table try several settings of a method on validation images."""
    methods = by(trials, "method", "variant").values()
    several = any(len(by(same, "crop_shift", "weight")) > 1 for same in methods)
    return several and trials[0].split == "validation"


def sweeps(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """A table for each variant: rows by kind of crops and by their shift, a column for each λ."""
    return [_sweep(members, variant) for (variant,), members in by(trials, "variant").items()]


def sweep_findings(trials: Sequence[Trial]) -> list[str]:
    """Which setting of each kind of crops is ahead, in plain sentences."""
    sentences = []
    for (variant,), members in by(trials, "variant").items():
        for kind, cells in _by_kind(members).items():
            if len(cells) > 1:
                kind = ", ".join(filter(None, (kind, variant)))
                sentences.append(_ahead(kind, members[0].scores.headline, list(cells.values())))
    return sentences


def _ahead(kind: str, shift: int, cells: Sequence[dict[str, Any]]) -> str:
    steady = max(cells, key=lambda cell: cell["consistency"])
    right = max(cells, key=lambda cell: cell["accuracy"])
    return (
        f"{kind}: of {len(cells)} settings, {steady['setting']} has the highest Cons.{shift}, "
        f"{percent(steady['consistency'])} at accuracy {percent(steady['accuracy'])}; "
        f"{right['setting']} has the highest accuracy, {percent(right['accuracy'])} "
        f"at Cons.{shift} {percent(right['consistency'])}."
    )


def _sweep(trials: Sequence[Trial], variant: str) -> dict[str, Any]:
    kinds = _by_kind(trials)
    weights = [weight for (weight,) in by(trials, "weight")]
    steady = [cell["consistency"] for cells in kinds.values() for cell in cells.values()]
    return {
        "variant": variant,
        "shift": trials[0].scores.headline,
        "weights": weights,
        "lowest": min(steady),
        "range": max(steady) - min(steady) or 1.0,
        "seeds": max(cell["seeds"] for cells in kinds.values() for cell in cells.values()),
        "kinds": {kind: _kind(cells, weights) for kind, cells in kinds.items()},
    }


def _kind(cells: dict[tuple[int, float], dict[str, Any]], weights: Sequence[float]) -> dict:
    return {
        "rows": {
            crop_shift: [cells.get((crop_shift, weight)) for weight in weights]
            for crop_shift in sorted({crop_shift for crop_shift, _ in cells})
        },
        "consistency": max(cell["consistency"] for cell in cells.values()),
        "accuracy": max(cell["accuracy"] for cell in cells.values()),
    }


def _by_kind(trials: Sequence[Trial]) -> dict[str, dict[tuple[int, float], dict[str, Any]]]:
    """By kind of crops, the cell of each crop shift and λ."""
    kinds: dict[str, dict] = {}
    for (method, crop_shift, weight), seeds in by(trials, "method", "crop_shift", "weight").items():
        cells = kinds.setdefault(_KINDS.get(method, method), {})
        cells[crop_shift, weight] = _cell(seeds)
    return kinds


def _cell(seeds: Sequence[Trial]) -> dict[str, Any]:
    shift = seeds[0].scores.headline
    return {
        "setting": seeds[0].setting,
        "consistency": consistency_of([trial.scores for trial in seeds], shift).value,
        "accuracy": fmean(trial.scores.top1 for trial in seeds),
        "seeds": len(seeds),
    }
