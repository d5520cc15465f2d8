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
from gpe.report.runs import Run, runs_blocks

# By what records are called, the folder whose report draws them.
_FOLDERS = {name: folder for folder, names in EXPERIMENTS.items() for name in names}


def write_report(directories: Sequence[Path], path: Path) -> None:
    """Write one self-contained HTML page about the runs in ``directories``.

    The page loads nothing from anywhere, needs no scripts, follows the reader's light or dark
    setting, and is written whole or not at all. An experiment that this version does not know gets
    a plain table of its runs.

    Args:
        directories: each holds ``record.json``, as :func:`gpe.records.find` returns them;
            pictures are drawn where ``arrays.safetensors`` lies beside it.
        path: the HTML file to write.

    Raises:
        InputError: no directories, none with a sound record, or a ``path`` that is a directory.
    """
    if not directories:
        raise InputError("directories: expected at least one run, got none")
    if path.is_dir():
        raise InputError(f"path: expected a file to write, got the directory {path}")
    parts = [
        [*_blocks(name, runs), *runs_blocks(runs)]
        for name, runs in _by_experiment(directories).items()
    ]
    count = f"{len(directories)} run{'s' if len(directories) > 1 else ''}"
    footer = f"Written by gpe on {date.today()} from {count.replace('run', 'record')}."
    page = html.page(parts, title=f"gpe: {count}", footer=footer)
    with atomic(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def print_tables(directories: Sequence[Path], console: Console) -> None:
    """Prints what each experiment measured, the paper's values beside it."""
    _print(terminal.print_tables, directories, console)


def print_findings(directories: Sequence[Path], console: Console) -> None:
    """Prints what the runs show, in plain words."""
    _print(terminal.print_findings, directories, console)


def _print(
    show: Callable[[Sequence[Block], Console], None], directories: Sequence[Path], console: Console
) -> None:
    for name, runs in _by_experiment(directories).items():
        if name in _FOLDERS:
            show(_blocks(name, runs), console)


def _by_experiment(directories: Sequence[Path]) -> dict[str, list[Run]]:
    """Runs by what their records are called: those that are known in the order of commands."""
    found = defaultdict(list)
    for directory in directories:
        run = Run.load(directory)
        found[run.record.experiment].append(run)
    order = list(_FOLDERS)
    return dict(sorted(found.items(), key=lambda item: [*order, item[0]].index(item[0])))


def _blocks(name: str, runs: Sequence[Run]) -> list[Block]:
    if name not in _FOLDERS:
        text = "This report knows no pictures for this experiment; its runs are listed below."
        return [Heading(name, level=1), Finding(text)]
    return import_module(f"gpe.experiments.{_FOLDERS[name]}.report").blocks(runs)
