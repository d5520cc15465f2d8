"""Any layer of a classifier: ranked, and removed, its answers counted over the whole network."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpe.ablation import ClassifierAblation, answers_sweep
from gpe.data import centre_view
from gpe.experiments.canvases import LAST
from gpe.experiments.images import Images
from gpe.experiments.removal.config import ClassificationConfig
from gpe.experiments.removal.rankings import (
    expect_about,
    expect_channels,
    in_parts,
    kept_of,
    merged,
)
from gpe.experiments.trained import Trained, autocast
from gpe.models.inside import layout_of
from gpe.models.running import pick_logits
from gpe.models.stages import last_feature_map
from gpe.ranking import ChannelRanking, rank_channels
from gpe.ranking.derived import needed


class Layer:
    """A layer of a classifier and the images that it is looked at with."""

    def __init__(self, config: ClassificationConfig, network: Trained, images: Images):
        self.config, self.network, self.images = config, network, images
        few = next(centre_views(config, network, images, range(min(2, len(images)))))
        name = config.layer
        if name in ("", LAST):
            name = last_feature_map(network.model, few, inside=network.inside)
        self.at: dict[str, Any] = {"layer": name, "channel_dim": config.channel_dim}
        with autocast(config.device, config.precision):
            layout = layout_of(network.model, name, few, channel_dim=config.channel_dim)
        self.few, self.name, self.width = few, name, layout.channels

    def ranked(
        self, directory: Path, read: Mapping[str, ChannelRanking], labels: Tensor | None
    ) -> dict[str, ChannelRanking]:
        """By all that the modes need, part by part.

        Args:
            directory: of the run.
            read: rankings of files, which have to be of this layer.
            labels: of the images; where None and a mode asks for some, the network's answers.

        Raises:
            InputError: more channels than there are, or rankings of another layer or network.
        """
        config, count = self.config, len(self.images)
        expect_channels(read, config.counts, self.width)
        expect_about(read, [self.name], [config.weights_digest])

        def part(indices: Sequence[int]) -> tuple[dict[str, ChannelRanking], None]:
            options: dict[str, Any] = {"start": indices[0], "keep": kept_of(count), **self.at}
            with autocast(config.device, config.precision):
                batches = self._labelled(indices, labels, answered="taylor" in modes)
                found = rank_channels(self.network.model, batches, modes=modes, **options)
            return found, None

        modes = needed(config.modes)
        parts = in_parts(directory, count, config.batch_size, part) if modes else ()
        return merged(found for found, _ in parts)

    def _labelled(
        self, indices: Sequence[int], labels: Tensor | None, *, answered: bool = False
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Views with their labels, or, if they are to be ``answered``, what the network says."""
        start = indices[0]
        for images in centre_views(self.config, self.network, self.images, indices):
            stop = start + len(images)
            named = None if labels is None else labels[start:stop]
            if named is None and answered:
                with torch.no_grad():
                    named = pick_logits(self.network.model(images)).argmax(1)
            yield images, named
            start = stop

    def removed(
        self, orders: Mapping[str, ChannelRanking | Tensor], labels: Tensor | None
    ) -> tuple[ClassifierAblation, dict[str, Any]]:
        """What the whole network answers, held against labels or its own answers; the engine."""
        config = self.config
        counts, ranges = config.removals(self.width)

        every = self._labelled(range(len(self.images)), labels)
        with autocast(config.device, config.precision):
            swept = answers_sweep(
                self.network.model, every, orders, counts=counts, ranges=ranges, **self.at
            )
        return swept, {} if swept.engine is None else {"engine": asdict(swept.engine)}


def centre_views(
    config: ClassificationConfig, network: Trained, images: Images, indices: Sequence[int]
) -> Iterator[Tensor]:
    """The normalised centres of images, batch by batch."""
    order = torch.tensor(indices, dtype=torch.int64)
    for batch in images.batches(order, config.batch_size):
        yield centre_view(
            batch,
            network.sizes[0],
            mean=network.mean,
            std=network.std,
            dtype=torch.float32,
        )
