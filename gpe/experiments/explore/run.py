"""``gpe explore``: all that a page to play with shows of one network, computed once."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gpe.errors import InputError
from gpe.experiments.atlas.config import AtlasConfig
from gpe.experiments.atlas.run import INFORMATION
from gpe.experiments.atlas.run import run as map_cells
from gpe.experiments.explore.config import GRID, IMAGES, ExploreConfig
from gpe.experiments.explore.networks import Classifier, Segmenter
from gpe.experiments.explore.page import write_page
from gpe.experiments.options import PRETRAINED, Places
from gpe.experiments.processes import expect_one_process
from gpe.experiments.progress import Progress
from gpe.experiments.removal.config import ClassificationConfig, RemovalConfig
from gpe.experiments.removal.rankings import digest_of, draws_of, read_rankings, save_rankings
from gpe.experiments.removal.run import run as remove
from gpe.experiments.runs import record, run_all
from gpe.experiments.trained import Trained, open_trained
from gpe.models.inside import layout_of, maps_at
from gpe.ranking import ChannelRanking, rank_region
from gpe.records import Record, load_arrays, save_arrays

FINE = 12  # cells along each side of a map of where a channel responds
_DIGITS = 40  # images of the atlas


def run(configs: Sequence[ExploreConfig], places: Places, progress: Progress) -> list[Path]:
    """Writes a page about each network; returns the directories of the records.

    Beside each lie the runs of ``gpe ablate`` and ``gpe atlas`` that its numbers are from.

    Raises:
        InputError: a network, images or rankings that cannot be had or do not go together.
    """
    expect_one_process("gpe explore")
    opened = [_opened(config) for config in configs]
    networks = {config.weights_digest: network for config, network in opened}

    def explore(config: ExploreConfig, directory: Path) -> Record:
        return _explore(config, networks[config.weights_digest], directory, places, progress)

    directories = run_all([config for config, _ in opened], places, progress, explore)
    for directory in directories:
        write_page(directory)
    return directories


def _opened(config: ExploreConfig) -> tuple[ExploreConfig, Trained]:
    """What the configuration is about, with the digests of weights and rankings in it."""
    network = open_trained(
        config.model,
        config.weights,
        tasks=["segmentation", "classification"],
        output_stride=config.output_stride,
    )
    segments = network.task == "segmentation"
    foreign = ("weights",) if segments else ("layer", "split", "size", "output_stride")
    for name in foreign:
        if (value := getattr(config, name)) not in (None, PRETRAINED):
            raise InputError(f"{name}: expected none with {network.name}, got {value}")
    data = config.data or network.config.get("data")
    if data is None:
        raise InputError(f"data: expected one with {network.name}, got none")
    config = replace(
        config,
        data=data,
        images=config.images or IMAGES[network.task],
        samples=config.samples or (6 if segments else 24),
        weights_digest=network.digest,
    )
    digest = digest_of(read_rankings(_removal(config, network)))
    return replace(config, rankings_digest=digest), network


def _removal(config: ExploreConfig, network: Trained) -> RemovalConfig | ClassificationConfig:
    """What ``gpe ablate`` is to do."""
    names = ("data", "images", "modes", "rankings", "random_seeds", "counts", "device", "seed")
    given = {name: getattr(config, name) for name in names} | {"ranges": False}
    if network.task == "classification":
        return ClassificationConfig.of(model=config.model, weights=config.weights, **given)
    pixel = {name: getattr(config, name) for name in ("split", "size", "output_stride", "layer")}
    return RemovalConfig.of(job="ablate", checkpoint=config.model, **given, **pixel)


def _explore(
    config: ExploreConfig, network: Trained, directory: Path, places: Places, progress: Progress
) -> Record:
    removal = _removal(config, network)
    explored = (
        Segmenter(removal, network, places)
        if isinstance(removal, RemovalConfig)
        else Classifier(removal, network, places)
    )
    progress.tell(f"explore: where the channels of {network.name} respond")
    arrays, regions = _responses(explored, config.weights_digest)
    if not regions:
        progress.note(f"explore: no places: {explored.layer} yields no maps of what is removed")
    save_rankings(regions, directory)
    files = tuple(f"{name}={directory / name}.safetensors" for name in regions)
    (ablated,) = remove([replace(removal, rankings=removal.rankings + files)], places, progress)
    swept, kept = Record.load(ablated), load_arrays(ablated)
    orders = {name: kept[f"order.{name}"] for name in swept.result["rankings"]}
    first = next(iter(orders.values()))
    orders |= draws_of(removal, len(first))

    progress.tell(f"explore: {config.samples} images without channels of {network.name}")
    counts = sorted({row["stop"] for row in swept.result["rows"]})
    samples, found = explored.samples(orders, counts, config.samples or 1)
    progress.tell(f"explore: {network.name} without one channel at a time")
    rows = swept.result["rows"]
    if isinstance(explored, Classifier):
        rows = rows + explored.kept(orders, counts)
    alone = explored.alone(first[: config.alone])
    mapped, atlas = _atlas(config, explored, places, progress) if regions else ({}, None)
    save_arrays(directory, arrays | found | mapped | {f"order.{n}": o for n, o in orders.items()})
    about = ("channels", "classes", "images")
    result = {
        "network": network.name,
        "task": network.task,
        "layer": explored.layer if regions else explored.removed_at,
        **{name: swept.result[name] for name in about},
        "reference": swept.result.get("reference", "labels"),
        "counts": counts,
        "rows": rows,
        "samples": samples,
        "alone": alone,
        "ablation": ablated.name,
        "atlas": atlas,
    }
    return record("explore", config, result, chance=swept.chance)


@torch.no_grad()
def _responses(
    explored: Segmenter | Classifier, weights: str
) -> tuple[dict[str, Tensor], dict[str, ChannelRanking]]:
    """Where each channel responds, averaged over the images, and a ranking for each region.

    A region's first channels are those that respond more in it than in the rest of the image; as
    Equation 3 has it for the left and the right. Neither where the layer yields no maps, or maps
    of other channels than those that are removed.
    """
    latents, total, count, layout = [], torch.zeros(()), 0, None
    for batch in explored.batches():
        layout = layout or layout_of(explored.model, explored.layer, batch)
        one, *others = maps_at(explored.model, explored.layer, batch, layout)
        if others or one.dim() != 4 or min(one.shape[2:]) < 2 or one.shape[1] != explored.channels:
            return {}, {}
        one = one.float()
        latents.append(F.adaptive_avg_pool2d(one, GRID).flatten(2).transpose(1, 2).cpu())
        if not count:
            fine = min(FINE, one.shape[2]), min(FINE, one.shape[3])
        total = total + F.adaptive_avg_pool2d(one, fine).cpu().double().sum(0)
        count += len(batch)
    cells = torch.arange(GRID**2).repeat(count)
    images = torch.arange(count).repeat_interleave(GRID**2)
    pooled = torch.cat(latents).flatten(0, 1)
    about = {"layer": explored.layer, "weights": weights}
    ranked = [rank_region(pooled, cells, images, [cell], **about) for cell in range(GRID**2)]
    return {"responses": (total / count).float()}, {ranking.mode: ranking for ranking in ranked}


def _atlas(
    config: ExploreConfig, explored: Segmenter | Classifier, places: Places, progress: Progress
) -> tuple[dict[str, Tensor], str | None]:
    """What ``gpe atlas`` finds of the same layer, and the name of its run, where it can be had."""
    options: dict[str, Any] = {"weights": config.weights, "device": config.device}
    try:
        chosen = AtlasConfig.of(
            model=config.model,
            layer=explored.layer,
            grid_size=GRID,
            regions=(),
            images=_DIGITS,
            **options,
        )
        (directory,) = map_cells([chosen], places, progress)
    except InputError as error:
        progress.note(f"explore: no map by cell: {error}")
        return {}, None
    arrays = load_arrays(directory)
    return {"cells": arrays["maps"], "bits": arrays[f"scores.{INFORMATION}"]}, directory.name
