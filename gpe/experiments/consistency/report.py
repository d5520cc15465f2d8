"""What `gpe consistency` found: given networks beside one another, by shift."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gpe.experiments.shift_scores import (
    SCORE_NOTES,
    Scores,
    cells,
    columns_of,
    consistency_of,
    points,
    read_shifts,
    shift_figure,
)
from gpe.report.blocks import Block, Finding, Heading, Note, Row, Section, Table
from gpe.report.grouping import grouped, recipe, with_variants
from gpe.report.plots import DASHES, BandLine
from gpe.report.runs import Run
from gpe.report.words import count, listing, percent, random_shifts

_COLOURS = ("blue", "red", "teal", "orange", "grey")
_RECIPE = ("images", "image_size", "resize_size", "passes")
_SHOWN = 6  # shifts in a page's table


@dataclass(frozen=True)
class Trial:
    """One network, scored on one folder.

    Attributes:
        weights: where they came from; empty where that is not said.
        protocol: what comes in where a shifted image leaves: a name of ``gpe.metrics``.
        variant: how it differs, but for the seed, from others of the same network.
    """

    config: dict[str, Any]
    data: str
    protocol: str
    model: str
    weights: str
    scores: Scores
    chance: float
    variant: str = ""


def blocks(runs: Sequence[Run]) -> list[Block]:
    """The report of given networks, by data and protocol.

    Raises:
        InputError: a record lacks what a consistency record has.
    """
    trials = [run.read(_read) for run in runs]
    groups = [
        with_variants(table, cell=("model", "weights"))
        for table in grouped(trials, "data", "protocol").values()
    ]
    found: list[Block] = [
        Heading("Given networks: does the answer stay when the image moves?", level=1)
    ]
    found += [Finding(" ".join(findings(group))) for group in groups]
    for group in groups:
        title = f"{group[0].data}, protocol {group[0].protocol}"
        found += [
            Heading(title, level=3),
            Note(f"{recipe(group, _RECIPE)}."),
            _table(group, title),
            *SCORE_NOTES,
            *shift_figure(_lines(group)),
            Note("Bands are 95 % intervals, as ± in the table."),
        ]
        if all(trial.scores.top1 is None for trial in group):
            found.append(
                Note("No accuracy: the images have no labels that the network knows.", "both")
            )
    return found


def findings(trials: Sequence[Trial]) -> list[str]:
    """A sentence for each shift that is reported, with all networks that were put to it."""
    networks = defaultdict(list)
    for row in _rows(trials):
        scores = [trial.scores for trial in row]
        shift = scores[0].headline
        estimate = consistency_of(scores, shift)
        share = percent(estimate.value)
        if estimate.ends:
            share += " (95\u00a0% interval {:.1f} to {:.1f})".format(*estimate.ends)
        networks[shift].append(f"{share} with {_name(row[0], trials)}")
    return [
        f"Images that keep their answer under {random_shifts(shift)}: {listing(shares)}."
        for shift, shares in networks.items()
    ]


def _table(trials: Sequence[Trial], title: str) -> Table:
    """Rows of networks; columns of accuracy and of consistency."""
    columns = columns_of([trial.scores for trial in trials], trials[0].chance, _SHOWN)
    rows = []
    for place, row in enumerate(_rows(trials)):
        scores = [trial.scores for trial in row]
        rows.append(
            Row(
                row[0].model,
                cells(scores, columns, trials[0].chance),
                colour=_COLOURS[place % len(_COLOURS)],
                notes=(*_notes(row[0]), count(len(row), "seed")),
            )
        )
    return Table("Network", columns, [Section(rows)], title=title)


def _lines(trials: Sequence[Trial]) -> dict[str, BandLine]:
    found = {}
    for place, row in enumerate(_rows(trials)):
        dashes, colour = divmod(place, len(_COLOURS))
        found[_name(row[0], trials)] = BandLine(
            points=points([trial.scores for trial in row]),
            paper={},
            colour=_COLOURS[colour],
            dashes=DASHES[dashes % len(DASHES)],
        )
    return found


def _rows(trials: Iterable[Trial]) -> Collection[list[Trial]]:
    return grouped(trials, "model", "weights", "variant").values()


def _notes(trial: Trial) -> list[str]:
    return list(filter(None, (trial.weights, trial.variant)))


def _name(trial: Trial, trials: Sequence[Trial]) -> str:
    """Of its row, with what tells it apart from others of its model."""
    rows = _rows(other for other in trials if other.model == trial.model)
    return trial.model if len(rows) == 1 else f"{trial.model} ({', '.join(_notes(trial))})"


def _read(run: Run) -> Trial:
    record, config = run.record, run.record.config
    accuracy = record.result["accuracy"]
    return Trial(
        config=config,
        data=str(config["data"]),
        protocol=str(config["protocol"]),
        model=str(config["model"]),
        weights="" if config["weights"] is None else str(config["weights"]),
        scores=Scores(None if accuracy is None else float(accuracy), read_shifts(record)),
        chance=float(record.chance),
    )
