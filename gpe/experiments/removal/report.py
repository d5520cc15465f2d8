"""Reports of `gpe rank`, `gpe ablate` and the figures."""

from collections.abc import Callable, Sequence

from gpe.experiments.removal import classify_report, figure5_report, rank_report
from gpe.experiments.removal.config import MATCHED, PAPER_CHANNELS, RANDOM
from gpe.experiments.removal.figures import figures
from gpe.experiments.removal.findings import findings
from gpe.experiments.removal.modes import mode_of
from gpe.experiments.removal.trials import Trial, Value, each, read, top
from gpe.report.blocks import Bar, Block, Cell, Column, Finding, Heading, Note, Row, Section, Table
from gpe.report.grouping import recipe
from gpe.report.runs import Run
from gpe.report.words import count, listing, number

RECIPE = ("preset", "size", "batch_size", "precision", "seed")
_HEADINGS = {
    "ablate": "What does the network lose without these channels?",
    "figure4": "What do the channels that hold position do for the network?",
    "figure6": "Can one side of the image be hurt alone?",
}


def blocks(runs: Sequence[Run]) -> list[Block]:
    """The report of runs of one command.

    Raises:
        InputError: a record lacks what such a record has.
    """
    others: dict[str, Callable[[Sequence[Run]], list[Block]]] = {
        "rank": rank_report.blocks,
        "ablate-classify": classify_report.blocks,
        "figure5": figure5_report.blocks,
    }
    return others.get(runs[0].record.experiment, _ablated)(runs)


def _ablated(runs: Sequence[Run]) -> list[Block]:
    """What networks lose without some of their channels: `gpe ablate`, Figures 4 and 6."""
    trials = each(runs, read)
    found: list[Block] = [Heading(_HEADINGS[runs[0].record.experiment], level=1)]
    for title, trial in trials:
        for place, text in enumerate(findings(trial)):
            named = title if len(trials) > 1 and place == 0 else ""
            found.append(Finding(text, named, lead=place < 2))
    found.append(
        Note(
            "A ranking orders the channels of one layer by how much position they hold. The first "
            "N of an order are set to zero, the rest of the network stays as it is, and all images "
            "are segmented again. mIoU, in percent: intersection over union of predictions and "
            "labels, mean over the classes; of a region, only its pixels count."
        )
    )
    for title, trial in trials:
        found += _of_one(title, trial)
    about = "mIoU in percent, the paper's in parentheses. Random: mean, lowest and highest draw."
    return [*found, Note(about, where="terminal")]


def _of_one(title: str, trial: Trial) -> list[Block]:
    ranked = [
        f"{mode_of(name).label} {images}"
        for name, images in trial.ranked_on.items()
        if name in trial.rankings
    ]
    about = f"{recipe([trial], RECIPE)}. {trial.images} images; engine {trial.engine}."
    if ranked:
        about += f" Ranked on: {', '.join(ranked)} images."
    found: list[Block] = [Heading(title), Note(about), *_empty(trial)]
    if not trial.regions:
        return found
    draws = len(trial.draws)
    names = "Random and matched" if trial.matched else "Random"
    of_draws = f" {names}: mean of {draws} draws, below it the lowest and the highest."
    return [
        *found,
        *figures(trial),
        Heading("In numbers", level=3),
        _table(title, trial),
        Note(
            "mIoU in percent. The tick on a bar is the value with all channels."
            + (of_draws if draws > 1 else "")
        ),
    ]


def _empty(trial: Trial) -> list[Block]:
    if not trial.empty:
        return []
    text = f"No labelled pixel, and so no mIoU, in: {listing(trial.empty)}."
    return [Note(text, where="both")]


def _table(title: str, trial: Trial) -> Table:
    """Rows for nothing and for each count that is reported; columns of regions."""
    sections = [Section([_untouched(trial)])]
    for removed, counted in trial.told.items():
        heading = f"{removed} of {trial.channels} removed"
        if any(removal == top(counted) for _, removal, _ in trial.paper):
            exact = (removed, trial.channels) == (counted, PAPER_CHANNELS)
            heading += "" if exact else f"; the paper, {counted} of {PAPER_CHANNELS}"
        rows = [_row(trial, line, removed, counted) for line in trial.lines]
        sections.append(Section(rows, heading))
    columns = [Column(region) for region in trial.regions]
    return Table("Ranking", columns, sections, title=title)


def _untouched(trial: Trial) -> Row:
    def paper(region: str) -> float | None:
        names = (*trial.rankings, RANDOM)
        values = (trial.paper.get((name, top(0), region)) for name in names)
        return next((value for value in values if value is not None), None)

    cells = [
        _cell(Value(value, value, value), value, paper(region))
        for region, value in trial.baseline.items()
    ]
    return Row("Nothing removed", cells, colour="ink")


def _row(trial: Trial, line: str, removed: int, counted: int) -> Row:
    mode = mode_of(line)
    bands = {RANDOM: trial.draws, MATCHED: trial.matched}
    note = count(len(bands[line]), "draw") if line in bands else mode.note
    cells = [
        _cell(
            trial.value(line, top(removed), region),
            trial.baseline[region],
            trial.paper.get((line, top(counted), region)),
        )
        for region in trial.regions
    ]
    return Row(mode.label, cells, colour=mode.colour, aside=(note,) if note else ())


def _cell(value: Value, before: float, paper: float | None) -> Cell:
    band = f"{number(value.low)}\u2013{number(value.high)}"
    return Cell(
        number(value.mean),
        paper="" if paper is None else number(paper),
        lines=(band,) if value.low < value.high else (),
        bar=Bar(value.mean, before),
    )
