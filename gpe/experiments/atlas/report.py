"""What `gpe atlas` mapped: where channels respond, and what they carry of the cell."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import log2
from typing import NamedTuple

import numpy as np

from gpe.records import load_arrays
from gpe.report.blocks import (
    Block,
    Cell,
    Column,
    Finding,
    Heading,
    Note,
    Picture,
    Pictures,
    Plot,
    Plots,
    Row,
    Section,
    Table,
)
from gpe.report.grouping import networks_of
from gpe.report.plots import BandLine, drawing, limits, panel
from gpe.report.runs import Run
from gpe.report.words import count, signed

MAPPED = 16  # channels whose maps are drawn
SHOWN = 4  # channels of each region in the table
_TOP = 10  # channels in a terminal's table
_DRAWN = 256  # ranks in a figure; more would not be told apart


class Estimate(NamedTuple):
    """A number with its 95 % interval over images."""

    value: float
    low: float
    high: float


class Channel(NamedTuple):
    """One channel, and what a ranking says of it."""

    number: int
    score: Estimate


@dataclass(frozen=True)
class Trial:
    """A layer of one network, mapped on one grid.

    Attributes:
        name: of the network, its weights and the images, and what tells it from others like it.
        grid: cells along each side.
        noise: bits, the most of any channel after the cells of each image were shuffled.
        above_noise: how many channels tell more.
        maps: float ``[C,K]``, the mean of each channel by cell.
        informative: all channels in bits, first ones first.
        correlation: Spearman's, with the ranking by Equation 2.
        regions: by name, cells and the first channels.
    """

    name: str
    layer: str
    grid: int
    images: int
    noise: float
    above_noise: int
    maps: np.ndarray
    informative: list[Channel]
    correlation: Estimate
    regions: dict[str, tuple[str, list[Channel]]]

    @property
    def channels(self) -> int:
        return len(self.informative)

    @property
    def most(self) -> float:
        """Bits that name the cell."""
        return 2 * log2(self.grid)


def blocks(runs: Sequence[Run]) -> list[Block]:
    """The report of the atlases.

    Raises:
        InputError: a record lacks what such a record has.
    """
    trials = tables(runs)
    found: list[Block] = [Heading("Where does each channel respond?", level=1)]
    found += [
        Finding(" ".join(sentences(trial)), lead=not place) for place, trial in enumerate(trials)
    ]
    found.append(
        Note(
            "Each image lies once in each cell of a black canvas, which goes through a frozen "
            "network. The mean of a channel by cell is a map of where it responds; the mutual "
            "information of the channel and the cell says, in bits, how much of the place the "
            "channel carries. It treats all cells alike; the mirror difference of Equation 2 knows "
            "left and right alone. The paper has no such atlas."
        )
    )
    for trial in trials:
        found += _of_network(trial)
    found.append(
        Note(
            "In parentheses 95 % intervals over images. Regions: by how much more a channel "
            "responds inside than outside.",
            where="terminal",
        )
    )
    return found


def tables(runs: Sequence[Run]) -> list[Trial]:
    """The networks in ``runs``.

    Raises:
        InputError: a record lacks what such a record has.
    """
    names = networks_of([run.record.config for run in runs])
    return [run.read(partial(_read, name)) for name, run in zip(names, runs, strict=True)]


def sentences(trial: Trial) -> list[str]:
    """What the atlas of one network shows, in plain words."""
    first, grid = trial.informative[0], f"{trial.grid}×{trial.grid}"
    rho, low, high = trial.correlation
    found = [
        f"{trial.name}: {trial.above_noise} of the {count(trial.channels, 'channel')} of "
        f"{trial.layer} carry more information about the cell of a {grid} grid than any does once "
        f"cells are shuffled ({bits(trial.noise)}).",
        f"Channel {first.number} carries most: {bits(first.score.value)} ({interval(first.score)}) "
        f"of the {trial.most:.2f} that name the cell.",
        "The ranking by information and the one by mirrored images (Equation 2) have a Spearman "
        f"correlation of {signed(rho, 2)} (95\u00a0% interval {signed(low, 2)} to "
        f"{signed(high, 2)}).",
    ]
    if trial.regions:
        leaders = [f"{name} {top[0].number}" for name, (_, top) in trial.regions.items() if top]
        found.append(f"First of each region: {', '.join(leaders)}.")
    return found


def bits(value: float) -> str:
    return f"{value:.2f} bits".replace("-", "−")


def interval(score: Estimate) -> str:
    return f"{score.low:.2f} to {score.high:.2f}".replace("-", "−")


def scored(score: Estimate) -> tuple[str, str]:
    """A score and its interval with three digits, whatever the unit of the layer."""
    texts = [f"{value:#.3g}".rstrip(".").replace("-", "−") for value in score]
    return texts[0], f"{texts[1]} to {texts[2]}"


def _of_network(trial: Trial) -> list[Block]:
    first = [_map(trial, channel) for channel in trial.informative[:MAPPED]]
    ranks = np.unique(np.linspace(0, trial.channels - 1, _DRAWN).round().astype(int)).tolist()
    points = {rank + 1: tuple(trial.informative[rank].score) for rank in ranks}
    line = BandLine(points=points, paper={}, colour="blue", dashes="")
    figure = panel(
        [line], label="rank", limits=limits([line], 0.0), level=trial.noise, size=(4.2, 2.4)
    )
    drawn = (
        f"; {len(ranks)} of {trial.channels} ranks are drawn" if len(ranks) < trial.channels else ""
    )
    grid = f"{trial.grid}×{trial.grid}"
    rho, low, high = (signed(value, 2) for value in trial.correlation)
    return [
        Heading(f"{trial.name}: {trial.layer}"),
        Note(f"{trial.channels} channels, {trial.images} images in each of {grid} cells."),
        Heading("The most informative channels", level=3),
        Pictures([("", first)], size="small"),
        Note(
            "Bold: the channel; below, its information and the 95 % interval over images. Each map "
            "goes from the channel's lowest mean, the colour of the page, to its highest. These "
            "channels were picked for their information, which makes it a little too high."
        ),
        Plots([Plot(figure, "Information by rank", "bits")]),
        Note(
            "The band is each channel's own 95 % interval; dotted: the most that any channel "
            f"carries once each image's cells are shuffled, {bits(trial.noise)}. {trial.most:.2f} "
            f"bits name the cell{drawn}."
        ),
        _information_table(trial, f"{trial.name}, {trial.layer}: {grid} cells"),
        Note(
            f"Once cells are shuffled, at most {bits(trial.noise)}: {trial.above_noise} of "
            f"{trial.channels} channels carry more. Spearman correlation with Equation 2: {rho} "
            f"({low} to {high}).",
            where="terminal",
        ),
        *(_regions(trial) if trial.regions else ()),
    ]


def _information_table(trial: Trial, title: str) -> Table:
    rows = []
    for channel, score in trial.informative[:_TOP]:
        row, column = divmod(int(trial.maps[channel].argmax()), trial.grid)
        cells = [
            Cell(bits(score.value), f"({interval(score)})"),
            Cell(f"row {row + 1}, column {column + 1}"),
        ]
        rows.append(Row(str(channel), cells))
    columns = [Column("information"), Column("highest in cell")]
    return Table("channel", columns, [Section(rows)], style="plain", title=title, where="terminal")


def _regions(trial: Trial) -> list[Block]:
    rows = []
    for name, (cells, top) in trial.regions.items():
        scores = [scored(channel.score) for channel in top]
        rows.append(
            Row(
                name,
                [
                    Cell(str(channel.number), score, lines=(f"({ends})",))
                    for channel, (score, ends) in zip(top, scores, strict=True)
                ],
                notes=(f"cells {cells}",),
            )
        )
    columns = [Column(str(rank + 1)) for rank in range(min(SHOWN, trial.channels))]
    return [
        Heading("The first channels of each region", level=3),
        Table("region", columns, [Section(rows)], style="plain"),
        Note(
            "Bold: the channel. Then by how much more it responds to an image inside the region "
            "than outside, in the units of the layer, and the 95 % interval of that over images. "
            "Cells are counted row by row from 0."
        ),
    ]


def _map(trial: Trial, channel: Channel) -> Picture:
    """Cells as opaque as their mean is on the way from the channel's lowest to its highest."""
    means = trial.maps[channel.number]
    low, high = means.min(), means.max()
    shares = (means - low) / (high - low) if high > low else np.zeros_like(means)
    cells = "".join(
        f'<rect x="{cell % trial.grid}" y="{cell // trial.grid}" width="1" height="1" '
        f'fill-opacity="{round(float(share), 3)}"/>'
        for cell, share in enumerate(shares)
    )
    alt = f"Channel {channel.number} by cell"
    side = trial.grid
    svg = drawing(cells, box=f"0 0 {side} {side}", alt=alt)
    text = f"{bits(channel.score.value)} ({interval(channel.score)})"
    return Picture(svg, alt, bold=str(channel.number), text=text)


