"""``gpe atlas``: where on a canvas each channel responds, and how much it tells of the cell."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpe.data import ImageSet, generator
from gpe.experiments.atlas_config import AtlasConfig, cells_of, expect_enough_images
from gpe.experiments.networks import Frozen
from gpe.experiments.rankings import arrays_of, shown
from gpe.experiments.reading import Found, Tell, layers_of, read_networks
from gpe.models.inside import digest
from gpe.ranking import ChannelRanking, group_means, mutual_information, rank_region
from gpe.ranking.bootstrap import interval_about, times_drawn
from gpe.ranking.information import SHUFFLES, correlation_interval, shuffle_cells
from gpe.readout import grid_latents

INFORMATION, MIRROR = "information", "overall"
DRAWS = 200  # of the bootstrap


def run(configs: Sequence[AtlasConfig], out: Path, **options: Any) -> list[Path]:
    """Maps a layer of each network and leaves records in directories below ``out``.

    Beside each record lie its rankings, a file each, for ``gpe ablate --rankings``.

    Args, Returns:
        As :func:`gpe.experiments.reading.read_networks`.

    Raises:
        InputError: a network, weights or images that cannot be had; too few images; a layer that
            there is not, or without channels; canvases of a size that the network refuses; or a
            directory that cannot be made.
    """
    return read_networks("atlas", configs, out, atlas, **options)


def atlas(
    config: AtlasConfig, frozen: Frozen, train: ImageSet, test: ImageSet, *, tell: Tell
) -> Found:
    """What each channel of a layer tells of the cell, and which are specific to what region.

    Each test image lies in each cell once. Its mirror lies in one, drawn at random, mirrored: as
    canvases they are what Equation 2 compares.

    Args:
        config: what to map.
        frozen: the network.
        train: not looked at; its mean and std are those of ``test``.
        test: the images.
        tell: told what is being done.

    Raises:
        InputError: as :func:`run`.
    """
    number, size = len(test), config.grid_size
    expect_enough_images(number)
    tell(f"{frozen.name}, {size}×{size}: {number * (size**2 + 1)} canvases through the network")
    frozen = replace(frozen, model=frozen.model.to(config.device))
    (layer,) = layers_of(config, frozen)
    test = test.to(config.device)
    images = torch.arange(number).repeat_interleave(size**2)
    cells = torch.arange(size**2).repeat(number)
    latents = _latents(config, frozen, layer, test, cells, images)
    differences = _mirror_differences(config, frozen, layer, test, latents)

    tell(f"{frozen.name}, {layer}: information of {latents.shape[1]} channels")
    about = {"layer": layer, "weights": digest(frozen.model)}
    bits = mutual_information(latents, cells, images=images)
    rankings = {
        INFORMATION: ChannelRanking(INFORMATION, bits, **about, image_ids=tuple(range(number))),
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
        "network": frozen.name,
        "task": frozen.task,
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
    config: AtlasConfig, frozen: Frozen, layer: str, test: ImageSet, latents: Tensor
) -> Tensor:  # [N,C]
    """Of each image in one cell, what the latents of its canvas and of the mirror differ by."""
    number, size = len(test), config.grid_size
    purpose = f"mirrored cells {size}×{size}"
    drawn = torch.randint(size**2, (number,), generator=generator(config.seed, 0, 0, purpose))
    row, column = drawn // size, drawn % size
    mirrors = replace(test, images=test.images.flip(-1))
    other = _latents(
        config, frozen, layer, mirrors, row * size + size - 1 - column, torch.arange(number)
    )
    return latents.view(number, size**2, -1)[torch.arange(number), drawn] - other


def _latents(
    config: AtlasConfig, frozen: Frozen, layer: str, images: ImageSet, cells: Tensor, order: Tensor
) -> Tensor:  # [P,C]
    return grid_latents(
        frozen.model,
        images,
        cells,
        config.grid_size,
        layers=[layer],
        order=order,
        batch_size=config.canvases,
        mean=frozen.mean,
        std=frozen.std,
    )[layer]
