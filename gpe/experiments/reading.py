"""What ``gpe decode`` and ``gpe atlas`` do alike: frozen networks, one or several, and a record
of what was read from each."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from gpe.data import load
from gpe.experiments.atlas_config import AtlasConfig
from gpe.experiments.decode_config import DEPTH, LAST, DecodeConfig
from gpe.experiments.networks import Frozen, open_frozen
from gpe.experiments.rankings import save_rankings
from gpe.experiments.runs import prepare
from gpe.ranking import ChannelRanking
from gpe.readout import layers_by_depth
from gpe.readout.latents import taking_canvases
from gpe.records import RECORD, Record, environment, save_arrays

Tell = Callable[[str], None]
Config = DecodeConfig | AtlasConfig


@dataclass(frozen=True)
class Found:
    """What was read from one network, for its record; rankings are kept in files beside it."""

    result: dict[str, Any]
    arrays: dict[str, Tensor]
    rankings: Mapping[str, ChannelRanking] = field(default_factory=dict)


def read_networks(
    experiment: str,
    configs: Sequence[Config],
    out: Path,
    read: Callable[..., Found],
    *,
    root: Path = Path("data"),
    download: bool = False,
    force: bool = False,
    tell: Tell = lambda text: None,
) -> list[Path]:
    """Calls ``read(config, network, train, test, tell=tell)`` for each configuration.

    Args:
        experiment: what the records are called.
        configs: one a record, in ``out/<config.name>``. A network and images are opened once where
            configurations that share them follow one another.
        out: made where it is not there.
        read: reads a network, by what two sets of images, for training and for tests, make of it.
        root, download: where CIFAR lies, and whether to fetch it.
        force: do finished ones again; otherwise they are left as they are.
        tell: told what is being done.

    Returns:
        The directories, in the order of ``configs``.

    Raises:
        InputError: a network, weights or images that cannot be had, a directory that cannot be
            made, or what ``read`` raises.
    """
    network = lru_cache(maxsize=1)(open_frozen)
    images = lru_cache(maxsize=1)(load)
    directories = []
    for config in configs:
        directory = out / config.name
        directories.append(directory)
        if (directory / RECORD).exists() and not force:
            tell(f"{directory.name}: finished before; --force runs it again")
            continue
        start = perf_counter()
        frozen = network(config.model, config.weights, seed=config.seed)
        sets = images(
            config.data,
            train_images=config.train_images,
            test_images=config.test_images,
            image_size=config.image_size,
            root=root,
            download=download,
            seed=config.seed,
        )
        found = read(config, frozen, *sets, tell=tell)
        prepare(directory)
        save_rankings(found.rankings, directory)
        save_arrays(directory, found.arrays)
        Record(
            experiment=experiment,
            config=json.loads(json.dumps(asdict(config))),
            epochs=[],
            result=found.result,
            chance=100 / config.grid_size**2,
            paper=config.paper,
            run={
                "seconds": perf_counter() - start,
                "finished": datetime.now(UTC).isoformat(timespec="seconds"),
                **environment(torch.device(config.device)),
            },
        ).save(directory)
    return directories


def layers_of(config: Config, frozen: Frozen) -> list[str]:
    """Names of the layers to read.

    Raises:
        InputError: the network refuses canvases of that size, or has no layer with channels.
    """
    if config.layers not in ((DEPTH,), (LAST,)):
        return list(config.layers)
    side = config.grid_size * config.image_size
    canvas = torch.zeros(1, 3, side, side, device=config.device)
    with taking_canvases(canvas, config.grid_size):
        found = layers_by_depth(frozen.model, canvas, inside=frozen.inside)
    return found if config.layers == (DEPTH,) else found[-1:]