def _read(name: str, run: Run) -> Trial:
    arrays = {key: array.numpy() for key, array in load_arrays(run.directory).items()}
    result, grid = run.record.result, int(run.record.config["grid_size"])
    channels = int(result["channels"])
    if arrays["maps"].shape != (channels, grid**2) or not np.isfinite(arrays["maps"]).all():
        raise ValueError(f"maps: expected finite [{channels},{grid**2}]")
    return Trial(
        name=name,
        layer=str(result["layer"]),
        grid=grid,
        images=int(result["images"]),
        noise=float(result["noise"]),
        above_noise=int(result["above_noise"]),
        maps=arrays["maps"],
        informative=_ranked(arrays, "information", channels),
        correlation=Estimate(
            *(float(result["correlation"][key]) for key in ("rho", "low", "high"))
        ),
        regions={
            str(region): (
                mode.partition(":")[2].replace("+", ", "),
                _ranked(arrays, mode, channels)[:SHOWN],
            )
            for region, mode in result["regions"].items()
        },
    )


def _ranked(arrays: dict[str, np.ndarray], mode: str, channels: int) -> list[Channel]:
    order = arrays[f"order.{mode}"]
    columns = np.stack([arrays[f"{column}.{mode}"] for column in ("scores", "low", "high")], 1)
    if not np.array_equal(np.sort(order), np.arange(channels)):
        raise ValueError(f"order.{mode}: expected each of {channels} channels once")
    if columns.shape != (channels, 3) or not np.isfinite(columns).all():
        raise ValueError(f"scores.{mode}: expected {channels} finite numbers, with intervals")
    return [Channel(int(channel), Estimate(*columns[channel].tolist())) for channel in order]
