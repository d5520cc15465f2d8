"""What was mapped of frozen networks, on a terminal."""

from collections.abc import Iterator, Sequence

from rich.markup import escape
from rich.table import Table

from gpe.report.atlas import SHOWN, Channel, Trial, bits, interval, scored, tables
from gpe.report.runs import Run
from gpe.report.words import signed

_TOP = 10


def atlas_tables(runs: Sequence[Run]) -> Iterator[str | Table]:
    """Each network's most informative channels, and the first ones of each region."""
    for trial in tables(runs):
        rho, low, high = (signed(value, 2) for value in trial.correlation)
        yield f"{trial.name}, {trial.layer}: {trial.grid}×{trial.grid} cells"
        yield _information_table(trial)
        yield (
            f"Once cells are shuffled, at most {bits(trial.noise)}: {trial.above_noise} of "
            f"{trial.channels} channels tell more. Spearman correlation with Equation 2: {rho} "
            f"({low} to {high})."
        )
        if trial.regions:
            yield _region_table(trial)
    yield (
        "In parentheses 95 % intervals over images. Regions: by how much more a channel responds "
        "inside than outside."
    )


def _information_table(trial: Trial) -> Table:
    shown = Table()
    for heading in ("channel", "information", "highest in cell"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for channel, score in trial.informative[:_TOP]:
        row, column = divmod(int(trial.maps[channel].argmax()), trial.grid)
        place = f"row {row + 1}, column {column + 1}"
        shown.add_row(str(channel), f"{bits(score.value)} ({interval(score)})", place)
    return shown


def _region_table(trial: Trial) -> Table:
    shown = Table()
    shown.add_column("region")
    for rank in range(min(SHOWN, trial.channels)):
        shown.add_column(str(rank + 1), justify="right")
    for name, (cells, top) in trial.regions.items():
        shown.add_row(f"{escape(name)}\ncells {escape(cells)}", *map(_cell, top))
    return shown


def _cell(channel: Channel) -> str:
    score, ends = scored(channel.score)
    return f"{channel.number}: {score}\n({ends})"
