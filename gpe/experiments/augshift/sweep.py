"""What was tried on validation images to choose crops and λ, and what each setting scored."""

from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from gpe.experiments.augshift.config import METHODS
from gpe.experiments.augshift.trials import Trial, by
from gpe.experiments.shift_scores import consistency_of
from gpe.report.blocks import Block, Cell, Column, Note, Row, Section, Table
from gpe.report.words import number, percent

# Wide crops alone are AugShift with λ 0.
_CROPS = {1: "one crop", 2: "two crops"}
_KINDS = {
    name: f"BlurPool, {_CROPS[method.crops]}" if method.blur else _CROPS[method.crops].capitalize()
    for name, method in METHODS.items()
}


class Setting(NamedTuple):
    """One choice of crops and λ, and what it scored in percent, mean of its seeds."""

    name: str
    consistency: float
    accuracy: float
    seeds: int


Settings = dict[tuple[int, float], Setting]  # by crop shift and λ


def is_sweep(trials: Sequence[Trial]) -> bool:
    """Whether these runs of one table try several settings of a method on validation images."""
    methods = by(trials, "method", "variant").values()
    several = any(len(by(same, "crop_shift", "weight")) > 1 for same in methods)
    return several and trials[0].split == "validation"


def sweep_findings(trials: Sequence[Trial]) -> list[str]:
    """Which setting of each kind of crops is ahead, in plain sentences."""
    sentences = []
    for (variant,), members in by(trials, "variant").items():
        for kind, settings in _by_kind(members).items():
            if len(settings) > 1:
                kind = ", ".join(filter(None, (kind, variant)))
                shift = members[0].scores.headline
                sentences.append(_ahead(kind, shift, list(settings.values())))
    return sentences


def sweeps(trials: Sequence[Trial]) -> list[Block]:
    """A table for each variant: rows by kind of crops and by their shift, a column for each λ."""
    found: list[Block] = []
    for (variant,), members in by(trials, "variant").items():
        if variant:
            found.append(Note(variant, where="both"))
        found += _sweep(members)
    return found


def _ahead(kind: str, shift: int, settings: Sequence[Setting]) -> str:
    steady = max(settings, key=lambda setting: setting.consistency)
    right = max(settings, key=lambda setting: setting.accuracy)
    return (
        f"{kind}: of {len(settings)} settings, {steady.name} has the highest Cons.{shift}, "
        f"{percent(steady.consistency)} at accuracy {percent(steady.accuracy)}; "
        f"{right.name} has the highest accuracy, {percent(right.accuracy)} "
        f"at Cons.{shift} {percent(right.consistency)}."
    )


def _sweep(trials: Sequence[Trial]) -> list[Block]:
    kinds = _by_kind(trials)
    weights = [float(weight) for (weight,) in by(trials, "weight")]
    known = [setting for settings in kinds.values() for setting in settings.values()]
    lowest = min(setting.consistency for setting in known)
    span = max(setting.consistency for setting in known) - lowest or 1.0
    sections = []
    for kind, settings in kinds.items():
        best = max(setting.consistency for setting in settings.values())
        most = max(setting.accuracy for setting in settings.values())
        rows = []
        for crop_shift in sorted({crop_shift for crop_shift, _ in settings}):
            cells = [
                Cell(
                    number(setting.consistency),
                    lines=(number(setting.accuracy),),
                    tint=(setting.consistency - lowest) / span,
                    top=(setting.consistency == best, setting.accuracy == most),
                )
                if (setting := settings.get((crop_shift, weight)))
                else None
                for weight in weights
            ]
            rows.append(Row(kind, cells, notes=(f"±{crop_shift} px",)))
        sections.append(Section(rows))
    columns = [Column(f"λ {weight:g}") for weight in weights]
    seeds = max(setting.seeds for setting in known)
    means = f", means of up to {seeds} seeds" if seeds > 1 else ""
    first = trials[0]
    about = (
        f"Large: Cons.{first.scores.headline}; small: accuracy without a shift; both in percent, "
        f"on {first.split} images{means}."
    )
    more = " Underlined: the highest of their kind of crops. λ 0 of two crops is wide crops alone."
    return [
        Table("", columns, sections, style="map"),
        Note(about + more),
        Note(about, where="terminal"),
    ]


def _by_kind(trials: Sequence[Trial]) -> dict[str, Settings]:
    kinds: dict[str, Settings] = {}
    for (method, crop_shift, weight), seeds in by(trials, "method", "crop_shift", "weight").items():
        settings = kinds.setdefault(_KINDS.get(method, method), {})
        shift = seeds[0].scores.headline
        settings[crop_shift, weight] = Setting(
            seeds[0].setting,
            consistency_of([trial.scores for trial in seeds], shift).value,
            fmean(trial.accuracy[trial.last] for trial in seeds),
            len(seeds),
        )
    return kinds
