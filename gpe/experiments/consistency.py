"""``gpe consistency``: shift consistency of anybody's classifier on anybody's images."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Literal, get_args

import torch
from torch import Tensor

from gpe.errors import InputError, expect_at_least_one, expect_one_of
from gpe.experiments.images import images_for
from gpe.experiments.networks import expect_no_weights, open_classifier
from gpe.experiments.runs import expect_device, prepare
from gpe.experiments.under_shifts import (
    consistency_rows,
    expect_shifts,
    probabilities_under_shifts,
)
from gpe.metrics.views import ShiftProtocol
from gpe.records import Record, directory_name, environment, save_arrays

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class ConsistencyConfig:
    """What is scored, and how.

    Attributes:
        model, weights, image_size, resize_size: as for :func:`open_classifier`.
        data: the name of an image set, or a folder of images by class.
        images: at most so many, drawn by seed 0; all where None.

    Raises:
        InputError: an option outside what it may be.
    """

    model: str
    weights: str | None
    data: str
    protocol: ShiftProtocol
    shifts: tuple[int, ...]
    passes: int
    images: int | None
    image_size: int | None
    resize_size: int | None
    batch_size: int
    device: str
    precision: Precision

    def __post_init__(self):
        expect_one_of("protocol", self.protocol, get_args(ShiftProtocol))
        expect_one_of("precision", self.precision, get_args(Precision))
        for name in ("passes", "batch_size", "images", "image_size", "resize_size"):
            if getattr(self, name) is not None:
                expect_at_least_one(name, getattr(self, name))
        if not self.shifts or min(self.shifts) < 1:
            raise InputError(f"shifts: expected pixels of at least 1, got {self.shifts}")
        expect_no_weights(self.model, self.weights)
        expect_device(self.device)

    @property
    def name(self) -> str:
        """A directory name that tells what was scored."""
        parts = ("consistency", self.model.replace("/", "-").strip("-."), Path(self.data).name)
        return directory_name(self, *parts)


def score(
    config: ConsistencyConfig,
    out: Path,
    *,
    root: Path = Path("data"),
    download: bool = False,
    workers: int | None = None,
) -> Path:
    """Scores a network and leaves a record in ``out/<config.name>``, which is returned.

    Raises:
        InputError: a network, weights or images that cannot be had, a shift that the protocol
            has no pixels for, or a directory that cannot be made.
    """
    start = perf_counter()
    sizes = {"image_size": config.image_size, "resize_size": config.resize_size}
    opened = open_classifier(config.model, config.weights, **sizes)
    expect_shifts(
        config.shifts,
        config.protocol,
        image_size=opened.input_size,
        resize_size=opened.resize_size,
    )
    images = images_for(
        config.data,
        opened,
        images=config.images,
        border=config.protocol == "crop",
        root=root,
        download=download,
        workers=workers,
    ).to(config.device)
    directory = prepare(out / config.name)
    labelled = len(images.classes) == opened.classes
    device = torch.device(config.device)
    model = opened.model.to(device)
    bf16 = config.precision == "bf16"

    @torch.no_grad()
    def logits(views: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            return model(views)

    options = {
        "protocol": config.protocol,
        "size": opened.input_size,
        "batch_size": config.batch_size,
        "mean": opened.mean,
        "std": opened.std,
    }
    # Two views of an image that does not move say how accurate the network is as it stands.
    unmoved, *rows = consistency_rows(
        logits,
        images,
        shifts=(0, *config.shifts),
        passes=config.passes,
        labelled=labelled,
        **options,
    )
    arrays = probabilities_under_shifts(logits, images, **options)
    save_arrays(directory, arrays)
    Record(
        experiment="consistency",
        config=json.loads(json.dumps(asdict(config))) | {"network": opened.name},
        epochs=[],
        result={
            "consistency": rows,
            "accuracy": unmoved["accuracy"],
            "classes": list(images.classes) if labelled else [],
        },
        chance=100 / opened.classes,
        paper=None,
        run={
            "seconds": perf_counter() - start,
            "images": len(images),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            **environment(device),
        },
    ).save(directory)
    return directory
