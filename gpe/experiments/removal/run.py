"""``gpe rank``, ``gpe ablate`` and Figures 4 to 6: which channels hold position, and what is lost
without them (sections 4.2.1 to 4.2.3, S3)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from gpe.ablation import AblationResult, ablated, ablation_sweep
from gpe.data import SegmentationSet
from gpe.data.citypersons import Side, images_on_side, labels_on_side
from gpe.data.listing import spread
from gpe.data.pixels import SegmentationBatch
from gpe.errors import InputError
from gpe.experiments.canvases import LAST
from gpe.experiments.options import Config, Places
from gpe.experiments.processes import expect_trained, is_first, share
from gpe.experiments.progress import Progress
from gpe.experiments.removal import classify
from gpe.experiments.removal.config import (
    GRID,
    PAPER_CHANNELS,
    PAPER_COUNTS,
    ClassificationConfig,
    RemovalConfig,
    ranges_of,
)
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
from gpe.experiments.runs import PARTIAL, record, run_all
from gpe.experiments.segmentation import run as segmentation
from gpe.experiments.segmentation.config import SegmentationConfig
from gpe.experiments.segmentation.scores import SAMPLE_SIDE, answer_of, percent
from gpe.experiments.trained import Trained, about_layer, autocast
from gpe.models.deeplab import low_resolution_logits
from gpe.models.inside import layout_of
from gpe.models.stages import CLEAR, last_feature_map
from gpe.ranking import ChannelRanking, rank_channels
from gpe.ranking.derived import needed
from gpe.ranking.modes import ACTIVITY
from gpe.records import Record, save_arrays

SAMPLES = 3  # images of Figure 5
PEOPLE = ("person", "pedestrian")  # what datasets call them


def run(configs: Sequence[Config], places: Places, progress: Progress) -> list[Path]:
    """Does a job with each network; returns the directories of the records.

    ``"rank"`` ranks the channels of a layer and keeps the rankings, ``"ablate"`` also removes
    channels and scores what is left; ``"figure4"``, ``"figure5"`` and ``"figure6"`` are that with
    the paper's settings, or predictions to look at.

    Raises:
        InputError: a network, images or rankings that cannot be had or do not go together.
    """
    classifiers = [config for config in configs if isinstance(config, ClassificationConfig)]
    if classifiers:
        return classify.run(classifiers, places, progress)
    given = [
        _opened(config, places, progress) for config in configs if isinstance(config, RemovalConfig)
    ]
    networks = {config.weights_digest: network for config, network, _ in given}
    files = {config.rankings_digest: rankings for config, _, rankings in given}

    def do(config: RemovalConfig, directory: Path) -> Record:
        progress.tell(f"{config.job}: {config.network} on {config.data}")
        network, rankings = networks[config.weights_digest], files[config.rankings_digest]
        split = config.split or "val"
        images = segmentation.pixels(config, places, split, config.size, config.images)
        if config.job != "rank":  # to which labels tell nothing but who is on which side
            segmentation.expect_classes(network, images)
        model = network.model.to(config.device)
        one = next(images.batches(1, order=[0])).images
        progress.note(about_layer(network, config.layer, one))
        return _Target(config, model, images, directory).done(rankings)

    return run_all([config for config, *_ in given], places, progress, do)


def _opened(
    config: RemovalConfig, places: Places, progress: Progress
) -> tuple[RemovalConfig, Trained, dict[str, ChannelRanking]]:
    """What the configuration is about, with the digests of weights and rankings in it."""
    if not config.checkpoint:
        trained = _train(config, places, progress)
        config = replace(config, checkpoint=str(trained), preset=None)
    config, network = segmentation.open_segmenter(config)
    if config.layer == LAST:
        side = network.input_size or CLEAR
        image = torch.zeros(1, 3, *(config.size or (side, side)))
        last = last_feature_map(network.model, image, inside=network.inside)
        config = replace(config, layer=last)
    rankings = read_rankings(config)
    expect_about(rankings, [config.layer], [config.weights_digest])
    return replace(config, rankings_digest=digest_of(rankings)), network, rankings


def _train(config: RemovalConfig, places: Places, progress: Progress) -> Path:
    """The directory of the preset's network, which is trained unless it was before.

    Raises:
        InputError: torchrun started several processes: a training and what follows are two calls;
            or there are no images of the split.
    """
    expect_trained("gpe segment train")
    training = SegmentationConfig.of(
        preset=config.preset, device=config.device, precision=config.precision
    )
    looked_at = replace(config, data=training.data)
    segmentation.pixels(looked_at, places, config.split or "val", None, 1)  # told before, not after
    once = replace(places, force=False)  # --force is of the figure alone
    return segmentation.run([training], once, progress)[0]


_Found = tuple[dict[str, Any], dict[str, Tensor]]  # what a job found: result and arrays


class _Target:
    """A network and the images that it is looked at with."""

    def __init__(
        self, config: RemovalConfig, model: nn.Module, images: SegmentationSet, directory: Path
    ):
        self.config, self.model, self.images = config, model, images
        self.directory = directory
        self.at: dict[str, Any] = {"layer": config.layer, "channel_dim": config.channel_dim}
        self.subsets: dict[Side, list[str]] = {
            side: self._side(side) for side in get_args(Side) if side in needed(config.modes)
        }

    def done(self, given: Mapping[str, ChannelRanking]) -> Record:
        """The record of the job; rankings and arrays are left beside it."""
        width = self._channels()
        expect_channels(given, self.config.counts, width)
        ranked = self._rankings()
        wanted, matched = wanted_of(self.config, ranked)
        rankings = {**wanted, **given}
        config = self.config.removals(width)
        found: dict[str, Any] = {}
        arrays = arrays_of(rankings)
        if config.job == "figure5":
            found, kept = self._predicted(config, rankings)
            arrays |= kept
        elif config.job != "rank":
            draws = draws_of(config, width)
            found, kept = self._removed(config, {**rankings, **draws, **matched}, width)
            arrays |= kept
        if matched:
            found["shared"] = shared_of(matched, ranked["overall"].order, config.counts or ())
        if config.job == "figure6":
            found["grid"] = self._grid(config, ranked, width)
        if is_first():
            save_rankings(rankings, self.directory)
            save_arrays(self.directory, arrays)
        result = {
            "channels": width,
            "classes": list(self.images.classes),
            "images": len(self.images),
            "rankings": {name: shown(ranking) for name, ranking in rankings.items()},
            "subsets": {side: len(ids) for side, ids in self.subsets.items()},
            **found,
        }
        made = record(config.job, config, result, chance=100 / len(self.images.classes))
        return made if width == PAPER_CHANNELS else replace(made, paper=None)

    def _channels(self) -> int:
        """How many the layer has."""
        with self._autocast():
            one = next(self.images.batches(1, order=[0])).images
            dim = self.config.channel_dim
            return layout_of(self.model, self.config.layer, one, channel_dim=dim).channels

    def _rankings(self) -> dict[str, ChannelRanking]:
        """All that are asked for or needed for these, in one pass over the images."""
        config = self.config
        wanted = [*needed(config.modes)]
        if config.job == "figure6":
            wanted += [f"{ACTIVITY}{cell}" for cell in GRID]
        if not wanted:
            return {}

        def part(indices: Sequence[int]) -> tuple[dict[str, ChannelRanking], None]:
            ids = {self.images.ids[index] for index in indices}
            subsets: dict[str, list[str]] = {
                side: [i for i in all if i in ids] for side, all in self.subsets.items()
            }
            modes = [mode for mode in wanted if subsets.get(mode, ["all"])]
            if not modes:
                return {}, None
            with self._autocast():
                batches = self._batches(indices)
                found = rank_channels(
                    self.model, batches, modes=modes, subsets=subsets, keep=keep, **self.at
                )
                return found, None

        count = len(self.images)
        keep = kept_of(count)
        parts = in_parts(self.directory, count, config.batch_size or 1, part)
        return merged(rankings for rankings, _ in parts)

    def _removed(
        self, config: RemovalConfig, orders: Mapping[str, ChannelRanking | Tensor], width: int
    ) -> _Found:
        """What each region scores without the first channels of each order, or a range."""
        swept = self._swept(
            orders,
            "sweep",
            counts=config.counts or (),
            ranges=ranges_of(width) if config.ranges else (),
            regions=config.regions,
        )
        rows = _rows(swept)
        confusion = torch.stack([row.pop("confusion") for row in rows])
        whole = [row for row in rows if row["start"] == row["stop"] == 0]
        baseline = {row["region"]: row["miou"] for row in whole}
        engine = {} if swept.engine is None else asdict(swept.engine)
        engine["engine"] = engine.pop("name", "unknown")
        result = {"rows": rows, "baseline": baseline, **engine}
        return result, {"confusion": confusion}

    def _grid(
        self, config: RemovalConfig, ranked: Mapping[str, ChannelRanking], width: int
    ) -> dict[str, Any]:
        """What each region of a grid scores without the channels that are active in each."""
        count = round(PAPER_COUNTS[-1] / PAPER_CHANNELS * width)
        orders: dict[str, ChannelRanking | Tensor] = {
            cell: ranked[f"{ACTIVITY}{cell}"] for cell in GRID
        }
        swept = self._swept(
            orders | draws_of(config, width), "grid", counts=(0, count), regions=GRID
        )
        names = ("ranking", "stop", "region", "miou")
        rows = [{name: row[name] for name in names} for row in _rows(swept)]
        return {"count": count, "rows": rows}

    def _swept(
        self, orders: Mapping[str, ChannelRanking | Tensor], kept: str, **removed: Any
    ) -> AblationResult:
        """The ablation of all images, continued where an interrupted run kept it."""
        with self._autocast():
            return ablation_sweep(
                self.model,
                self._batches(range(len(self.images))),
                orders,
                **self.at,
                num_classes=len(self.images.classes),
                engine=self.config.engine,
                checkpoint=self.directory / f"{PARTIAL}-{kept}.safetensors",
                **removed,
            )

    @torch.no_grad()
    def _predicted(self, config: RemovalConfig, rankings: Mapping[str, ChannelRanking]) -> _Found:
        """Predictions for some images without the first channels of each ranking."""
        counts = config.counts or ()
        width = next(iter(rankings.values())).scores.numel()
        orders = {name: ranking.order for name, ranking in rankings.items()}
        orders["random"] = next(iter(draws_of(config, width).values()))
        chosen = self.images.part(spread(len(self.images), SAMPLES))
        arrays = {"palette": torch.tensor(self.images.palette, dtype=torch.uint8)}
        hits = {name: torch.zeros(len(counts), dtype=torch.int64) for name in orders}
        pixels = 0
        for sample in range(len(chosen)):
            image, labels = chosen.samples[sample]
            seen = chosen.normalise(image[None].to(config.device))
            pixels += int((labels != 255).sum())
            step = -(-max(labels.shape) // SAMPLE_SIDE)
            arrays[f"image{sample}"] = image[:, ::step, ::step]
            arrays[f"labels{sample}"] = labels[::step, ::step]
            for name, order in orders.items():
                answers = torch.stack([self._answer(seen, labels.shape, order[:n]) for n in counts])
                hits[name] += (answers == labels).sum((1, 2))
                arrays[f"{name}{sample}"] = answers[:, ::step, ::step]
        accuracy = {
            name: (100 * right / pixels).tolist() if pixels else [None] * len(counts)
            for name, right in hits.items()
        }
        names = {"counts": list(counts), "samples": list(chosen.ids)}
        return {**names, "accuracy": accuracy}, arrays

    def _answer(self, seen: Tensor, size: Sequence[int], channels: Tensor) -> Tensor:
        """Predictions uint8 ``[H,W]`` without ``channels``."""
        with self._autocast(), ablated(self.model, channels=channels, **self.at):
            logits = low_resolution_logits(self.model, seen)
        return answer_of(logits, size)

    def _side(self, side: Side) -> list[str]:
        config = self.config
        if config.boxes is None:
            known = [name for name in PEOPLE if name in self.images.classes]
            person = config.person or next(iter(known), PEOPLE[0])
            return labels_on_side(
                self.images, side, class_name=person, batch_size=config.batch_size or 1
            )
        there = set(self.images.ids)
        boxed = [name for name in images_on_side(config.boxes, side) if name in there]
        if not boxed:
            raise InputError(
                f"boxes: expected ids of {self.images.name}, got none in {config.boxes}"
            )
        return boxed

    def _batches(self, indices: Sequence[int]) -> Iterator[SegmentationBatch]:
        """Of this process."""
        return self.images.batches(self.config.batch_size or 1, order=share(indices))

    def _autocast(self) -> torch.autocast:
        return autocast(self.config.device, self.config.precision)


def _rows(swept: AblationResult) -> list[dict[str, Any]]:
    """In percent; None where a region has no label."""
    return [row | {"miou": percent(float(row["miou"]))} for row in swept.rows]
