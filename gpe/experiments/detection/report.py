"""Miss rates of pedestrian detectors, and Table S1: what they lose without position channels."""

from collections.abc import Sequence
from itertools import groupby

from gpe.experiments.detection.config import (
    LABELS,
    PAPER_CHANNELS,
    SETTINGS,
    TABLE_S1,
    TARGETED,
)
from gpe.experiments.detection.pictures import curves, losses, pictures
from gpe.experiments.detection.trials import Removed, Trial, read_all
from gpe.experiments.removal.config import MATCHED, RANDOM
from gpe.experiments.removal.modes import mode_of
from gpe.report.blocks import Bar, Block, Cell, Column, Finding, Heading, Note, Row, Section, Table
from gpe.report.grouping import recipe
from gpe.report.runs import Run
from gpe.report.words import count, listing, number, percent, signed
from gpe.statistics import Estimate, mean_of

_RECIPE = ("data", "split", "batch_size", "least_score", "precision", "seed")
_WHO = {
    "reasonable": "reasonable pedestrians",
    "small": "small ones",
    "heavy": "heavily occluded ones",
    "all": "all",
}
_ABOUT = (
    "Log-average miss rate, in percent: the share of pedestrians that is not found, as the "
    "geometric mean over nine numbers of false boxes per image from 0.01 to 1; lower is better. "
    "Reasonable: 50 px high or more, 65 % or more seen; small: of these, up to 75 px; heavy: 50 px "
    "or more, 20 to 65 % seen; all: 20 px or more, 20 % or more seen."
)


def blocks(runs: Sequence[Run]) -> list[Block]:
    """The report of runs of one command.

    Raises:
        InputError: a record lacks what such a record has.
    """
    order = [*LABELS, ""]
    trials = sorted(read_all(runs), key=lambda trial: (order.index(trial.detector), trial.title))
    removals = [(trial, trial.removed) for trial in trials if trial.removed is not None]
    if not removals:
        return _scored(trials)
    found: list[Block] = [
        Heading("What do detectors lose without the channels that hold position? (Table S1)", 1)
    ]
    found += [Finding(text) for text in _over_seeds(removals)]
    alone = len(found) == 1
    for trial, removed in removals:
        named = trial.title if len(removals) > 1 else ""
        found += [
            Finding(_result(trial, removed), named, lead=alone),
            Finding(_how_sure(trial, removed), lead=False),
        ]
        found += [Finding(text, lead=False) for text in _against(trial, removed)]
    layers = {f"of {trial.where or 'the latent before the heads'}" for trial, _ in removals}
    found.append(
        Note(
            f"Channels {listing(sorted(layers))}, ranked by how much they change when the "
            f"image is mirrored (Equation 2), are set to zero. {_ABOUT}"
        )
    )
    for trial, removed in removals:
        found += [
            Heading(trial.title),
            Note(f"{recipe([trial], _RECIPE)}. {count(trial.images, 'image')}."),
            _table(trial, removed),
            Note(
                "In parentheses the paper's, on CityPersons and without 100 channels of "
                f"{PAPER_CHANNELS[trial.detector]}. Below a value its 95 % interval over images; "
                "below the mean of random or matched orders the lowest and the highest of them.",
                where="both",
            ),
            Heading("Miss rate without the first N channels", level=3),
            *losses(trial, removed),
            *curves([trial]),
            *pictures(trial),
        ]
    return found


def _result(trial: Trial, removed: Removed) -> str:
    """What removing costs, and against random channels."""
    where = f"of {trial.where} " if trial.where else ""
    setting = trial.settings[0]
    before, after = trial.rates[setting].value, removed.targeted[setting].value
    random = removed.band(RANDOM, removed.count, setting)[0]
    text = (
        f"Without the {removed.count} of {removed.channels} channels {where}that hold most "
        f"position {trial.label} misses {percent(after)} of {_WHO[setting]}, without "
        f"{removed.count} random ones {percent(random)}, with all {percent(before)}."
    )
    verdict = _verdict(trial, removed.targeted_less_random)
    return f"{text} In points, it misses {verdict} than without random ones."


def _verdict(trial: Trial, differences: dict[str, Estimate]) -> str:
    """Of which pedestrians more are missed, of which fewer, and of which neither."""
    parts = {"more": [], "less": [], "": []}  # type: dict[str, list[str]]
    for name in trial.settings:
        apart = differences[name]
        told = (
            ""
            if apart.ends is None or apart.ends[0] <= 0 <= apart.ends[1]
            else ("more" if apart.value > 0 else "less")
        )
        parts[told].append(f"{_WHO[name]} ({signed(apart.value)})")
    verdicts = [
        f"{than} of {listing(parts[key])}"
        for key, than in (("more", "more"), ("less", "fewer"), ("", "about as many"))
        if parts[key]
    ]
    return listing(verdicts)


def _against(trial: Trial, removed: Removed) -> list[str]:
    """What position is worth beside channels that do as much, wherever people are."""
    setting, number_removed = trial.settings[0], removed.count

    def missed(line: str) -> str:
        return percent(removed.band(line, number_removed, setting)[0])

    found = []
    if removed.targeted_less_matched:
        verdict = _verdict(trial, removed.targeted_less_matched)
        found.append(
            f"Without {number_removed} random channels that deviate over images as those do, "
            f"{removed.shared[number_removed]:.0f} of them the same, {missed(MATCHED)} of "
            f"{_WHO[setting]} are missed. In points, {trial.label} misses {verdict} without the "
            "channels of Equation 2 than without these."
        )
    if removed.controls:
        parts = [f"{missed(name)} ({mode_of(name).label})" for name in removed.controls]
        found.append(
            f"Missed of {_WHO[setting]} without the first {number_removed} by other rankings: "
            f"{listing(parts)}."
        )
    return found


