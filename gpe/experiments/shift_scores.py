"""Accuracy and consistency under shifts as records hold them: averages, tables and Figure S2."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import NamedTuple

from gpe.experiments.shifts import PAPER_SHIFTS
from gpe.records import Record
from gpe.report.blocks import Bar, Block, Cell, Column, Key, Legend, Note, Plot, Plots
from gpe.report.plots import BandLine, by_shift
from gpe.report.words import number
from gpe.statistics import Estimate, mean_of


class Score(NamedTuple):
    """Consistency with its 95 % interval over images, and accuracy on the shifted images."""

    consistency: float
    low: float
    high: float
    accuracy: float | None


@dataclass(frozen=True)
class Scores:
    """What a run scored, in percent.

    Attributes:
        top1: accuracy on images that are not shifted, None where it was not measured.
        by_shift: by the largest shift in pixels.
        paper_top1: the paper's accuracy, or None.
        paper_by_shift: the paper's consistencies.
    """

    top1: float | None
    by_shift: dict[int, Score]
    paper_top1: float | None = None
    paper_by_shift: dict[int, float] = field(default_factory=dict)

    @property
    def headline(self) -> int:
        """The one shift to tell of: 8 pixels, as the paper does, or else the largest."""
        first = PAPER_SHIFTS[0]
        return first if first in self.by_shift else max(self.by_shift)


def read_shifts(record: Record) -> dict[int, Score]:
    """The scores in a record, by shift.

    Raises:
        KeyError, TypeError, ValueError: one of ``config["shifts"]`` is not there.
    """
    rows = {int(row["shift"]): row for row in record.result["consistency"]}
    found = {
        int(shift): Score(
            float(rows[shift]["consistency"]),
            float(rows[shift]["low"]),
            float(rows[shift]["high"]),
            None if rows[shift]["accuracy"] is None else float(rows[shift]["accuracy"]),
        )
        for shift in sorted(record.config["shifts"])
    }
    if not found:
        raise ValueError("no shifts")
    return found


def consistency_of(seeds: Sequence[Scores], shift: int) -> Estimate:
    """Mean over seeds with the interval over seeds; of one seed, with that over images."""
    scores = [seed.by_shift[shift] for seed in seeds]
    if len(scores) == 1:
        return Estimate(scores[0].consistency, scores[0].low, scores[0].high)
    return mean_of([score.consistency for score in scores])


def shown_shifts(rows: Iterable[Scores], room: int) -> list[int]:
    """The shifts that a table with ``room`` columns for them shows: the paper's, then others."""
    measured = {shift for row in rows for shift in row.by_shift}
    chosen = sorted(measured, key=lambda shift: (shift not in PAPER_SHIFTS, shift))[:room]
    return sorted(chosen)


def columns_of(trials: Sequence[Scores], chance: float, roomless: int) -> list[Column]:
    """Accuracy, then consistency by shift; a page shows ``roomless`` of these."""
    measured = sorted({shift for trial in trials for shift in trial.by_shift})
    shown = shown_shifts(trials, roomless)
    return [
        Column("accuracy", aside=f"guessing {chance:.1f}"),
        *(
            Column(f"Cons.{shift}", aside=f"maximum shift {shift} px", roomy=shift not in shown)
            for shift in measured
        ),
    ]


def cells(seeds: Sequence[Scores], columns: Sequence[Column], chance: float) -> list[Cell | None]:
    """A row of a table: accuracy, then consistency by shift; None is no number."""
    shifts = [int(column.text.removeprefix("Cons.")) for column in columns[1:]]
    accuracy = None
    top1 = [seed.top1 for seed in seeds if seed.top1 is not None]
    if len(top1) == len(seeds):
        accuracy = _cell(mean_of(top1), seeds[0].paper_top1, None, chance)
    return [accuracy, *(_consistency_cell(seeds, shift) for shift in shifts)]


def _consistency_cell(seeds: Sequence[Scores], shift: int) -> Cell | None:
    if shift not in seeds[0].by_shift:
        return None
    shifted = [seed.by_shift[shift].accuracy for seed in seeds]
    correct = [share for share in shifted if share is not None]
    return _cell(
        consistency_of(seeds, shift),
        seeds[0].paper_by_shift.get(shift),
        fmean(correct) if len(correct) == len(seeds) else None,
        None,
    )


def _cell(
    estimate: Estimate, paper: float | None, shifted: float | None, mark: float | None
) -> Cell:
    return Cell(
        number(estimate.value),
        spread="" if estimate.half is None else f"± {number(estimate.half)}",
        paper="" if paper is None else number(paper),
        lines=() if shifted is None else (f"shifted {number(shifted)}",),
        bar=Bar(estimate.value, mark),
    )


SCORE_NOTES = (
    Note(
        "In percent. Cons.m is the share of images whose answer is the same under two random "
        "shifts of at most m pixels in each axis; small, the accuracy on these shifted images. ± "
        "is half of a 95 % interval: over seeds where a row has several (Student's t), over images "
        "where it has one; accuracy of one seed has none. The tick on a bar is guessing."
    ),
    Note(
        "In percent. Cons.m: the same answer under two random shifts of at most m pixels; shifted: "
        "accuracy on these shifted images. ±: half of the 95 % interval, over seeds, of one seed "
        "over images.",
        where="terminal",
    ),
)


def shift_figure(lines: Mapping[str, BandLine]) -> list[Block]:
    """Consistency by shift, a line for each name."""
    keys = [Key(name, line.colour, dashes=line.dashes) for name, line in lines.items()]
    if any(line.paper for line in lines.values()):
        keys.append(Key("the paper's", shape="diamond"))
    return [Legend(keys), Plots([Plot(by_shift(list(lines.values())))], "wide")]


def points(seeds: Sequence[Scores]) -> dict[float, tuple[float, float, float]]:
    """By shift: mean and both ends of its interval, for a figure."""
    found: dict[float, tuple[float, float, float]] = {}
    for shift in seeds[0].by_shift:
        estimate = consistency_of(seeds, shift)
        low, high = estimate.ends or (estimate.value, estimate.value)
        found[shift] = (estimate.value, max(low, 0.0), min(high, 100.0))
    return found
