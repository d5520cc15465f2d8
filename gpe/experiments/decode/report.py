"""What `gpe decode` read from frozen networks: Figure S1, and accuracy by depth."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from gpe.report.figures import BandLine, panel
from gpe.report.runs import Run
from gpe.report.words import listing


class Share(NamedTuple):
    """Right answers in percent, with their 95 % interval over images."""

    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class Trial:
    """One network, read at one or more grids.

    Attributes:
        name: of the network, its weights and the images, and what tells it from others like it.
        layers: that were read, first to last.
        shares: by readout, grid size and layer.
        chance: by grid size.
        images: by grid size, how many the readouts were trained on and asked about.
    """

    name: str
    layers: list[str]
    shares: dict[str, dict[int, dict[str, Share]]]
    chance: dict[int, float]
    images: dict[int, tuple[int, int]]

    @property
    def last(self) -> str:
        """The deepest layer that was read."""
        return self.layers[-1]


# What a readout is called, how it goes about it, and its dashes, so that equal lines both show.
READOUTS = {
    "gapnet": ("GAPNet", "1×1 convolution, then pooling (Equation S1)", ""),
    "permutenet": ("PermuteNet", "channels in a new order each time", "7 3"),
    "fixed": ("PermuteNet, fixed", "one other order for all: a control", "2.5 2.5"),
}
_ORDER = list(READOUTS)


def section(runs: Sequence[Run]) -> dict[str, Any]:
    """The context of ``decode.html``.

    Raises:
        InputError: a record lacks what such a record has.
    """
    trials = tables(runs)
    return {
        "findings": findings(runs),
        "table": table(trials),
        "readouts": {kind: READOUTS.get(kind, (kind, "", "")) for kind in kinds(trials)},
        "networks": [_network(trial) for trial in trials],
    }


def tables(runs: Sequence[Run]) -> list[Trial]:
    """The networks in ``runs``.

    Raises:
        InputError: a record lacks what such a record has.
    """
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        others = {name: value for name, value in run.record.config.items() if name != "grid_size"}
        groups[str(others)].append(run)
    names = network_names([members[0].record.config for members in groups.values()])
    return [_read(name, members) for name, members in zip(names, groups.values(), strict=True)]


def findings(runs: Sequence[Run]) -> list[str]:
    """A paragraph for each network: its last layer, and how it comes to that by depth."""
    return [" ".join(sentences(trial)) for trial in tables(runs)]


def sentences(trial: Trial) -> list[str]:
    """What was read from one network, in plain words."""
    found = []
    for kind, (label, how, _) in READOUTS.items():
        by_grid = trial.shares.get(kind)
        if not by_grid:
            continue
        shares = _percents([layers[trial.last].accuracy for layers in by_grid.values()])
        if kind == "gapnet":
            grids = listing([f"{grid}×{grid}" for grid in by_grid])
            found.append(
                f"{trial.name}: from the pooled {trial.last}, frozen, {label}'s readout names "
                f"the right cell of {grids} grids for {shares} of images that it never saw; "
                f"guessing would for {_percents([trial.chance[grid] for grid in by_grid])}."
            )
        else:
            where = "" if found else f"{trial.name}, {trial.last}: "
            found.append(f"{where}{label} ({how}): {shares}.")
    if len(trial.layers) > 1 and "gapnet" in trial.shares:
        grid, layers = next(reversed(trial.shares["gapnet"].items()))
        first = trial.layers[0]
        best = max(layers, key=lambda layer: layers[layer].accuracy)
        found.append(
            f"By depth, {grid}×{grid}: {layers[first].accuracy:.1f}\u00a0% from {first}, "
            f"most, {layers[best].accuracy:.1f}\u00a0%, from {best}."
        )
    return found


def kinds(trials: Sequence[Trial]) -> list[str]:
    """Readouts of ``trials``, those of the paper first."""
    present = dict.fromkeys(kind for trial in trials for kind in trial.shares)
    return sorted(present, key=lambda kind: _ORDER.index(kind) if kind in _ORDER else len(_ORDER))


def table(trials: Sequence[Trial]) -> dict[str, Any]:
    """Rows of networks and readouts; columns of grid sizes; the last layer of each network."""
    grids = sorted({grid for trial in trials for grid in trial.chance})
    chance = {grid: trial.chance[grid] for trial in trials for grid in trial.chance}
    rows = [
        {
            "network": trial.name,
            "layer": trial.last,
            "readout": kind,
            "label": READOUTS.get(kind, (kind,))[0],
            "cells": [trial.shares[kind].get(grid, {}).get(trial.last) for grid in grids],
        }
        for trial in trials
        for kind in kinds([trial])
    ]
    return {"columns": [(grid, chance[grid]) for grid in grids], "rows": rows}


def _network(trial: Trial) -> dict[str, Any]:
    """Figure S1, and a panel by depth for each grid."""
    figure = panel(
        [
            _line(kind, {grid: layers[trial.last] for grid, layers in by_grid.items()})
            for kind, by_grid in trial.shares.items()
        ],
        label="cells along each side",
        limits=(-3, 103),
    )
    return {
        "name": trial.name,
        "last": trial.last,
        "layers": trial.layers,
        "images": next(iter(trial.images.values())),
        "figure": figure,
        "depth": _by_depth(trial) if len(trial.layers) > 1 else {},
    }


def _by_depth(trial: Trial) -> dict[int, Any]:
    places = {layer: place for place, layer in enumerate(trial.layers, 1)}
    panels = {}
    for grid, chance in trial.chance.items():
        lines = [
            _line(kind, {places[layer]: share for layer, share in by_grid[grid].items()})
            for kind, by_grid in trial.shares.items()
            if grid in by_grid
        ]
        panels[grid] = panel(lines, label="layer", limits=(-3, 103), level=chance)
    return panels


def _line(kind: str, points: dict[int, Share]) -> BandLine:
    colour = kind if kind in READOUTS else "ink"
    dashes = READOUTS.get(kind, ("", "", ""))[2]
    return BandLine(
        points={place: tuple(share) for place, share in points.items()},
        paper={},
        colour=colour,
        dashes=dashes,
    )


def _percents(shares: Sequence[float]) -> str:
    return listing([f"{share:.1f}" for share in shares]) + "\u00a0%"


def _read(name: str, runs: Sequence[Run]) -> Trial:
    shares: dict[str, dict[int, dict[str, Share]]] = defaultdict(lambda: defaultdict(dict))
    layers: dict[str, None] = {}
    chance, images = {}, {}

    def add(run: Run) -> None:
        record, grid = run.record, int(run.record.config["grid_size"])
        chance[grid] = float(record.chance)
        images[grid] = int(record.result["trained_on"]), int(record.result["tested_on"])
        for row in sorted(record.result["rows"], key=lambda row: row["depth"]):
            share = Share(*(float(row[name]) for name in Share._fields))
            shares[str(row["readout"])][grid][str(row["layer"])] = share
            layers.setdefault(str(row["layer"]))
        if not record.result["rows"]:
            raise ValueError("no rows")

    for run in sorted(runs, key=lambda run: str(run.record.config.get("grid_size")).zfill(9)):
        run.read(add)
    by_kind = {kind: dict(shares[kind]) for kind in [*_ORDER, *shares] if kind in shares}
    return Trial(name, list(layers), by_kind, chance, images)


def network_names(configs: Sequence[dict[str, Any]]) -> list[str]:
    """Network, weights and images, and of those that agree in that what else they differ in."""
    names = []
    for config in configs:
        weights = config.get("weights")
        state = "random weights" if weights == "random" else f"{weights} weights"
        model = str(config.get("model")).rstrip("/").rpartition("/")[2]
        data = str(config.get("data")).rstrip("/").rpartition("/")[2]
        names.append(f"{model}, {state}, {data}")
    options = dict.fromkeys(option for config in configs for option in config)
    for option in options:
        alike = defaultdict(set)
        for name, config in zip(names, configs, strict=True):
            alike[name].add(str(config.get(option)))
        names = [
            f"{name}, {option.replace('_', ' ')} {_text(config.get(option))}"
            if len(alike[name]) > 1
            else name
            for name, config in zip(names, configs, strict=True)
        ]
    return names


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
