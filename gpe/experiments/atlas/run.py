"""``gpe atlas``: where on a canvas each channel responds, and how much it tells of the cell."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpe.data import ImageSet, generator
from gpe.errors import InputError
from gpe.experiments.atlas.config import LEAST_IMAGES, AtlasConfig, cells_of
from gpe.experiments.frozen import Found, Seen, look_at_all
from gpe.experiments.options import Places
from gpe.experiments.progress import Progress
from gpe.experiments.removal.rankings import arrays_of, shown
from gpe.experiments.trained import Trained
from gpe.ranking import ChannelRanking, group_means, mutual_information, rank_region
from gpe.ranking.information import SHUFFLES, shuffle_cells
from gpe.readout import grid_latents
from gpe.statistics import correlation_interval, interval_about, times_drawn

INFORMATION, MIRROR = "information", "overall"
DRAWS = 200  # of the bootstrap


def run(configs: Sequence[AtlasConfig], places: Places, progress: Progress) -> list[Path]:
    """Maps a layer of each network; returns the directories of the records.

    Beside each record lie its rankings, a file each, for ``gpe ablate --rankings``.

    Raises:
        InputError: a network, weights or images that cannot be had; too few images; a layer that
            there is not, or without channels; or canvases of a size that the network refuses.
    """
    return look_at_all("atlas", configs, places, progress, atlas)


def atlas(config: AtlasConfig, seen: Seen, tell: Callable[[str], None]) -> Found:
    """What each channel of a layer tells of the cell, and which are specific to what region.

    Each test image lies in each cell once. Its mirror lies in one, drawn at random, mirrored: as
    canvases they are what Equation 2 compares.

    Raises:
        InputError: as :func:`run`.
    """
    network, (layer,), _, test = seen
    number, size = len(test), config.grid_size
    if number < LEAST_IMAGES:
        raise InputError(f"images: expected at least {LEAST_IMAGES}, got {number}")
    tell(f"{network.name}, {size}×{size}: {number * (size**2 + 1)} canvases through the network")
    test = test.to(config.device)
    images = torch.arange(number).repeat_interleave(size**2)
    cells = torch.arange(size**2).repeat(number)
    latents = _latents(config, network, layer, test, cells, images)
    differences = _mirror_differences(config, network, layer, test, latents)

    tell(f"{network.name}, {layer}: information of {latents.shape[1]} channels")
    about: dict[str, Any] = {"layer": layer, "weights": config.weights_digest}
    bits = mutual_information(latents, cells, images=images)
    rankings = {
        INFORMATION: ChannelRanking(
            INFORMATION, bits, layer, config.weights_digest, image_ids=tuple(range(number))
        ),
        MIRROR: ChannelRanking.of_differences(MIRROR, differences, range(number), **about),
    }
    regions = {}
    for region in config.regions:
        ranking = rank_region(latents, cells, images, cells_of(region, size), **about)
        rankings[ranking.mode] = ranking
        regions[region] = ranking.mode

    # The same images drawn anew for both scores.
    times = torch.cat(list(times_drawn(number, DRAWS)))
    drawn = mutual_information(latents, cells, images=images, times=times)
    mirror_drawn = times @ differences.abs().double() / number
    rho = correlation_interval(bits, rankings[MIRROR].scores, drawn, mirror_drawn)
    low, high = interval_about(bits, drawn)
    # Another shuffle than those that the estimate itself takes.
    without = shuffle_cells(cells, images, SHUFFLES)
    noise = mutual_information(latents, without, images=images).max().item()
    result = {
        "layer": layer,
        "channels": latents.shape[1],
        "images": number,
        "noise": noise,
        "above_noise": int((bits > noise).sum()),
        "regions": regions,
        "rankings": {name: shown(ranking) for name, ranking in rankings.items()},
        "correlation": dict(zip(("rho", "low", "high"), rho, strict=True)),
    }
    arrays = {
        "maps": group_means(latents, cells, size**2).T.float(),
        **arrays_of(rankings),
        f"low.{INFORMATION}": low,
        f"high.{INFORMATION}": high,
    }
    return Found(result, arrays, rankings)


def _mirror_differences(
    config: AtlasConfig, network: Trained, layer: str, test: ImageSet, latents: Tensor
) -> Tensor:  # [N,C]
    """Of each image in one cell, what the latents of its canvas and of the mirror differ by."""
    number, size = len(test), config.grid_size
    purpose = f"mirrored cells {size}×{size}"
    drawn = torch.randint(size**2, (number,), generator=generator(config.seed, 0, 0, purpose))
    row, column = drawn // size, drawn % size
    mirrors = replace(test, images=test.images.flip(-1))
    other = _latents(
        config, network, layer, mirrors, row * size + size - 1 - column, torch.arange(number)
    )
    return latents.view(number, size**2, -1)[torch.arange(number), drawn] - other


def _latents(
    config: AtlasConfig,
    network: Trained,
    layer: str,
    images: ImageSet,
    cells: Tensor,
    order: Tensor,
) -> Tensor:  # [P,C]
    return grid_latents(
        network.model,
        images,
        cells,
        config.grid_size,
        layers=[layer],
        order=order,
        batch_size=config.canvases,
        mean=network.mean,
        std=network.std,
        channel_dim=config.channel_dim,
    )[layer]
