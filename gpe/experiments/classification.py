"""``gpe ablate --task classify``: top-1 without channels before a classifier's linear layer."""

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from time import perf_counter
from typing import Any, get_args

import torch
from torch import Tensor

from gpe.ablation import ClassifierAblation, classifier_sweep, random_orders
from gpe.data import centre_view
from gpe.errors import InputError, expect_at_least_one, expect_one_of
from gpe.experiments.images import Images, images_for
from gpe.experiments.networks import expect_no_weights, open_classifier
from gpe.experiments.processes import several
from gpe.experiments.rankings import arrays_of, read_rankings, save_rankings, shown
from gpe.experiments.runs import expect_device, expect_seed, prepare
from gpe.experiments.segmentation_config import Precision
from gpe.experiments.targeting_config import step_of
from gpe.models.head import SplitClassifier, split_classifier
from gpe.models.pretrained import OpenedModel
from gpe.ranking import ChannelRanking, rank_channels
from gpe.records import RECORD, Record, directory_name, environment, save_arrays
from gpe.statistics import interval_of_mean, paired_difference

MODES = ("overall", "kernel_flip_mirror", "kernel_flip_pair")


@dataclass(frozen=True)
class ClassificationConfig:
    """Every option of one run.

    Attributes:
        model, weights: as for :func:`open_classifier`.
        data: the name of an image set, or a folder of images by class; its test images are
            ranked and scored on.
        images: at most so many, drawn by seed 0; all where None.
        image_size, resize_size: in pixels, the model's where None.
        modes: that channels are ranked by, of ``MODES``: no image says which side it is of.
        rankings: files of rankings, besides or in place of ``modes``.
        random_seeds: how many random orders there are to compare with.
        counts: how many channels are removed; None: from none to all in steps of a twentieth.
        ranges: whether each twentieth of a ranking is removed by itself, too.
        seed: of the random orders.

    Raises:
        InputError: an option outside what it may be.
    """

    model: str
    data: str
    weights: str | None = None
    images: int | None = None
    image_size: int | None = None
    resize_size: int | None = None
    modes: tuple[str, ...] = ("overall",)
    rankings: tuple[str, ...] = ()
    random_seeds: int = 5
    counts: tuple[int, ...] | None = None
    ranges: bool = True
    batch_size: int = 64
    device: str = "cpu"
    precision: Precision = "fp32"
    seed: int = 0

    def __post_init__(self):
        expect_one_of("precision", self.precision, get_args(Precision))
        for mode in self.modes:
            expect_one_of("modes", mode, MODES)
        if not self.modes and not self.rankings:
            raise InputError("modes: expected at least one, got none")
        for name in ("batch_size", "images", "image_size", "resize_size"):
            if getattr(self, name) is not None:
                expect_at_least_one(name, getattr(self, name))
        if self.random_seeds < 0:
            raise InputError(f"random_seeds: expected at least 0, got {self.random_seeds}")
        if self.counts is not None and (not self.counts or min(self.counts) < 0):
            raise InputError(f"counts: expected numbers of channels, got {self.counts}")
        expect_no_weights(self.model, self.weights)
        expect_seed(self.seed)
        expect_device(self.device)

    @property
    def name(self) -> str:
        """A directory name that tells what the run is; no two configurations share one."""
        parts = (self.model.replace("/", "-").strip("-."), Path(self.data).name)
        return directory_name(self, "ablate-classify", *parts)

    def removals(self, channels: int) -> dict[str, Any]:
        """``counts``, none always among them, and ``ranges`` for a layer of so many channels."""
        step = step_of(channels)
        counts = range(0, channels, step) if self.counts is None else (0, *self.counts)
        ranges = [(start, start + step) for start in range(0, channels - step + 1, step)]
        return {"counts": list(dict.fromkeys(counts)), "ranges": ranges if self.ranges else []}


