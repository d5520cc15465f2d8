"""Runs, and the table of them that every experiment gets: what was run, and how to repeat it."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from gpe.errors import InputError
from gpe.records import RECORD, Record
from gpe.report.blocks import Block, Cell, Column, Facts, Heading, Note, Row, Section, Table

Found = TypeVar("Found")

# Columns of every table, even where all runs agree; the rest are columns where runs differ.
_ALWAYS = ("best test accuracy", "last test accuracy", "seconds", "images per second")
_LONG = 6  # a list of more is shortened


@dataclass(frozen=True)
class Run:
    """A record and the directory it lies in, or its file and its number there."""

    directory: Path
    record: Record

    @classmethod
    def load(cls, directory: Path) -> "Run":
        return cls(Path(directory), Record.load(Path(directory)))

    def read(self, reader: Callable[["Run"], Found]) -> Found:
        """What ``reader`` makes of it.

        Raises:
            InputError: the record lacks what ``reader`` looks for.
        """
        try:
            return reader(self)
        except InputError:
            raise
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            path, experiment = self.directory, self.record.experiment
            path = path / RECORD if path.is_dir() else path
            article = "an" if experiment[0] in "aeiou" else "a"
            raise InputError(f"{path} is not {article} {experiment} record: {error!r}") from None


def runs_blocks(runs: Sequence[Run]) -> list[Block]:
    """What the runs have in common, said once, and a table of that in which they differ."""
    facts = [dict(_facts(run.record)) for run in runs]
    names = list(dict.fromkeys(name for fact in facts for name in fact))
    texts = [{name: _text(fact.get(name)) for name in names} for fact in facts]
    columns = [name for name in names if name in _ALWAYS or len({text[name] for text in texts}) > 1]
    rows = [
        Row(name, [Cell(text[column]) for column in columns])
        for name, text in zip(_names(runs), texts, strict=True)
    ]
    return [
        Heading("The runs"),
        Note(
            "First what all of them share, then a row for each with what differs. Together that is "
            "the configuration to run again."
        ),
        Facts([(name, texts[0][name]) for name in names if name not in columns]),
        Table("run", [*map(Column, columns)], [Section(rows)], style="plain", where="page"),
    ]


def _facts(record: Record) -> Iterator[tuple[str, Any]]:
    """Configuration, result and circumstances of a run as flat (name, value) pairs."""
    for name, value in record.config.items():
        if not name.endswith("digest"):  # which tells a reader nothing
            yield name, value
    for name, value in record.result.items():
        if name in ("best", "last") and isinstance(value, dict):
            yield from ((f"{name} {_spaced(key)}", item) for key, item in value.items())
        elif not isinstance(value, (dict, list)):  # those have their place in the section
            yield _spaced(name), value
    for name, value in record.run.items():
        if isinstance(value, dict):
            yield from value.items()
        elif not isinstance(value, list):
            yield _spaced(name), value


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _text(value: Any) -> str:
    if value is None or value in ("", []):
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, list):
        shown = value if len(value) <= _LONG else [*value[:2], "…", value[-1]]
        number = f" ({len(value)})" if len(value) > _LONG else ""
        return ", ".join(map(str, shown)) + number
    return str(value)


def _names(runs: Sequence[Run]) -> list[str]:
    """Directories relative to the one above them all, which is nobody else's business."""
    paths = [run.directory.resolve() for run in runs]
    top = os.path.commonpath([path.parent for path in paths])
    return [os.path.relpath(path, top) for path in paths]
