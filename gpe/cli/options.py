"""What the commands share: how options are declared and read, and how records are printed."""

# torch takes seconds to import, so that what needs it is imported where it is used.
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from gpe.errors import InputError

# What an experiment is told beside its configuration.
PLACES = ("root", "download", "workers", "out", "resume", "force")


def option(help: str, *names: str, **settings: Any):
    return typer.Option(*names, help=help, **settings)


def preset_option(help: str, *names: str):
    return option(help, *names, show_default="preset's", rich_help_panel="Hyperparameters")


def divide(arguments: Mapping[str, Any], *others: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parts a command's arguments, its ``locals()``, into a configuration's options and ``PLACES``.

    The device is chosen; ``as_json`` and ``others`` are in neither part.
    """
    options = {name: arguments[name] for name in arguments if name not in (*others, "as_json")}
    options["device"] = choose_device(options["device"])
    return options, {name: options.pop(name) for name in PLACES if name in options}


def combinations(several: Mapping[str, Iterable]) -> Iterator[dict[str, Any]]:
    """Every combination of the values of some options; those of the first change slowest."""
    return (dict(zip(several, each, strict=True)) for each in product(*several.values()))


def values(name: str, text: str, kind: Callable = str) -> tuple:
    """``"3,5"`` as ``(3, 5)``."""
    try:
        return tuple(kind(word.strip()) for word in text.split(","))
    except ValueError:
        noun = "whole numbers" if kind is int else "numbers"
        raise InputError(f"{name}: expected {noun} separated by commas, got {text!r}") from None


def choose_device(name: str) -> str:
    """``auto`` is the first GPU, or the CPU where there is none."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


@contextmanager
def telling(first: str) -> Iterator[Callable[[str], None]]:
    """Says what is being done: in one line on a terminal, in a line each in a file."""
    console = Console(stderr=True)
    with console.status(first) as status:

        def tell(text: str) -> None:
            status.update(text) if console.is_terminal else console.print(
                text, markup=False, highlight=False, soft_wrap=True
            )

        yield tell


def print_runs(directories: Sequence[Path], out: Path, as_json: bool) -> None:
    """The records as they are, or as a table."""
    from gpe.records import RECORD
    from gpe.report.terminal import print_table

    if as_json:
        records = [json.loads((directory / RECORD).read_text()) for directory in directories]
        typer.echo(json.dumps(records if len(records) > 1 else records[0], indent=2))
        return
    # In a file a table may be wide; rich would squeeze it into 80 columns.
    print_table(directories, Console(width=None if sys.stdout.isatty() else 200))
    typer.echo(f"Records in {out}; `gpe report {out}` draws them.")
