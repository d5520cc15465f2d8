"""Location runs on a terminal: the report's table and findings, without its pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gpe.report.location import findings, table
from gpe.report.location_trials import TASKS, by, read
from gpe.report.runs import Run


def print_table(directories: Sequence[Path], console: Console) -> None:
    """Prints Table 1 as measured, the paper's values beside it: one by data, preset and task."""
    for (preset, data, task), trials in by(_trials(directories), "preset", "data", "task").items():
        _print_line(f"{TASKS.get(task, task)} {data}, {preset} preset", console)
        console.print(_table(table(trials)))
    _print_line(
        "Best test accuracy in percent, as the paper reports it; in parentheses the paper's, "
        "on all of CIFAR-10.",
        console,
    )


def print_findings(directories: Sequence[Path], console: Console) -> None:
    """Prints what the runs show, in plain words."""
    for members in by(_trials(directories), "preset", "data").values():
        for sentences in findings(members).values():
            for sentence in sentences:
                _print_line(f"  {sentence}", console)


def _trials(directories: Sequence[Path]):
    return read([Run.load(directory) for directory in directories])


def _print_line(text: str, console: Console) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _table(content: dict[str, Any]) -> Table:
    shown = Table()
    shown.add_column("padding")
    shown.add_column("network")
    for grid, _ in content["columns"]:
        shown.add_column(f"{grid}×{grid}", justify="right", no_wrap=True)
    for padding, rows in content["paddings"].items():
        for row in rows:
            label = " ".join(filter(None, (row["label"], row["variant"])))
            shown.add_row(padding, escape(label), *map(_cell, row["cells"]))
        shown.add_section()
    return shown


def _cell(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return ""
    spread = f" ± {cell['spread']:.1f}" if cell["spread"] is not None else ""
    paper = f" ({cell['paper']:.1f})" if cell["paper"] is not None else ""
    return f"{cell['best']:.1f}{spread}{paper}"
