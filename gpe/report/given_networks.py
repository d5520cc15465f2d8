"""Runs that examine a given network: each is a group of its own, under a title that is its own."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from gpe.errors import InputError
from gpe.records import RECORD
from gpe.report.runs import Run

Found = TypeVar("Found")

_TITLE = ("data", "split", "network", "layer")


def each(runs: Sequence[Run], read: Callable[[Run], Found]) -> list[tuple[str, Found]]:
    """What ``read`` makes of each of ``runs``, under a title that tells it from the others.

    Raises:
        InputError: a record lacks what ``read`` looks for.
    """
    # A run and a copy of it are one measurement.
    runs = list({str(run.record.config): run for run in runs}.values())
    titles = _titles([run.record.config for run in runs])
    return [(title, _checked(run, read)) for title, run in zip(titles, runs, strict=True)]


def _checked(run: Run, read: Callable[[Run], Found]) -> Found:
    try:
        return read(run)
    except InputError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        path, experiment = run.directory / RECORD, run.record.experiment
        article = "an" if experiment[0] in "aeiou" else "a"
        raise InputError(f"{path} is not {article} {experiment} record: {error!r}") from None


def _titles(configs: Sequence[dict[str, Any]]) -> list[str]:
    names = [", ".join(str(config[o]) for o in _TITLE if o in config) for config in configs]
    alike = defaultdict(list)
    for name, config in zip(names, configs, strict=True):
        alike[name].append(config)
    return [
        ", ".join((name, *_differences(config, alike[name])))
        for name, config in zip(names, configs, strict=True)
    ]


def _differences(config: dict[str, Any], others: Sequence[dict[str, Any]]) -> list[str]:
    options = [name for name in config if len({str(other.get(name)) for other in others}) > 1]
    return [f"{name.replace('_', ' ')} {config[name]}" for name in options]
