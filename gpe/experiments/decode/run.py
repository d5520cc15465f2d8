"""``gpe decode``: where a patch lies, read from a frozen network (supplement, S1, Figure S1)."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from gpe.data import ImageSet, generator
from gpe.experiments.decode_config import DecodeConfig
from gpe.experiments.networks import Frozen
from gpe.experiments.reading import Found, Tell, layers_of, read_networks
from gpe.readout import answer, build_readout, grid_latents, train_readout
from gpe.readout.training import expect_enough


def run(configs: Sequence[DecodeConfig], out: Path, **options: Any) -> list[Path]:
    """Reads each network at each grid and leaves records in directories below ``out``.

    Args, Returns:
        As :func:`gpe.experiments.reading.read_networks`.

    Raises:
        InputError: a network, weights or images that cannot be had; fewer images than cells; a
            layer that there is not, or without channels; canvases of a size that the network
            refuses; or a directory that cannot be made.
    """
    return read_networks("decode", configs, out, decode, **options)


def decode(
    config: DecodeConfig, frozen: Frozen, train: ImageSet, test: ImageSet, *, tell: Tell
) -> Found:
    """What each readout reads from each layer.

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
    layers = layers_of(config, frozen)
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
    return Found(result, arrays)
