"""Records of any number of runs, of any experiments, as one HTML page or on a terminal."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import date
from importlib import import_module
from pathlib import Path

from rich.console import Console

from gpe.errors import InputError
from gpe.experiments import EXPERIMENTS
from gpe.records import atomic
from gpe.report import html, terminal
from gpe.report.blocks import Block, Finding, Heading
from gpe.report.runs import Run, distinct, runs_blocks

# By what records are called, the folder whose report draws them.
_FOLDERS = {name: folder for folder, names in EXPERIMENTS.items() for name in names}


def write_report(directories: Sequence[Path], path: Path) -> list[str]:
    """Write one self-contained HTML page about the runs in ``directories``.

    The page loads nothing from anywhere, needs no scripts, follows the reader's light or dark
    setting, and is written whole or not at all. An experiment that this version does not know gets
    a plain table of its runs.

    A record that cannot be read is named on the page and passed over; a copy counts once.

    Args:
        directories: each holds ``record.json``, as :func:`gpe.records.find` returns them;
            pictures are drawn where ``arrays.safetensors`` lies beside it.
        path: the HTML file to write.

    Returns:
        A line for each record that was passed over, and why.

    Raises:
        InputError: no directories, none with a sound record, or a ``path`` that is a directory.
    """
    if not directories:
        raise InputError("directories: expected at least one run, got none")
    if path.is_dir():
        raise InputError(f"path: expected a file to write, got the directory {path}")
    drawn, notes = _drawn(directories)
    parts: list[list[Block]] = [[*blocks, *runs_blocks(runs)] for blocks, runs in drawn.values()]
    if notes:
        parts.append(
            [Heading("Passed over", level=1), *(Finding(note, lead=False) for note in notes)]
        )
    count = sum(len(runs) for _, runs in drawn.values())
    noun = "run" if count == 1 else "runs"
    footer = f"Written by gpe on {date.today()} from {count} {noun.replace('run', 'record')}."
    page = html.page(parts, title=f"gpe: {count} {noun}", footer=footer)
    with atomic(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return notes


def print_tables(directories: Sequence[Path], console: Console) -> None:
    """Prints what each experiment measured, the paper's values beside it."""
    _print(terminal.print_tables, directories, console)


def print_findings(directories: Sequence[Path], console: Console) -> None:
    """Prints what the runs show, in plain words."""
    _print(terminal.print_findings, directories, console)


def _print(
    show: Callable[[Sequence[Block], Console], None], directories: Sequence[Path], console: Console
) -> None:
    drawn, notes = _drawn(directories)
    for name, (blocks, _) in drawn.items():
        if name in _FOLDERS:
            show(blocks, console)
    for note in notes:
        terminal.print_line(note, console)


Drawn = dict[str, tuple[list[Block], list[Run]]]  # blocks and runs, by what records are called


def _drawn(directories: Sequence[Path]) -> tuple[Drawn, list[str]]:
    """What experiments show of their runs, in the order of commands; and who was passed over.

    Raises:
        InputError: no record can be read.
    """
    by_experiment: dict[str, list[Run]] = defaultdict(list)
    notes = []
    for directory in directories:
        try:
            run = Run.load(directory)
            by_experiment[run.record.experiment].append(run)
        except InputError as error:
            notes.append(str(error))
    order = list(_FOLDERS)
    drawn = {}
    for name in sorted(by_experiment, key=lambda name: [*order, name].index(name)):
        blocks, runs, odd = _blocks(name, distinct(by_experiment[name]))
        notes += odd
        if runs:
            drawn[name] = blocks, runs
    if not drawn:
        raise InputError(notes[0] if notes else "directories: expected at least one run, got none")
    return drawn, notes


def _blocks(name: str, runs: list[Run]) -> tuple[list[Block], list[Run], list[str]]:
    """Blocks of the runs that can be read, these, and why others cannot."""
    if name not in _FOLDERS:
        text = "This report knows no pictures for this experiment; its runs are listed below."
        return [Heading(name, level=1), Finding(text)], runs, []
    make = import_module(f"gpe.experiments.{_FOLDERS[name]}.report").blocks
    try:
        return make(runs), runs, []
    except InputError as error:
        if len(runs) == 1:
            return [], [], [str(error)]
    sound, odd = [], []
    for run in runs:
        *_, why = _blocks(name, [run])
        odd += why
        sound += [] if why else [run]
    return make(sound) if sound else [], sound, odd
