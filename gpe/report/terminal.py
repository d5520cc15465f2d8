"""Location runs on a terminal: the report's table and findings, without its pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from gpe.report.location import findings, table
from gpe.report.location_trials import TASKS, by, read
from gpe.report.runs import Run


def print_table(directories: Sequence[Path], console: Console) -> None:
    """Prints Table 1 as measured, the paper's values beside it; one for each data and preset."""
    for (preset, data), trials in by(_trials(directories), "preset", "data").items():
        console.print(_table(f"{data}, {preset} preset", table(trials)))
    console.print(
        "Best test accuracy in percent, as the paper reports it; in parentheses the paper's, "
        "on all of CIFAR-10.",
        style="dim",
    )


def print_findings(directories: Sequence[Path], console: Console) -> None:
    """Prints what the runs show, in plain words."""
    for members in by(_trials(directories), "preset", "data").values():
        for sentences in findings(members).values():
            for sentence in sentences:
                console.print(f"  {sentence}", highlight=False)


def _trials(directories: Sequence[Path]):
    return read([Run.load(directory) for directory in directories])


def _table(title: str, content: dict[str, Any]) -> Table:
    shown = Table(title=title, title_justify="left")
    shown.add_column("padding")
    shown.add_column("network")
    tasks = [task for task, count in content["tasks"].items() for _ in range(count)]
    names = {heading: task for task, heading in TASKS.items()}
    for task, (grid, _) in zip(tasks, content["columns"], strict=True):
        shown.add_column(f"{names.get(task, task)} {grid}×{grid}", justify="right")
    for padding, rows in content["paddings"].items():
        for row in rows:
            label = " ".join(filter(None, (row["label"], row["variant"])))
            shown.add_row(padding, label, *map(_cell, row["cells"]))
        shown.add_section()
    return shown


def _cell(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return ""
    spread = f" ± {cell['spread']:.1f}" if cell["spread"] is not None else ""
    paper = f" ({cell['paper']:.1f})" if cell["paper"] is not None else ""
    return f"{cell['best']:.1f}{spread}{paper}"
