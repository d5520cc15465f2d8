"""Every option of ``gpe explore``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpe.experiments.options import (
    WEIGHTS_HELP,
    Command,
    Config,
    device_option,
    option,
    seed_option,
    short_names,
)
from gpe.experiments.removal.config import CLASSIFIER_MODES, JOBS, MODES
from gpe.records import RECORD, Record

GRID = 3  # an image has so many regions to click on along each side
CELLS = "cells:"  # before the number of a region, in the names of rankings
IMAGES = {"segmentation": 32, "classification": 100}
# What a run of gpe rank, ablate or a figure says of its network and images.
_KNOWN = ("weights", "data", "split", "size", "output_stride", "layer")


@dataclass(frozen=True, kw_only=True)
class ExploreConfig(Config):
    """What is on the page."""

    model: str = option(
        "A segmentation network or a classifier: a run of gpe segment train or augshift; a run of "
        "gpe ablate or rank, for its rankings too; a name of torchvision or timm; or a file",
        argument=True,
    )
    weights: str | None = option(WEIGHTS_HELP, None, unset="pretrained")
    weights_digest: str = option("Of the network's weights", "", hidden=True)
    data: str | None = option(
        "To segment: streets, camvid, cityscapes or voc; to classify: digits, cifar10, cifar100, "
        "imagenet or a folder of images",
        None,
        unset="what it was trained on",
    )
    images: int | None = option(
        "Number of images that scores are over", None, unset="32, to classify 100", at_least=1
    )
    split: str | None = option("To segment: train, val or test", None, unset="val")
    size: tuple[int, int] | None = option(
        "To segment: size of images, HEIGHT,WIDTH (px)", None, unset="as it was trained", at_least=1
    )
    output_stride: int | None = option("Of a file's segmentation network: 8 or 16", None)
    layer: str | None = option(
        "Of a segmentation network: whose channels are removed", None, unset="backbone.layer4"
    )
    modes: tuple[str, ...] = option(
        f"Rank by: {', '.join(MODES)}; a classifier's channels by the first of "
        f"{', '.join(CLASSIFIER_MODES)}",
        ("overall",),
    )
    rankings: tuple[str, ...] = option("Files of further rankings, as FILE or NAME=FILE", ())
    rankings_digest: str = option("Of the files' content", "", hidden=True)
    random_seeds: int = option("Number of random orders to compare with", 1, at_least=0)
    counts: tuple[int, ...] | None = option(
        "How many channels to remove", None, unset="all twentieths", at_least=0
    )
    samples: int | None = option(
        "Number of images on the page", None, unset="6, to classify 24", at_least=1
    )
    alone: int = option(
        "Number of channels that are also removed one at a time, the first of the first ranking",
        256,
        at_least=1,
    )
    device: str = device_option()
    seed: int = seed_option("Seed of random orders")

    @classmethod
    def several(cls, **given: Any) -> "list[ExploreConfig]":  # type: ignore[override]
        return [cls.of(**given | _of_removal(given))]

    @property
    def title(self) -> tuple[str, ...]:
        return ("explore", *short_names(self.model, self.weights))


def _of_removal(given: dict[str, Any]) -> dict[str, Any]:
    """What follows where the network is named by a run that ranked or removed its channels."""
    run = Path(given["model"])
    if not (run / RECORD).exists():
        return {}
    record = Record.load(run)
    if record.experiment not in (*JOBS, "ablate-classify"):
        return {}
    names = [name for name in record.result["rankings"] if not name.startswith(CELLS)]
    files = [f"{name}={run / name.replace('/', '-')}.safetensors" for name in names]
    known = {name: record.config.get(name) for name in _KNOWN if given.get(name) is None}
    if record.experiment == "ablate-classify":
        known |= {"model": record.config["model"], "layer": None}
    else:
        known["model"] = record.config["checkpoint"]
    modes = () if given.get("modes") in (None, ("overall",)) else given["modes"]
    return known | {"modes": modes, "rankings": (*files, *(given.get("rankings") or ()))}


COMMANDS = (
    Command(
        "explore",
        ExploreConfig,
        run="run",
        help="Write a page to play with: drag how many channels are removed, and see what the "
        "network loses.\n\n"
        "One HTML file that needs nothing else, explore.html beside the record. Channels are "
        "ranked and removed by gpe ablate, whose run lies beside it.",
        places=("root", "download", "workers", "out", "resume", "force"),
    ),
)
