"""Accuracy and consistency under shifts as records hold them, averaged for tables and figures."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, NamedTuple

from gpe.records import Record
from gpe.statistics import Estimate, mean_of

# The shifts of Table 2: the first to be told of.
_OF_THE_PAPER = (8, 16)


class Score(NamedTuple):
    """Consistency with its 95 % interval over images, and accuracy on the shifted images."""

    consistency: float
    low: float
    high: float
    accuracy: float


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
        first = _OF_THE_PAPER[0]
        return first if first in self.by_shift else max(self.by_shift)


def read_shifts(record: Record) -> dict[int, Score]:
    """The scores in a record, by shift.

    Raises:
        KeyError, TypeError, ValueError: one of ``config["shifts"]`` is not there.
    """
    rows = {int(row["shift"]): row for row in record.result["consistency"]}
    found = {
        int(shift): Score(*(float(rows[shift][name]) for name in Score._fields))
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
    chosen = sorted(measured, key=lambda shift: (shift not in _OF_THE_PAPER, shift))[:room]
    return sorted(chosen)


def cells(seeds: Sequence[Scores], shifts: Sequence[int]) -> list[dict[str, Any] | None]:
    """A row of a table: accuracy, then consistency for each of ``shifts``; None is no number."""
    accuracy = None
    if all(seed.top1 is not None for seed in seeds):
        top1 = mean_of([seed.top1 for seed in seeds])
        accuracy = _cell(top1, paper=seeds[0].paper_top1, shifted=None)
    return [accuracy, *(_consistency_cell(seeds, shift) for shift in shifts)]


def _consistency_cell(seeds: Sequence[Scores], shift: int) -> dict[str, Any] | None:
    if shift not in seeds[0].by_shift:
        return None
    return _cell(
        consistency_of(seeds, shift),
        paper=seeds[0].paper_by_shift.get(shift),
        shifted=fmean(seed.by_shift[shift].accuracy for seed in seeds),
    )


def _cell(estimate: Estimate, *, paper: float | None, shifted: float | None) -> dict[str, Any]:
    return {"mean": estimate.value, "half": estimate.half, "paper": paper, "shifted": shifted}


def points(seeds: Sequence[Scores]) -> dict[int, tuple[float, float, float]]:
    """By shift: mean and both ends of its interval, for a figure."""
    found = {shift: consistency_of(seeds, shift) for shift in seeds[0].by_shift}
    return {
        shift: (mean, max(low, 0.0), min(high, 100.0)) for shift, (mean, low, high) in found.items()
    }