def _how_sure(trial: Trial, removed: Removed) -> str:
    draws = len(removed.draws)
    setting = trial.settings[0]
    apart = removed.targeted_less_random[setting]
    _, low, high = removed.band(RANDOM, removed.count, setting)
    return (
        f"One network, {count(trial.images, 'image')}. Over images the difference of "
        f"{_WHO[setting]} has a 95 % interval of {_interval(apart)} points; over "
        f"{count(draws, 'random order')} alone their miss rate runs from {low:.1f} to {high:.1f}, "
        f"and an order that is itself random lies above all of them in one case of {draws + 1}."
    )


def _over_seeds(trials: Sequence[tuple[Trial, Removed]]) -> list[str]:
    """Of each detector that was trained with several seeds: whether all of them agree."""
    found = []
    for names, some in groupby(trials, key=lambda each: (each[0].label, each[0].where)):
        who, removals = ", ".join(filter(None, names)), [removed for _, removed in some]
        if len(removals) < 2:
            continue
        parts = []
        for name in SETTINGS:
            values = [r.targeted_less_random[name].value for r in removals if name in r.targeted]
            if len(values) == len(removals):
                mean = mean_of(values)
                parts.append(f"{_WHO[name]} {signed(mean.value)} ({_interval(mean)})")
        found.append(
            f"{who}, {len(removals)} networks: points that targeting costs more than random "
            f"channels, mean and 95 % interval over networks: {listing(parts)}."
        )
    return found


def _interval(apart: Estimate) -> str:
    return "-" if apart.ends is None else f"{signed(apart.ends[0])} to {signed(apart.ends[1])}"


def _table(trial: Trial, removed: Removed) -> Table:
    """The rows of Table S1 and its controls, and the differences that it leaves to its reader."""
    paper = TABLE_S1[trial.detector]
    intervals = {"": trial.rates, TARGETED: removed.targeted, **removed.controls}

    def cell(order: str, place: int, name: str) -> Cell | None:
        if name not in trial.rates:
            return None
        mean, low, high = removed.band(order or TARGETED, removed.count if order else 0, name)
        interval = intervals[order][name] if order in intervals else Estimate(mean, low, high)
        return Cell(
            number(mean),
            paper=number(paper[order][place]) if order in paper else "",
            lines=(_between(interval),),
            bar=Bar(mean, trial.rates[name].value),
        )

    def cells(order: str) -> list[Cell | None]:
        return [cell(order, place, name) for place, name in enumerate(SETTINGS)]

    def apart(found: dict[str, Estimate], papers: Sequence[str]) -> list[Cell | None]:
        return [
            Cell(signed(one.value), paper=paper, lines=(_interval(one),))
            if (one := found.get(name))
            else None
            for name, paper in zip(SETTINGS, papers, strict=True)
        ]

    draws = count(len(removed.draws), "order")
    share = f"{removed.count} of {removed.channels}"
    notes = {RANDOM: draws, MATCHED: f"{draws}, deviating as Equation 2's", TARGETED: "Equation 2"}
    rows = [Row("Nothing removed", cells(""), colour="ink")]
    for line in removed.lines:
        mode = mode_of(line)
        label = "By position" if line == TARGETED else mode.label
        note = f"{share}, {notes.get(line, mode.note)}"
        rows.append(Row(label, cells(line), colour=mode.colour, notes=(note,)))
    papers = [
        signed(one - other) for one, other in zip(paper[TARGETED], paper[RANDOM], strict=True)
    ]
    for line, differences, told in (
        (RANDOM, removed.targeted_less_random, papers),
        (MATCHED, removed.targeted_less_matched, [""] * len(SETTINGS)),
    ):
        if differences:
            note = f"by position less {line}"
            rows.append(Row("Difference", apart(differences, told), notes=(note, "in points")))
    columns = [
        Column(name, aside=f"{trial.pedestrians.get(name, 0)} pedestrians") for name in SETTINGS
    ]
    return Table(trial.label, columns, [Section(rows)], title=trial.title)


def _between(one: Estimate) -> str:
    return "" if one.ends is None else f"{number(one.ends[0])} to {number(one.ends[1])}"


def _scored(trials: Sequence[Trial]) -> list[Block]:
    """Detectors and files of detections as they are."""
    found: list[Block] = [Heading("Which pedestrians are missed?", level=1)]
    for trial in trials:
        setting = trial.settings[0]
        one = trial.rates[setting]
        found.append(
            Finding(
                f"{trial.title}: {percent(one.value)} of {_WHO[setting]} are missed. The 95 % "
                f"interval over {count(trial.images, 'image')} is {_between(one)}."
            )
        )
    rows = [
        Row(trial.title, [_rate(trial, place) for place in range(len(SETTINGS))])
        for trial in trials
    ]
    columns = [Column(name) for name in SETTINGS]
    found += [
        Note(_ABOUT),
        Table("Detector", columns, [Section(rows)]),
        Note(
            "Beside a miss rate its 95 % interval over images; in parentheses the paper's.",
            where="both",
        ),
        *curves(trials),
    ]
    for trial in trials:
        found += [Heading(trial.title, level=3), *pictures(trial)] if trial.detector else []
    return found


def _rate(trial: Trial, place: int) -> Cell | None:
    one = trial.rates.get(SETTINGS[place])
    if one is None:
        return None
    paper = number(TABLE_S1[trial.detector][""][place]) if trial.paper else ""
    return Cell(number(one.value), _between(one), paper, bar=Bar(one.value))