def ablate(
    config: ClassificationConfig,
    out: Path,
    *,
    root: Path = Path("data"),
    download: bool = False,
    workers: int | None = None,
    force: bool = False,
) -> Path:
    """Ranks and removes channels and leaves a record in ``out/<config.name>``, which is returned.

    Each image passes the network once for its latent, and as often as the modes ask for to rank;
    all else are products of the latents.

    Args:
        config: what to do.
        out: made where it is not there.
        root, download, workers: as for :func:`images_for`.
        force: do it again although it was finished.

    Raises:
        InputError: a network, images or rankings that cannot be had or do not go together, or a
            directory that cannot be made.
    """
    start = perf_counter()
    directory = out / config.name
    if (directory / RECORD).exists() and not force:
        return directory
    if several():
        raise InputError("task: expected one process for classify, got several")
    sizes = {"image_size": config.image_size, "resize_size": config.resize_size}
    opened = open_classifier(config.model, config.weights, **sizes)
    places = {"root": root, "download": download, "workers": workers}
    images = images_for(config.data, opened, images=config.images, **places).to(config.device)
    if len(images.classes) != opened.classes:
        raise InputError(
            f"data: expected a set of the {opened.classes} classes that {opened.name} knows, "
            f"got {len(images.classes)} in {config.data}"
        )
    opened.model.to(config.device)
    split, latents, rankings = _seen(config, opened, images)
    width = split.head.in_features
    draws = random_orders(width, range(config.seed, config.seed + config.random_seeds))
    removals = config.removals(width)
    swept = classifier_sweep(
        latents, images.labels, split.head.float(), {**rankings, **draws}, **removals
    )
    prepare(directory)
    save_rankings(rankings, directory)
    save_arrays(directory, arrays_of(rankings) | {"right": swept.right})
    own = asdict(config) | {"counts": removals["counts"]}
    known = {"task": "classify", "network": opened.name, "layer": split.layer}
    Record(
        experiment="ablate-classify",
        config=json.loads(json.dumps(own | known)),
        epochs=[],
        result={
            "channels": width,
            "classes": list(images.classes),
            "images": len(images),
            "rankings": {name: shown(ranking) for name, ranking in rankings.items()},
            "rows": _rows(swept),
            "excess": _excess(swept, list(rankings), list(draws)),
        },
        chance=100 / opened.classes,
        paper=None,
        run={
            "seconds": perf_counter() - start,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            **environment(torch.device(config.device)),
        },
    ).save(directory)
    return directory


def _seen(
    config: ClassificationConfig, opened: OpenedModel, images: Images
) -> tuple[SplitClassifier, Tensor, dict[str, ChannelRanking]]:
    """Both parts of the network, the latents of all images, and the rankings: in one reading."""
    views = _views(config, opened, images)
    first = next(views)
    latents, rankings = [], {}
    bf16 = config.precision == "bf16"
    with torch.autocast(torch.device(config.device).type, torch.bfloat16, enabled=bf16):
        split = split_classifier(opened.model, first[:2])

        def seen() -> Iterator[Tensor]:
            """The views, whose latents are kept as they pass."""
            for batch in chain([first], views):
                with torch.no_grad():
                    latents.append(split.trunk(batch).float())
                yield batch

        if config.modes:
            rankings = rank_channels(split.trunk, seen(), layer=split.layer, modes=config.modes)
        else:
            deque(seen(), maxlen=0)
    return split, torch.cat(latents), rankings | read_rankings(config.rankings)


def _views(config: ClassificationConfig, opened: OpenedModel, images: Images) -> Iterator[Tensor]:
    """The normalised centres of all images, batch by batch."""
    options = {"mean": opened.mean, "std": opened.std, "dtype": torch.float32}
    order = torch.arange(len(images))
    for batch in images.batches(order, config.batch_size):
        yield centre_view(batch, opened.input_size, **options)


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
    random = [
        torch.stack([right[point._replace(ranking=draw)] for draw in draws]).mean(0)
        for point in tops
    ]
    columns = paired_difference(torch.stack(random, 1), torch.stack([right[p] for p in tops], 1))
    return [
        {"ranking": point.ranking, "stop": point.stop, "points": mean, "low": low, "high": high}
        for point, (mean, low, high) in zip(tops, columns.T.tolist(), strict=True)
    ]
