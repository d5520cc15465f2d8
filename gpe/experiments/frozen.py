"""What ``gpe decode`` and ``gpe atlas`` do alike: look at frozen networks on canvases."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from gpe.data import ImageSet, load
from gpe.experiments.canvases import DEPTH, LAST, CanvasConfig
from gpe.experiments.options import Places
from gpe.experiments.processes import expect_one_process
from gpe.experiments.progress import Progress
from gpe.experiments.removal.rankings import save_rankings
from gpe.experiments.runs import record, run_all
from gpe.experiments.trained import Trained, about_layer, open_trained
from gpe.models.stages import last_feature_map, layers_by_depth
from gpe.ranking import ChannelRanking
from gpe.readout.latents import taking_canvases
from gpe.records import Record, save_arrays

SomeConfig = TypeVar("SomeConfig", bound=CanvasConfig)
Seen = tuple[Trained, list[str], ImageSet, ImageSet]  # network, layers, images to train, to test


@dataclass(frozen=True)
class Found:
    """What was read from one network, for its record; rankings are kept in files beside it."""

    result: dict[str, Any]
    arrays: dict[str, Tensor]
    rankings: Mapping[str, ChannelRanking] = field(default_factory=dict)


def look_at_all(
    experiment: str,
    configs: Sequence[SomeConfig],
    places: Places,
    progress: Progress,
    look: Callable[[SomeConfig, Seen, Callable[[str], None]], Found],
) -> list[Path]:
    """Calls ``look`` for each configuration and records what it found; returns the directories.

    Its last argument is told what is being done. A network and images are opened once where
    configurations that share them follow one another.

    Raises:
        InputError: a network, weights or images that cannot be had, or what ``look`` raises.
    """
    expect_one_process(f"gpe {experiment}")
    network = lru_cache(maxsize=1)(open_trained)
    images = lru_cache(maxsize=1)(load)

    def named(config: SomeConfig) -> SomeConfig:
        opened = network(config.model, config.weights, seed=config.seed)
        return replace(config, weights_digest=opened.digest)

    def run(config: SomeConfig, directory: Path) -> Record:
        opened = network(config.model, config.weights, seed=config.seed)
        train, test = config.images_read
        sets = images(
            config.data,
            train_images=train,
            test_images=test,
            image_size=config.image_size,
            root=places.root,
            download=places.download,
            seed=config.seed,
        )
        opened = replace(opened, model=opened.model.to(config.device))
        seen = opened, _layers(config, opened, progress.note), *sets
        found = look(config, seen, progress.tell)
        save_rankings(found.rankings, directory)
        save_arrays(directory, found.arrays)
        result = {"network": opened.name, "task": opened.task, **found.result}
        return record(experiment, config, result, chance=100 / config.grid_size**2)

    return run_all([named(config) for config in configs], places, progress, run)


def _layers(config: CanvasConfig, network: Trained, tell: Callable[[str], None]) -> list[str]:
    """Names of the layers to read.

    Raises:
        InputError: the network refuses canvases of that size, or has no layer with channels.
    """
    if config.layers_read not in ((DEPTH,), (LAST,)):
        return list(config.layers_read)
    side = config.grid_size * config.image_size
    canvas = torch.zeros(1, 3, side, side, device=config.device)
    with taking_canvases(canvas, config.grid_size):
        if config.layers_read == (DEPTH,):
            return layers_by_depth(network.model, canvas, inside=network.inside)
        last = last_feature_map(network.model, canvas, inside=network.inside)
        tell(about_layer(network, last, canvas))
    return [last]
