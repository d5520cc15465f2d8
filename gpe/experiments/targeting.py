"""``gpe rank``, ``gpe ablate`` and Figures 4 to 6: which channels hold position, and what goes
without them (sections 4.2.1 to 4.2.3, S3)."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpe.ablation import ablated, ablation_sweep, random_orders
from gpe.data import SegmentationSet, segmentation_set
from gpe.data.citypersons import images_on_side, labels_on_side
from gpe.data.pixels import SegmentationBatch, default_workers
from gpe.errors import InputError
from gpe.experiments.processes import is_first, share
from gpe.experiments.rankings import arrays_of, read_rankings, save_rankings, shown
from gpe.experiments.region_scores import SAMPLE_SIDE
from gpe.experiments.runs import prepare
from gpe.experiments.segmentation_evaluation import load_segmenter
from gpe.experiments.targeting_config import FIGURE_4, Job, TargetingConfig, step_of
from gpe.models.deeplab import low_resolution_logits
from gpe.ranking import ChannelRanking, rank_channels
from gpe.records import RECORD, Record, environment, save_arrays

SAMPLES = 3  # images of Figure 5
PEOPLE = ("person", "pedestrian")  # what datasets call them


def run(
    job: Job,
    checkpoint: str,
    out: Path,
    *,
    root: Path = Path("data"),
    workers: int | None = None,
    force: bool = False,
    **options: Any,
) -> Path:
    """Does a job and leaves a record in a directory below ``out``, which is returned.

    Args:
        job: ``"rank"`` ranks the channels of a layer and keeps the rankings, ``"ablate"`` also
            removes channels and scores what is left; ``"figure4"``, ``"figure5"`` and
            ``"figure6"`` are that with the paper's settings, or predictions to look at.
        checkpoint: as for :func:`load_segmenter`.
        out: made where it is not there.
        root: where the files of the dataset lie.
        workers: processes that read images; one a core where None.
        force: do it again although it was finished.
        options: of :class:`TargetingConfig`; those that are None or missing are the job's own.

    Raises:
        InputError: a network, images or rankings that cannot be had or do not go together, an
            option outside what it may be, or a directory that cannot be made.
    """
    start = perf_counter()
    segmenter = load_segmenter(checkpoint, output_stride=options.get("output_stride"))
    config = TargetingConfig.of(job, segmenter, str(checkpoint), **options)
    directory = out / config.name
    if (directory / RECORD).exists() and not force:
        return directory
    images = segmentation_set(
        config.data,
        root,
        config.split,
        config.size,
        images=config.images,
        workers=default_workers(workers),
    ).to(config.device)
    if segmenter.classes not in (None, images.classes):
        raise InputError(
            f"data: expected a set with the classes of {segmenter.name}, got {images.name}"
        )
    target = _Target(config, segmenter.model.to(config.device), images)
    rankings = target.rankings()
    find = {"rank": target.ranked, "figure5": target.predicted}.get(job, target.removed)
    found = find(rankings)
    if not is_first():
        return directory
    prepare(directory)
    save_rankings(rankings, directory)
    save_arrays(directory, arrays_of(rankings) | found.arrays)
    width = next(iter(rankings.values())).scores.numel()
    Record(
        experiment=job,
        config=json.loads(json.dumps(asdict(config.removals(width)))),
        epochs=[],
        result={
            "channels": width,
            "classes": list(images.classes),
            "images": len(images),
            "rankings": {name: shown(ranking) for name, ranking in rankings.items()},
            "subsets": {side: len(ids) for side, ids in target.subsets.items()},
            **found.result,
        },
        chance=100 / len(images.classes),
        paper=_paper(config, width),
        run={
            "seconds": perf_counter() - start,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            **environment(torch.device(config.device)),
        },
    ).save(directory)
    return directory


@dataclass(frozen=True)
class _Found:
    """What a job found, for its record."""

    result: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, Tensor] = field(default_factory=dict)


class _Target:
    """A network and the images that it is looked at with."""

    def __init__(self, config: TargetingConfig, model: nn.Module, images: SegmentationSet):
        self.config, self.model = config, model
        # Read twice, to rank and to score: what is small enough stays in memory.
        self.images = images.cached() if config.data in ("streets", "camvid") else images
        self.subsets = {
            side: self._side(side) for side in ("left", "right") if side in config.modes
        }

    def rankings(self) -> dict[str, ChannelRanking]:
        """All that are asked for, in one pass over the images."""
        config, found = self.config, {}
        if config.modes:
            with self._autocast():
                found = rank_channels(
                    self.model,
                    self._batches(),
                    layer=config.layer,
                    modes=config.modes,
                    subsets=self.subsets,
                )
        return found | read_rankings(config.rankings)

    def ranked(self, rankings: Mapping[str, ChannelRanking]) -> _Found:
        return _Found()

    def removed(self, rankings: Mapping[str, ChannelRanking]) -> _Found:
        """What each region scores without the first channels of each ranking, or a range."""
        width = next(iter(rankings.values())).scores.numel()
        config = self.config.removals(width)
        step = step_of(width)
        ranges = [(start, start + step) for start in range(0, width - step + 1, step)]
        with self._autocast():
            swept = ablation_sweep(
                self.model,
                self._batches(),
                {**rankings, **self._random_orders(width)},
                layer=config.layer,
                counts=config.counts,
                ranges=ranges if config.ranges else (),
                regions=config.regions,
                num_classes=len(self.images.classes),
                engine=config.engine,
            )
        rows = [dict(row) for row in swept.rows]
        confusion = torch.stack([row.pop("confusion") for row in rows])
        for row in rows:
            row["miou"] = 100 * float(row["miou"])
        whole = [row for row in rows if row["start"] == row["stop"] == 0]
        baseline = {row["region"]: row["miou"] for row in whole}
        engine = asdict(swept.engine)
        engine["engine"] = engine.pop("name")
        result = {"rows": rows, "baseline": baseline, **engine}
        return _Found(result, {"confusion": confusion})

    @torch.no_grad()
    def predicted(self, rankings: Mapping[str, ChannelRanking]) -> _Found:
        """What the network says of some images without the first channels of two rankings."""
        width = next(iter(rankings.values())).scores.numel()
        config = self.config.removals(width)
        orders = {name: ranking.order for name, ranking in rankings.items()}
        orders["random"] = next(iter(self._random_orders(width).values()))
        count = min(SAMPLES, len(self.images))
        chosen = self.images.part([number * len(self.images) // count for number in range(count)])
        arrays = {"palette": torch.tensor(self.images.palette, dtype=torch.uint8)}
        hits = {name: torch.zeros(len(config.counts), dtype=torch.int64) for name in orders}
        pixels = 0
        for sample, (image, labels) in enumerate(chosen.samples):
            seen = chosen.normalise(image[None].to(config.device))
            pixels += int((labels != 255).sum())
            step = -(-max(labels.shape) // SAMPLE_SIDE)
            arrays[f"image{sample}"] = image[:, ::step, ::step]
            arrays[f"labels{sample}"] = labels[::step, ::step]
            for name, order in orders.items():
                answers = torch.stack(
                    [self._answer(seen, labels.shape, order[:n]) for n in config.counts]
                )
                hits[name] += (answers == labels).sum((1, 2))
                arrays[f"{name}{sample}"] = answers[:, ::step, ::step]
        accuracy = {name: (100 * right / pixels).tolist() for name, right in hits.items()}
        names = {"counts": list(config.counts), "samples": list(chosen.ids)}
        return _Found({**names, "accuracy": accuracy}, arrays)

    def _answer(self, seen: Tensor, size: tuple[int, int], channels: Tensor) -> Tensor:
        """Predictions uint8 ``[H,W]`` without ``channels``."""
        with self._autocast(), ablated(self.model, self.config.layer, channels):
            logits = low_resolution_logits(self.model, seen)
        full = F.interpolate(logits.float(), tuple(size), mode="bilinear")
        return full[0].argmax(0).byte().cpu()

    def _random_orders(self, width: int) -> dict[str, Tensor]:
        seed = self.config.seed
        return random_orders(width, range(seed, seed + self.config.random_seeds))

    def _side(self, side: str) -> list[str]:
        config = self.config
        if config.boxes is None:
            known = [name for name in PEOPLE if name in self.images.classes]
            person = config.person or next(iter(known), PEOPLE[0])
            return labels_on_side(
                self.images, side, class_name=person, batch_size=config.batch_size
            )
        there = set(self.images.ids)
        found = [name for name in images_on_side(config.boxes, side) if name in there]
        if not found:
            raise InputError(
                f"boxes: expected ids of {self.images.name}, got none in {config.boxes}"
            )
        return found

    def _batches(self) -> Iterator[SegmentationBatch]:
        """Of this process."""
        return self.images.batches(self.config.batch_size, order=share(len(self.images)))

    def _autocast(self) -> torch.autocast:
        device = torch.device(self.config.device).type
        return torch.autocast(device, torch.bfloat16, enabled=self.config.precision == "bf16")


def _paper(config: TargetingConfig, width: int) -> dict[str, Any] | None:
    """Figure 4's numbers, for the network and the set that they are of."""
    if config.job not in ("ablate", "figure4") or (config.data, width) != ("cityscapes", 2048):
        return None
    rows = [
        {"ranking": name, "removal": "top", "start": 0, "stop": n, "region": "full", "miou": miou}
        for (name, n), miou in FIGURE_4.items()
    ]
    return {"source": "Figure 4", "protocol": "DeepLabv3-ResNet-50, output stride 16", "rows": rows}
