"""What `gpe decode` read from frozen networks: Figure S1, and accuracy by depth."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gpe.experiments.decode.config import READOUTS
from gpe.report.blocks import (
    Bar,
    Block,
    Cell,
    Column,
    Finding,
    Heading,
    Key,
    Legend,
    Note,
    Plot,
    Plots,
    Row,
    Section,
    Table,
)
from gpe.report.grouping import networks_of
from gpe.report.plots import BandLine, panel
from gpe.report.runs import Run
from gpe.report.words import listing, number


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


_ORDER = list(READOUTS)
_UNKNOWN = ("", "", "ink", "")


def blocks(runs: Sequence[Run]) -> list[Block]:
    """The report of what was read.

    Raises:
        InputError: a record lacks what such a record has.
    """
    trials = tables(runs)
    found: list[Block] = [Heading("What does a frozen network know about place?", level=1)]
    found += [
        Finding(" ".join(sentences(trial)), lead=place == 0) for place, trial in enumerate(trials)
    ]
    found += [
        Note(
            "An image lies in one cell of a black canvas, which goes through a network that is "
            "frozen. A linear readout is trained on the averages of a layer's channels over all "
            "places, and tested on images that it never saw. The paper's claim (supplement S1, "
            "Figure S1, drawn without numbers): GAPNet reads the cell from networks trained to "
            "classify and to segment, and the readout that shuffles the channels fails. The paper "
            "has no untrained network to compare with; random weights are that control."
        ),
        Heading("The last layer"),
        _table(trials),
        Note(
            "Accuracy in percent on images that the readout never saw, with Wilson's 95 % interval "
            "over images. The permuting readout draws a new permutation for each image. The tick "
            "on a bar is guessing."
        ),
        Legend([_key(kind) for kind in kinds(trials)]),
    ]
    for trial in trials:
        found += _of_network(trial)
    found.append(
        Note(
            "Accuracy in percent on images that the readouts never saw; in parentheses the 95 % "
            "interval.",
            where="terminal",
        )
    )
    return found


def tables(runs: Sequence[Run]) -> list[Trial]:
    """The networks in ``runs``.

    Raises:
        InputError: a record lacks what such a record has.
    """
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        others = {name: value for name, value in run.record.config.items() if name != "grid_size"}
        groups[str(others)].append(run)
    names = networks_of([members[0].record.config for members in groups.values()])
    return [_read(name, members) for name, members in zip(names, groups.values(), strict=True)]


def sentences(trial: Trial) -> list[str]:
    """What was read from one network, in plain words."""
    found = []
    for kind, (label, how, *_) in READOUTS.items():
        by_grid = trial.shares.get(kind)
        if not by_grid:
            continue
        shares = _percents([layers[trial.last].accuracy for layers in by_grid.values()])
        if kind == "gapnet":
            grids = listing([f"{grid}×{grid}" for grid in by_grid])
            found.append(
                f"{trial.name}: from the pooled features of {trial.last}, {label}'s readout names "
                f"the right cell of {grids} grids for {shares} of new images; guessing would for "
                f"{_percents([trial.chance[grid] for grid in by_grid])}."
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


def _key(kind: str) -> Key:
    label, how, colour, dashes = READOUTS.get(kind, _UNKNOWN)
    return Key(f"{label or kind}: {how}" if how else label or kind, colour, dashes=dashes)


def _label(kind: str) -> str:
    return READOUTS.get(kind, _UNKNOWN)[0] or kind


def _table(trials: Sequence[Trial]) -> Table:
    """Rows of networks and readouts; columns of grid sizes; the last layer of each network."""
    grids = sorted({grid for trial in trials for grid in trial.chance})
    chance = {grid: trial.chance[grid] for trial in trials for grid in trial.chance}
    rows = [
        Row(
            _label(kind),
            [
                _cell(trial.shares[kind].get(grid, {}).get(trial.last), chance[grid])
                for grid in grids
            ],
            colour=READOUTS.get(kind, _UNKNOWN)[2],
            notes=(f"{trial.name}: {trial.last}",),
        )
        for trial in trials
        for kind in kinds([trial])
    ]
    columns = [Column(f"{grid}×{grid}", aside=f"guessing {chance[grid]:.1f}") for grid in grids]
    guesses = Row("guessing", [Cell(number(chance[grid])) for grid in grids])
    return Table("Network and readout", columns, [Section(rows), Section([guesses])])


def _cell(share: Share | None, chance: float) -> Cell | None:
    if share is None:
        return None
    interval = f"({share.low:.1f}\u2013{share.high:.1f})"
    return Cell(number(share.accuracy), interval, bar=Bar(share.accuracy, chance))


def _of_network(trial: Trial) -> list[Block]:
    """Figure S1, and a panel by depth for each grid."""
    trained, asked = next(iter(trial.images.values()))
    several = len(trial.layers) > 1
    lines = [
        _line(kind, {grid: layers[trial.last] for grid, layers in by_grid.items()})
        for kind, by_grid in trial.shares.items()
    ]
    plots = [
        Plot(
            panel(lines, label="cells along each side", limits=(-3, 103)),
            "Figure S1",
            f"{trial.last}, by grid",
        )
    ]
    for grid in trial.chance if several else ():
        plots.append(Plot(_by_depth(trial, grid), "By depth", f"{grid}×{grid}"))
    about = "Accuracy in percent, bands 95 % intervals"
    if several:
        layers = ", ".join(f"{place} {layer}" for place, layer in enumerate(trial.layers, 1))
        about += f", dotted guessing. Layers: {layers}"
    return [
        Heading(trial.name, level=3),
        Note(f"{trained} images to train readouts on, {asked} to test them on."),
        Plots(plots),
        Note(f"{about}."),
        *([_depth_table(trial)] if several else []),
    ]


def _depth_table(trial: Trial) -> Table:
    columns = [(kind, grid) for kind in kinds([trial]) for grid in trial.shares[kind]]
    rows = []
    for layer in trial.layers:
        shares = [trial.shares[kind][grid].get(layer) for kind, grid in columns]
        rows.append(Row(layer, [share and Cell(number(share.accuracy)) for share in shares]))
    heads = [Column(f"{grid}×{grid}", group=_label(kind)) for kind, grid in columns]
    title = f"{trial.name}: by depth, without intervals"
    return Table("layer", heads, [Section(rows)], style="plain", title=title, where="terminal")


def _by_depth(trial: Trial, grid: int) -> str:
    places = {layer: place for place, layer in enumerate(trial.layers, 1)}
    lines = [
        _line(kind, {places[layer]: share for layer, share in by_grid[grid].items()})
        for kind, by_grid in trial.shares.items()
        if grid in by_grid
    ]
    return panel(lines, label="layer", limits=(-3, 103), level=trial.chance[grid])


def _line(kind: str, points: dict[int, Share]) -> BandLine:
    _, _, colour, dashes = READOUTS.get(kind, _UNKNOWN)
    return BandLine(
        points={place: (share.accuracy, share.low, share.high) for place, share in points.items()},
        paper={},
        colour=colour,
        dashes=dashes,
    )


def _percents(shares: Sequence[float]) -> str:
    return listing([f"{share:.1f}" for share in shares]) + "\u00a0%"


def _read(name: str, runs: Sequence[Run]) -> Trial:
    shares: dict[str, dict[int, dict[str, Share]]] = defaultdict(lambda: defaultdict(dict))
    layers: dict[str, None] = {}
    chance: dict[int, float] = {}
    images: dict[int, tuple[int, int]] = {}

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
