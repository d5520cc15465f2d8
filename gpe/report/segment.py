"""What segmentation networks reach: mIoU of the image and its parts, by class, and pictures."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gpe.records import load_arrays
from gpe.report.figures import png
from gpe.report.grouping import grouped, recipe, with_variants
from gpe.report.runs import Run
from gpe.report.words import count, percent

_RECIPE = (
    *("size", "crop", "scales", "train_images", "epochs", "batch_size", "learning_rate"),
    *("output_stride", "precision"),
)
_PICTURES = 3
_IGNORED = 255


@dataclass(frozen=True)
class Trial:
    """One network, scored on one split.

    Attributes:
        label: of the network.
        miou: in percent, by region.
        iou: by region, in percent for each of ``classes``; None where there is none of it.
        paper: the paper's mIoU of the whole image, or None.
        variant: how it differs, but for the seed, from others of the same label.
    """

    config: dict[str, Any]
    directory: Path
    data: str
    split: str
    label: str
    classes: list[str]
    miou: dict[str, float]
    iou: dict[str, list[float | None]]
    accuracy: float
    images: int
    paper: float | None = None
    variant: str = field(default="")


def section(runs: Sequence[Run]) -> dict[str, Any]:
    """The context of ``segment.html``: one group for each split of a dataset.

    Raises:
        InputError: a record lacks what a segment record has.
    """
    return {"groups": [_group(trials) for trials in tables(runs)]}


def tables(runs: Sequence[Run]) -> list[list[Trial]]:
    """The trials in ``runs``, by dataset and split.

    Raises:
        InputError: a record lacks what a segment record has.
    """
    trials = [run.read(_read) for run in runs]
    return [
        with_variants(table, cell=("label",)) for table in grouped(trials, "data", "split").values()
    ]


def title(trials: Sequence[Trial]) -> str:
    """Of the table of ``trials``."""
    first = trials[0]
    return f"{first.data}, {first.split}, {count(first.images, 'image')}"


def findings(trials: Sequence[Trial]) -> list[str]:
    """A sentence for each network."""
    return [
        f"{trial.label} reaches an mIoU of {percent(trial.miou['full'])} on {trial.data}: "
        f"{percent(trial.miou['left'])} in the left half, {percent(trial.miou['right'])} in the "
        f"right one."
        for trial in trials
        if {"full", "left", "right"} <= trial.miou.keys()
    ]


def notes(trial: Trial) -> list[str]:
    """What a table says under the label of a network."""
    seed = [f"seed {trial.config['seed']}"] if "seed" in trial.config else []
    return [*seed, *filter(None, [trial.variant])]


def _group(trials: Sequence[Trial]) -> dict[str, Any]:
    return {
        "title": title(trials),
        "recipe": recipe(trials, _RECIPE),
        "findings": findings(trials),
        "regions": list(trials[0].miou),
        "networks": [_network(trial) for trial in trials],
    }


def _network(trial: Trial) -> dict[str, Any]:
    arrays = {name: array.numpy() for name, array in load_arrays(trial.directory).items()}
    return {
        "label": trial.label,
        "notes": notes(trial),
        "miou": trial.miou,
        "accuracy": trial.accuracy,
        "paper": trial.paper,
        "classes": _by_class(trial, arrays.get("palette")),
        "pictures": _pictures(arrays),
    }


def _by_class(trial: Trial, palette: np.ndarray | None) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "colour": "" if palette is None else "rgb({} {} {})".format(*palette[place].tolist()),
            "iou": [values[place] for values in trial.iou.values()],
        }
        for place, name in enumerate(trial.classes)
    ]


def _pictures(arrays: dict[str, np.ndarray]) -> list[dict[str, str]]:
    """Image, labels and predictions of a few images; none without arrays."""
    colours = np.zeros((256, 3), np.uint8)
    if "palette" in arrays:
        colours[: len(arrays["palette"])] = arrays["palette"]
    pictures = []
    while len(pictures) < _PICTURES and f"image{len(pictures)}" in arrays:
        image, labels, predictions = (
            arrays[f"{name}{len(pictures)}"] for name in ("image", "labels", "predictions")
        )
        # What is to be ignored is black in both, so that they can be compared.
        predictions = np.where(labels == _IGNORED, _IGNORED, predictions)
        pictures.append(
            {
                "image": png(np.ascontiguousarray(image.transpose(1, 2, 0))),
                "labels": png(colours[labels], blend=False),
                "predictions": png(colours[predictions], blend=False),
            }
        )
    return pictures


def _read(run: Run) -> Trial:
    record, config = run.record, run.record.config
    return Trial(
        config=config,
        directory=run.directory,
        data=str(config["data"]),
        split=str(config["split"]),
        label=str(config["network"]) if "network" in config else _label(config),
        classes=[str(name) for name in record.result["classes"]],
        miou={str(name): float(value) for name, value in record.result["miou"].items()},
        iou={
            str(name): [None if value is None else float(value) for value in values]
            for name, values in record.result["iou"].items()
        },
        accuracy=float(record.result["pixel_accuracy"]),
        images=int(record.result["images"]),
        paper=float(record.paper["value"]) if record.paper else None,
    )


def _label(config: dict[str, Any]) -> str:
    names = {"resnet18": "ResNet-18", "resnet50": "ResNet-50"}
    name = f"DeepLabv3-{names.get(config['backbone'], config['backbone'])}"
    return name if config["width"] == 64 else f"{name}, width {config['width']}"
