"""``gpe consistency``: shift consistency of anybody's classifier on anybody's images."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpe.data import match_classes
from gpe.experiments.consistency.config import ConsistencyConfig
from gpe.experiments.images import images_for
from gpe.experiments.options import Places
from gpe.experiments.processes import is_first
from gpe.experiments.progress import Progress
from gpe.experiments.runs import Partial, record, run_all
from gpe.experiments.shifts import expect_room
from gpe.experiments.trained import autocast, open_trained
from gpe.experiments.under_shifts import consistency_rows, probabilities_under_shifts
from gpe.models.running import forward, pick_logits
from gpe.records import Record, save_arrays


def run(configs: Sequence[ConsistencyConfig], places: Places, progress: Progress) -> list[Path]:
    """Scores each network; returns the directories of the records.

    Raises:
        InputError: a network, weights or images that cannot be had, or a shift that the protocol
            has no pixels for.
    """
    networks = {}
    named = []
    for config in configs:
        network = open_trained(
            config.model,
            config.weights,
            tasks=["classification"],
            image_size=config.image_size,
            resize_size=config.resize_size,
        )
        size, resize_size = network.sizes
        expect_room(config.shifts, config.protocol, image_size=size, resize_size=resize_size)
        config = replace(config, network=network.name, weights_digest=network.digest)
        networks[config] = network
        named.append(config)

    def score(config: ConsistencyConfig, directory: Path) -> Record:
        progress.tell(f"{config.network} on {config.data}")
        network = networks[config]
        images = images_for(
            config.data,
            network,
            places=places,
            images=config.images,
            border=config.protocol == "crop",
        ).to(config.device)
        classes = network.num_classes or 0
        match = match_classes(network.classes, images.classes, count=classes)
        progress.note(f"{config.data}: classes matched {match.reason}")
        model = network.model.to(config.device)

        @torch.no_grad()
        def logits(views: Tensor) -> Tensor:
            with autocast(config.device, config.precision):
                return pick_logits(forward(model, views))

        options: dict[str, Any] = {
            "protocol": config.protocol,
            "size": network.input_size,
            "batch_size": config.batch_size,
            "mean": network.mean,
            "std": network.std,
        }
        # Two views of an image that does not move say how accurate the network is as it stands.
        unmoved, *rows = consistency_rows(
            logits,
            images,
            shifts=(0, *config.shifts),
            passes=config.passes,
            labels=match.labels,
            partial=Partial(directory),
            **options,
        )
        arrays = probabilities_under_shifts(logits, images, **options)
        labels = match.labels(arrays["labels"])
        if is_first():
            save_arrays(directory, arrays if labels is None else arrays | {"labels": labels})
        result = {
            "consistency": rows,
            "accuracy": unmoved["accuracy"],
            "labels": match.reason,
            # Numbers where they have no names.
            "classes": list(network.classes or map(str, range(classes))) if match.outputs else [],
        }
        chance = 100 / max(1, classes)
        return record("consistency", config, result, chance=chance, images=len(images))

    return run_all(named, places, progress, score)
