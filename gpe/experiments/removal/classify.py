"""``gpe rank`` and ``gpe ablate --task classify``: a classifier's channels, and top-1 without."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpe.ablation import ClassifierAblation, classifier_sweep
from gpe.data import match_classes
from gpe.data.classes import ClassMatch
from gpe.experiments.images import Images, images_for
from gpe.experiments.options import Places
from gpe.experiments.processes import expect_one_process
from gpe.experiments.progress import Progress
from gpe.experiments.removal.config import ClassificationConfig
from gpe.experiments.removal.layers import Layer, centre_views
from gpe.experiments.removal.rankings import (
    arrays_of,
    digest_of,
    draws_of,
    expect_about,
    expect_channels,
    in_parts,
    kept_of,
    merged,
    read_rankings,
    save_rankings,
    shared_of,
    shown,
    wanted_of,
)
from gpe.experiments.runs import record, run_all
from gpe.experiments.trained import Trained, about_layer, autocast, open_trained
from gpe.models.head import NotLinearError, SplitClassifier, split_classifier
from gpe.models.inside import digest
from gpe.models.stages import last_feature_map
from gpe.ranking import ChannelRanking, rank_channels
from gpe.ranking.derived import needed
from gpe.records import Record, save_arrays
from gpe.statistics import interval_of_mean


def run(configs: Sequence[ClassificationConfig], places: Places, progress: Progress) -> list[Path]:
    """Ranks and removes channels of each classifier; returns the directories of the records.

    Each image passes the network once for its latent, and as often as the modes ask for to rank;
    all else are products of the latents.

    Raises:
        InputError: a network, images or rankings that cannot be had or do not go together.
    """
    expect_one_process("the ablation of a classifier")
    given = [_opened(config) for config in configs]
    networks = {config.weights_digest: network for config, network, _ in given}
    files = {config.rankings_digest: rankings for config, _, rankings in given}

    def ablate(config: ClassificationConfig, directory: Path) -> Record:
        progress.tell(f"{config.job}: {config.network} on {config.data}")
        network, read = networks[config.weights_digest], files[config.rankings_digest]
        images = images_for(config.data, network, images=config.images, places=places)
        images = images.to(config.device)
        match, engine, split = class_match(network, images), dict[str, Any](), None
        labels = match.labels(images.labels)
        if config.job == "ablate":
            progress.note(f"{config.data}: classes matched {match.reason}")
        if config.job == "ablate" and not config.layer:
            try:
                split, latents, ranked = _seen(config, network, images, labels, directory, read)
            except NotLinearError as error:
                progress.note(f"{error}; the last feature map is ablated in its place")
        if split is not None:
            layer, width = split.layer, split.head.in_features
        else:
            network.model.to(config.device)
            inside = Layer(config, network, images)
            progress.note(about_layer(network, inside.name, inside.few))
            layer, width, ranked = inside.name, inside.width, inside.ranked(directory, read, labels)
        wanted, matched = wanted_of(config, ranked)
        rankings, draws = {**wanted, **read}, draws_of(config, width)
        counts, ranges = config.removals(width)
        orders: dict[str, ChannelRanking | Tensor] = {**rankings, **draws, **matched}
        if split is not None:
            head = split.head.float()
            asked, _ = reference(network, images, latents, head)
            swept = classifier_sweep(latents, asked, head, orders, counts=counts, ranges=ranges)
        elif config.job == "ablate":
            swept, engine = inside.removed(orders, labels)
        save_rankings(rankings, directory)
        arrays = arrays_of(rankings)
        result = {
            "channels": width,
            "classes": list(images.classes),
            "images": len(images),
            "rankings": {name: shown(ranking) for name, ranking in rankings.items()},
        }
        chance = 100 / (network.num_classes or 1)
        if config.job == "rank":
            save_arrays(directory, arrays)
            return record("rank", replace(config, layer=layer), result, chance=chance)
        save_arrays(directory, arrays | {"right": swept.right})
        result |= {
            "labels": match.reason,
            "reference": "labels" if match.outputs else "answers",
            "rows": _rows(swept),
            "excess": _excess(swept, list(rankings), list(draws)),
            "beyond_matched": _excess(swept, ["overall"], list(matched)),
            "shared": shared_of(matched, ranked["overall"].order, counts) if matched else {},
            **engine,
        }
        config = replace(config, counts=tuple(counts), layer=layer)
        return record("ablate-classify", config, result, chance=chance)

    return run_all([config for config, *_ in given], places, progress, ablate)


def _opened(
    config: ClassificationConfig,
) -> tuple[ClassificationConfig, Trained, dict[str, ChannelRanking]]:
    """What the configuration is about, with the digests of weights and rankings in it."""
    network = open_trained(
        config.model,
        config.weights,
        tasks=["classification"] if config.job == "ablate" else ["classification", "features"],
        image_size=config.image_size,
        resize_size=config.resize_size,
    )
    rankings = read_rankings(config)
    config = replace(
        config,
        network=network.name,
        weights_digest=network.digest,
        rankings_digest=digest_of(rankings),
    )
    return config, network, rankings


def _seen(
    config: ClassificationConfig,
    network: Trained,
    images: Images,
    labels: Tensor | None,
    directory: Path,
    read: Mapping[str, ChannelRanking],
) -> tuple[SplitClassifier, Tensor, dict[str, ChannelRanking]]:
    """Both parts of the network, the latents of all images, and the rankings: in one reading.

    Raises:
        InputError: more channels than there are, or rankings that were ``read`` of others.
    """
    model = network.model.to(config.device)
    with autocast(config.device, config.precision):
        some = range(min(2, len(images)))
        few = next(centre_views(config, network, images, some))
        split = split_classifier(model, few)
        expect_channels(read, config.counts, split.head.in_features)
        # Pooled, the channels of the last feature map are those that the linear layer reads.
        layers = [split.layer]
        if read:
            layers.append(last_feature_map(model, few, inside=network.inside))
        expect_about(read, layers, [digest(split.trunk), config.weights_digest])

        def part(indices: Sequence[int]) -> tuple[dict[str, ChannelRanking], Tensor]:
            latents = []

            def seen() -> Iterator[tuple[Tensor, Tensor]]:
                """The views and what they are to be named; their latents are kept as they pass."""
                for batch in centre_views(config, network, images, indices):
                    with torch.no_grad():
                        latents.append(split.trunk(batch).float())
                    start = indices[0] + sum(map(len, latents[:-1]))
                    answers = split.head(latents[-1].to(split.head.weight.dtype)).argmax(1)
                    yield batch, answers if labels is None else labels[start : start + len(batch)]

            def loss(latents: Tensor, batch: Sequence[Tensor]) -> Tensor:
                return F.cross_entropy(split.head(latents).float(), batch[1], reduction="sum")

            rankings = {}
            if modes := needed(config.modes):
                rankings = rank_channels(
                    split.trunk,
                    seen(),
                    layer=split.layer,
                    modes=modes,
                    loss=loss,
                    start=indices[0],
                    keep=kept_of(len(images)),
                )
            else:
                list(seen())
            return rankings, torch.cat(latents)

        latents, ranked = [], dict[str, ChannelRanking]()
        for rankings, some_latents in in_parts(directory, len(images), config.batch_size, part):
            ranked = merged([ranked, rankings])
            latents += [] if some_latents is None else [some_latents]
    return split, torch.cat(latents).to(config.device), ranked


def reference(
    network: Trained, images: Images, latents: Tensor, head: nn.Linear
) -> tuple[Tensor, ClassMatch]:
    """What answers are held against: the labels as outputs, or what the whole network answers."""
    match = class_match(network, images)
    labels = match.labels(images.labels)
    return (head(latents).argmax(1) if labels is None else labels), match


def class_match(network: Trained, images: Images) -> ClassMatch:
    """Which output of the network is which class of the images."""
    return match_classes(network.classes, images.classes, count=network.num_classes or 0)


def _rows(swept: ClassifierAblation) -> list[dict[str, Any]]:
    """In percent, with 95 % intervals over images."""
    low, high = 100 * interval_of_mean(swept.right.T)
    ends = zip(swept.rows, low.tolist(), high.tolist(), strict=True)
    return [
        row | {"accuracy": 100 * row["accuracy"], "low": below, "high": above}
        for row, below, above in ends
    ]


def _excess(
    swept: ClassifierAblation, rankings: list[str], draws: list[str]
) -> list[dict[str, Any]]:
    """Points that the first channels of each ranking cost more than random ones do.

    The same images are answered with either, so that the 95 % interval over images is of the
    difference itself; it is not over other random orders.
    """
    right = dict(zip(swept.points, 100 * swept.right.float(), strict=True))
    tops = [p for p in swept.points if p.ranking in rankings and p.removal == "top" and p.stop]
    if not draws or not tops:
        return []
    differences = torch.stack(
        [
            torch.stack([right[point._replace(ranking=draw)] for draw in draws]).mean(0)
            - right[point]
            for point in tops
        ]
    )
    means = differences.double().mean(1)
    columns = (means, *interval_of_mean(differences.T))
    return [
        {"ranking": point.ranking, "stop": point.stop, "points": mean, "low": low, "high": high}
        for point, (mean, low, high) in zip(tops, torch.stack(columns, 1).tolist(), strict=True)
    ]
