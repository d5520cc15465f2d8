"""Trials in groups, in the order of the paper, and what tells apart those of one group."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any


def grouped(trials: Iterable[Any], *attributes: str, order: Sequence[str] = ()) -> dict:
    """Trials by their values of ``attributes``; texts in ``order`` first, then the others."""
    groups = defaultdict(list)
    for trial in trials:
        groups[tuple(getattr(trial, attribute) for attribute in attributes)].append(trial)

    def rank(value: str | float) -> tuple:
        if not isinstance(value, str):
            return (value,)
        return (order.index(value) if value in order else len(order), value)

    return dict(sorted(groups.items(), key=lambda group: [rank(value) for value in group[0]]))


def with_variants(
    trials: Sequence[Any], cell: Sequence[str], shown: Sequence[str] = ()
) -> list[Any]:
    """The trials of one table, told apart where more than the seed differs within a cell.

    Args:
        trials: dataclasses with ``config`` and ``variant``.
        cell: attributes that trials of one cell have in common.
        shown: options that the table shows anyhow.
    """
    cells = grouped(trials, *cell).values()
    options = {option for trial in trials for option in trial.config}
    differing = sorted(
        option
        for option in options - {"seed", *shown}
        if any(len({str(trial.config.get(option)) for trial in cell}) > 1 for cell in cells)
    )

    def variant(trial: Any) -> str:
        named = ((option.replace("_", " "), trial.config.get(option)) for option in differing)
        return ", ".join(f"{option} {value}" for option, value in named)

    return [replace(trial, variant=variant(trial)) for trial in trials]


def told_apart(
    names: Sequence[str], configs: Sequence[Mapping[str, Any]], first: Sequence[str] = ()
) -> list[str]:
    """``names``, and where several are the same what else their configurations differ in.

    Args:
        names: of runs.
        configs: of the same runs.
        first: options by which to tell apart before any other; digests say nothing to a reader.
    """
    found = list(names)
    options = dict.fromkeys([*first, *(option for config in configs for option in config)])
    for option in options:
        if option.endswith("digest"):
            continue
        alike = defaultdict(set)
        for name, config in zip(found, configs, strict=True):
            alike[name].add(str(config.get(option)))
        found = [
            f"{name}, {option.replace('_', ' ')} {_text(config.get(option), ', ')}"
            if len(alike[name]) > 1
            else name
            for name, config in zip(found, configs, strict=True)
        ]
    return found


def networks_of(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Network, weights and images of each, and what else tells apart those that agree in that."""

    def last(path: object) -> str:
        return str(path).rstrip("/").rpartition("/")[2]

    names = [
        f"{last(config.get('model'))}, {config.get('weights')} weights, {last(config.get('data'))}"
        for config in configs
    ]
    return told_apart(names, configs)


def recipe(trials: Sequence[Any], options: Sequence[str]) -> str:
    """Those of ``options`` that all trials have, where a preset may have been overridden."""

    def values(option: str) -> str:
        return " or ".join(sorted({_text(trial.config[option]) for trial in trials}))

    known = [option for option in options if all(option in trial.config for trial in trials)]
    return ", ".join(f"{option.replace('_', ' ')} {values(option)}" for option in known)


def _text(value: Any, between: str = "×") -> str:
    if isinstance(value, list):  # height and width
        return between.join(map(str, value))
    return "all" if value is None else str(value)
