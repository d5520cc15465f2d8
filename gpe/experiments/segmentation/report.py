"""What segmentation networks reach: mIoU of the image and its parts, by class, and pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpe.experiments.segmentation.config import BACKBONES
from gpe.records import load_arrays
from gpe.report.blocks import (
    Bar,
    Block,
    Cell,
    Column,
    Finding,
    Heading,
    Note,
    Picture,
    Pictures,
    Row,
    Section,
    Table,
)
from gpe.report.grouping import grouped, recipe, with_variants
from gpe.report.plots import png
from gpe.report.runs import Run
from gpe.report.words import count, number, percent

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
        miou: in percent, by region; None where a region has no labelled pixel.
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
    miou: dict[str, float | None]
    iou: dict[str, list[float | None]]
    accuracy: float | None
    images: int
    paper: float | None = None
    variant: str = ""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a table says below the label."""
        seed = [f"seed {self.config['seed']}"] if "seed" in self.config else []
        return tuple([*seed, *filter(None, [self.variant])])


def blocks(runs: Sequence[Run]) -> list[Block]:
    """The report of segmentation networks.

    Raises:
        InputError: a record lacks what a segment record has.
    """
    trials = [run.read(_read) for run in runs]
    groups = [
        with_variants(table, cell=("label",)) for table in grouped(trials, "data", "split").values()
    ]
    found: list[Block] = [Heading("What is where: segmentation", level=1)]
    found += [Finding(text) for group in groups for text in findings(group)]
    found.append(
        Note(
            "Intersection over union (IoU): of the pixels that are of a class or were predicted to "
            "be, the share that are both. mIoU is its mean over the classes that a region has. "
            "Regions: the whole image, its left and right half, and the half in its centre."
        )
    )
    for group in groups:
        found += _of_group(group)
    found.append(
        Note("Intersection over union in percent; mIoU: its mean over the classes.", "terminal")
    )
    return found


def findings(trials: Sequence[Trial]) -> list[str]:
    """A sentence for each network."""
    found = []
    for trial in trials:
        full, left, right = (trial.miou.get(region) for region in ("full", "left", "right"))
        if full is not None and left is not None and right is not None:
            found.append(
                f"{trial.label} reaches an mIoU of {percent(full)} on {trial.data}: "
                f"{percent(left)} in the left half, {percent(right)} in the right half."
            )
    return found


def _of_group(group: Sequence[Trial]) -> list[Block]:
    first = group[0]
    title = f"{first.data}, {first.split}, {count(first.images, 'image')}"
    found: list[Block] = [Heading(title)]
    if options := recipe(group, _RECIPE):
        found.append(Note(f"{options}."))
    regions = list(first.miou)
    rows = [Row(trial.label, _scores(trial, regions), notes=trial.notes) for trial in group]
    columns = [Column("mIoU", aside=region) for region in regions]
    found += [
        Table("Network", [*columns, Column("pixel accuracy")], [Section(rows)], where="page"),
        Note("In percent, over the whole split."),
    ]
    for trial in group:
        arrays = {name: array.numpy() for name, array in load_arrays(trial.directory).items()}
        label = ", ".join((trial.label, *trial.notes))
        found += [
            Heading(f"{label}: by class", level=3),
            _by_class(trial, f"{title}, {label}", arrays.get("palette")),
            *_pictures(arrays),
        ]
    return found


def _scores(trial: Trial, regions: Sequence[str]) -> list[Cell | None]:
    paper = {regions[0]: trial.paper}
    cells = [_cell(trial.miou.get(region), paper.get(region), bar=True) for region in regions]
    return [*cells, _cell(trial.accuracy)]


def _by_class(trial: Trial, title: str, palette: np.ndarray | None) -> Table:
    means = [
        _cell(value, None if place else trial.paper)
        for place, value in enumerate(trial.miou.values())
    ]
    rows = [
        Row(
            name,
            [_cell(values[place]) for values in trial.iou.values()],
            colour="" if palette is None else "rgb({} {} {})".format(*palette[place].tolist()),
        )
        for place, name in enumerate(trial.classes)
    ]
    sections = [Section([Row("mIoU", means)]), Section(rows)]
    columns = [Column(region) for region in trial.miou]
    return Table("class", columns, sections, style="plain", title=title)


def _cell(value: float | None, paper: float | None = None, *, bar: bool = False) -> Cell | None:
    if value is None:
        return None
    told = "" if paper is None else number(paper)
    return Cell(number(value), paper=told, bar=Bar(value) if bar else None)


def _pictures(arrays: dict[str, np.ndarray]) -> list[Block]:
    """Image, labels and predictions of a few images; none without arrays."""
    colours = np.zeros((256, 3), np.uint8)
    if "palette" in arrays:
        colours[: len(arrays["palette"])] = arrays["palette"]
    rows: list[tuple[str, list[Picture | None]]] = []
    while len(rows) < _PICTURES and f"image{len(rows)}" in arrays:
        place = len(rows)
        image, labels, predictions = (
            arrays[f"{name}{place}"] for name in ("image", "labels", "predictions")
        )
        # What is to be ignored is black in both, so that they can be compared.
        predictions = np.where(labels == _IGNORED, _IGNORED, predictions)
        shown: list[Picture | None] = [
            Picture(png(np.ascontiguousarray(image.transpose(1, 2, 0))), f"image {place}"),
            Picture(png(colours[labels], blend=False), f"labels of image {place}"),
            Picture(png(colours[predictions], blend=False), f"predictions for image {place}"),
        ]
        rows.append(("", shown))
    if not rows:
        return []
    about = "Left to right: image; labels, in which black is ignored; predictions."
    return [Pictures(rows, size="large"), Note(about)]


def _read(run: Run) -> Trial:
    record, config = run.record, run.record.config
    return Trial(
        config=config,
        directory=run.directory,
        data=str(config["data"]),
        split=str(config["split"]),
        label=str(config["network"]) if "network" in config else _label(config),
        classes=[str(name) for name in record.result["classes"]],
        miou={str(name): _number(value) for name, value in record.result["miou"].items()},
        iou={
            str(name): [_number(value) for value in values]
            for name, values in record.result["iou"].items()
        },
        accuracy=_number(record.result["pixel_accuracy"]),
        images=int(record.result["images"]),
        paper=float(record.paper["value"]) if record.paper else None,
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _label(config: dict[str, Any]) -> str:
    name = f"DeepLabv3-{BACKBONES.get(config['backbone'], config['backbone'])}"
    return name if config["width"] == 64 else f"{name}, width {config['width']}"
