"""Runs that examine a given network: each is a group of its own, under a title that is its own."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from gpe.report.runs import Found, Run, distinct

_TITLE = ("data", "split", "network", "layer")
# By what to tell apart those that agree in that, before any other option.
_FIRST = ("preset", "checkpoint", "size", "seed")


def each(runs: Sequence[Run], read: Callable[[Run], Found]) -> list[tuple[str, Found]]:
    """What ``read`` makes of each of ``runs``, under a title that tells it from the others.

    Raises:
        InputError: a record lacks what ``read`` looks for.
    """
    runs = distinct(runs)
    titles = _titles([run.record.config for run in runs])
    return [(title, run.read(read)) for title, run in zip(titles, runs, strict=True)]


def _titles(configs: Sequence[dict[str, Any]]) -> list[str]:
    names = [", ".join(str(config[o]) for o in _TITLE if o in config) for config in configs]
    options = list(dict.fromkeys((*_FIRST, *(option for config in configs for option in config))))
    for option in options:
        alike = defaultdict(set)
        for name, config in zip(names, configs, strict=True):
            alike[name].add(str(config.get(option)))
        names = [
            f"{name}, {option.replace('_', ' ')} {config.get(option)}"
            if names.count(name) > 1 and len(alike[name]) > 1
            else name
            for name, config in zip(names, configs, strict=True)
        ]
    return names
