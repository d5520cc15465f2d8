"""``gpe decode``: where a patch lies, read from a frozen network (supplement, S1, Figure S1)."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from gpe.data import ImageSet, generator, load
from gpe.errors import InputError
from gpe.experiments.decode_config import DEPTH, LAST, DecodeConfig
from gpe.experiments.decode_networks import Frozen, open_frozen
from gpe.experiments.runs import prepare
from gpe.readout import answer, build_readout, grid_latents, layers_by_depth, train_readout
from gpe.readout.latents import refused
from gpe.readout.training import expect_enough
from gpe.records import RECORD, Record, environment, save_arrays

Tell = Callable[[str], None]


def run(
    configs: Sequence[DecodeConfig],
    out: Path,
    *,
    root: Path = Path("data"),
    download: bool = False,
    force: bool = False,
    tell: Tell = lambda text: None,
) -> list[Path]:
    """Reads each network at each grid and leaves records in directories below ``out``.

    Args:
        configs: one a record, in ``out/<config.name>``. A network and images are opened once where
            configurations that share them follow one another.
        out: made where it is not there.
        root, download: where CIFAR lies, and whether to fetch it.
        force: do finished ones again; otherwise they are left as they are.
        tell: told what is being done.

    Returns:
        The directories, in the order of ``configs``.

    Raises:
        InputError: a network, weights or images that cannot be had; fewer images than cells; a
            layer that there is not, or without channels; canvases of a size that the network
            refuses; or a directory that cannot be made.
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
        result, arrays = decode(config, frozen, *sets, tell=tell)
        prepare(directory)
        save_arrays(directory, arrays)
        Record(
            experiment="decode",
            config=json.loads(json.dumps(asdict(config))),
            epochs=[],
            result=result,
            chance=100 / config.grid_size**2,
            paper=config.paper,
            run={
                "seconds": perf_counter() - start,
                "finished": datetime.now(UTC).isoformat(timespec="seconds"),
                **environment(torch.device(config.device)),
            },
        ).save(directory)
    return directories


def decode(
    config: DecodeConfig, frozen: Frozen, train: ImageSet, test: ImageSet, *, tell: Tell
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What each readout reads from each layer, for a record: its result and its arrays.

    Args:
        config: what to read.
        frozen: the network.
        train, test: images to train readouts on, and images that these never see.
        tell: told what is being done.

    Raises:
        InputError: as :func:`run`.
    """
    classes = config.grid_size**2
    expect_enough(len(train), classes)
    grid = f"{config.grid_size}×{config.grid_size}"
    tell(f"{frozen.name}, {grid}: {len(train) + len(test)} canvases through the network")
    started = perf_counter()
    frozen = replace(frozen, model=frozen.model.to(config.device))
    layers = _layers(config, frozen)
    parts = []
    for purpose, images in (("training", train), ("test", test)):
        cells = torch.randint(
            classes,
            (len(images),),
            generator=generator(config.seed, 0, 0, f"{purpose} cells {grid}"),
        )
        latents = grid_latents(
            frozen.model,
            images.to(config.device),
            cells,
            config.grid_size,
            layers=layers,
            batch_size=config.canvases,
            mean=frozen.mean,
            std=frozen.std,
        )
        parts.append((latents, cells))
    through = perf_counter() - started
    (seen, seen_cells), (unseen, unseen_cells) = parts

    rows, arrays = [], {"cells": unseen_cells}
    for depth, layer in enumerate(layers, 1):
        tell(f"{frozen.name}, {grid}, {layer}: training {len(config.readouts)} readouts")
        for kind in config.readouts:
            readout = train_readout(
                build_readout(kind, seen[layer], classes, seed=config.seed),
                seen[layer],
                seen_cells,
                epochs=config.epochs,
                batch_size=config.batch_size,
                learning_rate=config.learning_rate,
                weight_decay=config.weight_decay,
                seed=config.seed,
            )
            found = answer(readout, unseen[layer], unseen_cells)
            arrays[f"predictions.{kind}.{layer}"] = found.predictions
            rows.append(
                {
                    "layer": layer,
                    "depth": depth,
                    "channels": seen[layer].shape[1],
                    "readout": kind,
                    "accuracy": 100 * found.accuracy,
                    "low": 100 * found.interval[0],
                    "high": 100 * found.interval[1],
                    "train_accuracy": 100 * answer(readout, seen[layer], seen_cells).accuracy,
                }
            )
    tell(
        f"{frozen.name}, {grid}: {through:.1f} s for latents, "
        f"{perf_counter() - started - through:.1f} s for {len(rows)} readouts"
    )
    result = {
        "network": frozen.name,
        "task": frozen.task,
        "trained_on": len(train),
        "tested_on": len(test),
        "rows": rows,
    }
    return result, arrays


def _layers(config: DecodeConfig, frozen: Frozen) -> list[str]:
    """Names of the layers to read."""
    if config.layers not in ((DEPTH,), (LAST,)):
        return list(config.layers)
    side = config.grid_size * config.image_size
    canvas = torch.zeros(1, 3, side, side, device=config.device)
    try:
        found = layers_by_depth(frozen.model, canvas, inside=frozen.inside)
    except InputError:
        raise
    except Exception as error:  # a network may raise anything
        raise refused(canvas, config.grid_size, error) from error
    return found if config.layers == (DEPTH,) else found[-1:]
