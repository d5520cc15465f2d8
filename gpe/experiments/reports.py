"""Records of any number of runs, of any experiments, as one HTML page or on a terminal."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from importlib import import_module
from pathlib import Path
from warnings import warn

from rich.console import Console

from gpe.errors import InputError
from gpe.experiments import EXPERIMENTS
from gpe.records import atomic, load_all
from gpe.report import html, terminal
from gpe.report.blocks import Block, Finding, Heading
from gpe.report.runs import Run, runs_blocks
from gpe.report.words import count

# By what records are called, the folder whose report draws them.
_FOLDERS = {name: folder for folder, names in EXPERIMENTS.items() for name in names}


def write_report(paths: Sequence[Path], path: Path, tell: Callable[[str], None] = warn) -> int:
    """Write one self-contained HTML page about the runs at or below ``paths``.

    The page loads nothing from anywhere, needs no scripts, follows the reader's light or dark
    setting, and is written whole or not at all. An experiment that this version does not know gets
    a plain table of its runs. A record that cannot be read or drawn is named and passed over.

    Args:
        paths: directories that hold ``record.json``, at any depth; pictures are drawn where
            ``arrays.safetensors`` lies beside it.
        path: the HTML file to write.
        tell: takes a line for each record that is passed over, and for each copy of another.

    Returns:
        How many runs are on the page.

    Raises:
        InputError: no directories, none with a record that can be drawn, or a ``path`` that is a
            directory.
    """
    if path.is_dir():
        raise InputError(f"path: expected a file to write, got the directory {path}")
    records, notes = load_all(paths)
    drawn = list(_drawn([Run(*found) for found in records.items()], notes.append))
    number = sum(len(runs) for _, runs, _ in drawn)
    parts = [[*blocks, *runs_blocks(runs)] for _, runs, blocks in drawn]
    if notes:
        lines = [Finding(note, lead=False) for note in notes]
        parts.append([Heading("Passed over", level=1), *lines])
    for note in notes:
        tell(note)
    footer = f"Written by gpe on {date.today()} from {count(number, 'record')}."
    page = html.page(parts, title=f"gpe: {count(number, 'run')}", footer=footer)
    with atomic(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="replace")
    return number


def print_tables(directories: Sequence[Path], console: Console) -> None:
    """Prints what each experiment measured, the paper's values beside it."""
    _print(terminal.print_tables, directories, console)


def print_findings(directories: Sequence[Path], console: Console) -> None:
    """Prints what the runs show, in plain words."""
    _print(terminal.print_findings, directories, console)


def _print(
    show: Callable[[Sequence[Block], Console], None], directories: Sequence[Path], console: Console
) -> None:
    for name, _, blocks in _drawn([Run.load(each) for each in directories], warn):
        if name in _FOLDERS:
            show(blocks, console)


def _drawn(
    runs: Sequence[Run], tell: Callable[[str], None]
) -> Iterator[tuple[str, list[Run], list[Block]]]:
    """Experiment by experiment, those that are known in the order of commands: runs and blocks.

    Raises:
        InputError: no run can be drawn.
    """
    found = defaultdict(list)
    for run in runs:
        found[run.record.experiment].append(run)
    order = [*_FOLDERS, *found]
    failed: list[InputError] = []
    sound = 0
    for name in sorted(found, key=order.index):
        try:
            good, blocks = found[name], _blocks(name, found[name])
        except InputError:
            good = []
            for run in found[name]:
                try:
                    _blocks(name, [run])
                    good.append(run)
                except InputError as error:
                    failed.append(error)
            blocks = _blocks(name, good) if good else []
        sound += len(good)
        if good:
            yield name, good, blocks
    if failed and not sound:
        raise failed[0]
    for why in failed:
        tell(f"{why}; it is left out")


def _blocks(name: str, runs: Sequence[Run]) -> list[Block]:
    if name not in _FOLDERS:
        text = "This report knows no pictures for this experiment; its runs are listed below."
        return [Heading(name, level=1), Finding(text)]
    return import_module(f"gpe.experiments.{_FOLDERS[name]}.report").blocks(runs)
