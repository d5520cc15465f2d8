"""``gpe decode``: where a patch lies, read from a frozen network (supplement, S1, Figure S1)."""

from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from gpe.data import generator
from gpe.experiments.decode.config import DecodeConfig
from gpe.experiments.frozen import Found, Seen, look_at_all
from gpe.experiments.options import Places
from gpe.experiments.progress import Progress
from gpe.readout import answer, build_readout, grid_latents, train_readout
from gpe.readout.training import expect_enough


def run(configs: Sequence[DecodeConfig], places: Places, progress: Progress) -> list[Path]:
    """Reads each network at each grid; returns the directories of the records.

    Raises:
        InputError: a network, weights or images that cannot be had; fewer images than cells; a
            layer that there is not, or without channels; or canvases of a size that the network
            refuses.
    """
    return look_at_all("decode", configs, places, progress, decode)


def decode(config: DecodeConfig, seen: Seen, tell: Callable[[str], None]) -> Found:
    """What each readout reads from each layer.

    Raises:
        InputError: as :func:`run`.
    """
    network, layers, train, test = seen
    classes = config.grid_size**2
    expect_enough(len(train), classes)
    grid = f"{config.grid_size}×{config.grid_size}"
    tell(f"{network.name}, {grid}: {len(train) + len(test)} canvases through the network")
    started = perf_counter()
    parts = []
    for purpose, images in (("training", train), ("test", test)):
        cells = torch.randint(
            classes,
            (len(images),),
            generator=generator(config.seed, 0, 0, f"{purpose} cells {grid}"),
        )
        latents = grid_latents(
            network.model,
            images.to(config.device),
            cells,
            config.grid_size,
            layers=layers,
            batch_size=config.canvases,
            mean=network.mean,
            std=network.std,
            channel_dim=config.channel_dim,
        )
        parts.append((latents, cells))
    through = perf_counter() - started
    (fitted, fitted_cells), (unseen, unseen_cells) = parts

    rows: list[dict[str, Any]] = []
    arrays = {"cells": unseen_cells}
    for depth, layer in enumerate(layers, 1):
        tell(f"{network.name}, {grid}, {layer}: training {len(config.readouts)} readouts")
        for kind in config.readouts:
            readout = train_readout(
                build_readout(kind, fitted[layer], classes, seed=config.seed),
                fitted[layer],
                fitted_cells,
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
                    "channels": fitted[layer].shape[1],
                    "readout": kind,
                    "accuracy": 100 * found.accuracy,
                    "low": 100 * found.interval[0],
                    "high": 100 * found.interval[1],
                    "train_accuracy": 100 * answer(readout, fitted[layer], fitted_cells).accuracy,
                }
            )
    tell(
        f"{network.name}, {grid}: {through:.1f} s for latents, "
        f"{perf_counter() - started - through:.1f} s for {len(rows)} readouts"
    )
    result = {
        "trained_on": len(train),
        "tested_on": len(test),
        "rows": rows,
    }
    return Found(result, arrays)
