"""What `gpe atlas` mapped: where channels respond, and how much they tell of the cell."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import log2
from typing import Any, NamedTuple

import numpy as np

from gpe.records import load_arrays
from gpe.report.decode import network_names
from gpe.report.figures import BandLine, limits, panel
from gpe.report.runs import Run
from gpe.report.words import count, signed

MAPPED = 16  # channels whose maps are drawn
SHOWN = 4  # channels of each region in the table
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


def section(runs: Sequence[Run]) -> dict[str, Any]:
    """The context of ``atlas.html``.

    Raises:
        InputError: a record lacks what such a record has.
    """
    trials = tables(runs)
    return {
        "findings": [" ".join(sentences(trial)) for trial in trials],
        "networks": [_network(trial) for trial in trials],
    }


def tables(runs: Sequence[Run]) -> list[Trial]:
    """The networks in ``runs``.

    Raises:
        InputError: a record lacks what such a record has.
    """
    names = network_names([run.record.config for run in runs])
    return [run.read(partial(_read, name)) for name, run in zip(names, runs, strict=True)]


def findings(runs: Sequence[Run]) -> list[str]:
    """A paragraph for each network."""
    return [" ".join(sentences(trial)) for trial in tables(runs)]


def sentences(trial: Trial) -> list[str]:
    """What the atlas of one network shows, in plain words."""
    first, grid = trial.informative[0], f"{trial.grid}×{trial.grid}"
    rho, low, high = trial.correlation
    found = [
        f"{trial.name}: {trial.above_noise} of the {count(trial.channels, 'channel')} of "
        f"{trial.layer} tell more of the cell of a {grid} grid than any does once cells are "
        f"shuffled ({bits(trial.noise)}).",
        f"The most is told by channel {first.number}: {bits(first.score.value)} "
        f"({interval(first.score)}) of the {trial.most:.2f} that name the cell.",
        f"With the ranking by mirrored images (Equation 2), the one by information has a Spearman "
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


def _network(trial: Trial) -> dict[str, Any]:
    ranks = np.unique(np.linspace(0, trial.channels - 1, _DRAWN).round().astype(int)).tolist()
    line = BandLine(
        points={rank + 1: tuple(trial.informative[rank].score) for rank in ranks},
        paper={},
        colour="overall",
        dashes="",
    )
    return {
        "trial": trial,
        "maps": [_map(trial, channel) for channel in trial.informative[:MAPPED]],
        "figure": panel(
            [line], label="rank", limits=limits([line], 0.0), level=trial.noise, size=(4.2, 2.4)
        ),
        "drawn": len(ranks),
        "regions": [
            {
                "name": name,
                "cells": cells,
                "channels": [(channel.number, *scored(channel.score)) for channel in top],
            }
            for name, (cells, top) in trial.regions.items()
        ],
    }


def _map(trial: Trial, channel: Channel) -> dict[str, Any]:
    """Cells as (column, row, share of the way from the channel's lowest mean to its highest)."""
    means = trial.maps[channel.number]
    low, high = means.min(), means.max()
    shares = (means - low) / (high - low) if high > low else np.zeros_like(means)
    return {
        "channel": channel.number,
        "bits": bits(channel.score.value),
        "interval": interval(channel.score),
        "cells": [
            (cell % trial.grid, cell // trial.grid, round(float(share), 3))
            for cell, share in enumerate(shares)
        ],
    }


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
