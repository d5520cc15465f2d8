"""Figure 5: predictions for a few images without some of the channels."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpe.experiments.removal.modes import in_order, mode_of
from gpe.experiments.removal.trials import each
from gpe.records import load_arrays
from gpe.report.blocks import (
    Block,
    Cell,
    Column,
    Finding,
    Heading,
    Key,
    Legend,
    Note,
    Picture,
    Pictures,
    Row,
    Section,
    Table,
)
from gpe.report.grouping import recipe
from gpe.report.plots import png
from gpe.report.runs import Run
from gpe.report.words import number, percent

_RECIPE = ("preset", "size", "precision", "seed")
_IGNORED = 255


@dataclass(frozen=True)
class Trial:
    """One network before a few images.

    Attributes:
        counts: how many channels were removed.
        accuracy: share of labelled pixels that are right over all samples, in percent, by the
            ranking whose first channels were removed, one for each of ``counts``; None where no
            pixel has a label.
        palette: uint8 ``[K,3]``; None without arrays.
        samples: of each image ``image`` uint8 ``[3,h,w]``, ``labels`` uint8 ``[h,w]`` and by
            ranking predictions uint8 ``[len(counts),h,w]``; none without arrays.
    """

    config: dict[str, Any]
    channels: int
    counts: list[int]
    names: list[str]
    classes: list[str]
    accuracy: dict[str, list[float | None]]
    palette: np.ndarray | None
    samples: list[dict[str, np.ndarray]]


def blocks(runs: Sequence[Run]) -> list[Block]:
    """The report of predictions.

    Raises:
        InputError: a record lacks what a record of Figure 5 has.
    """
    trials = each(runs, read)
    found: list[Block] = [Heading("What the network sees without its position channels", level=1)]
    found += [Finding(_finding(trial), title if len(trials) > 1 else "") for title, trial in trials]
    for title, trial in trials:
        found += [
            Heading(f"Figure 5: {title}"),
            Note(
                f"{recipe([trial], _RECIPE)}. N of the {trial.channels} channels removed; under "
                "each picture N, and the pixel accuracy, of labelled pixels."
            ),
            *_pictures(trial),
            _table(title, trial),
        ]
    about = "Pixel accuracy in percent, over the images of the report's Figure 5."
    return [*found, Note(about, where="terminal")]


def read(run: Run) -> Trial:
    """The trial in ``run``.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: its record is no such record.
        InputError: its arrays are damaged.
    """
    result = run.record.result
    counts = [int(number) for number in result["counts"]]
    accuracy = {
        name: [None if value is None else float(value) for value in result["accuracy"][name]]
        for name in in_order(set(result["accuracy"]))
    }
    if (
        not counts
        or not accuracy
        or any(len(values) != len(counts) for values in accuracy.values())
    ):
        raise ValueError(f"accuracy: expected a number for each of counts {counts}")
    arrays = {name: array.numpy() for name, array in load_arrays(run.directory).items()}
    names = [str(name) for name in result["samples"]]
    classes = [str(name) for name in result["classes"]]
    if arrays and ("palette" not in arrays or arrays["palette"].shape != (len(classes), 3)):
        raise ValueError(f"palette: expected ({len(classes)}, 3), one colour for each class")
    return Trial(
        config=run.record.config,
        channels=int(result["channels"]),
        counts=counts,
        names=names,
        classes=classes,
        accuracy=accuracy,
        palette=arrays.get("palette"),
        samples=[
            _sample(arrays, i, accuracy, len(counts)) for i in range(len(names) if arrays else 0)
        ],
    )


def _sample(
    arrays: dict[str, np.ndarray], index: int, rankings: Iterable[str], counts: int
) -> dict[str, np.ndarray]:
    sample = {name: arrays[f"{name}{index}"] for name in ("image", "labels", *rankings)}
    height, width = sample["labels"].shape
    expected = {name: (counts, height, width) for name in rankings} | {"image": (3, height, width)}
    for name, shape in expected.items():
        if sample[name].shape != shape:
            raise ValueError(f"{name}{index}: expected {shape}, got {sample[name].shape}")
    return sample


def _finding(trial: Trial) -> str:
    images = "the image" if len(trial.names) == 1 else f"the {len(trial.names)} images"
    parts = []
    for place, removed in enumerate(trial.counts):
        values = {
            name: value for name, of in trial.accuracy.items() if (value := of[place]) is not None
        }
        if not values:
            return f"No pixel of {images} has a label, so there is no accuracy."
        if removed == 0:
            value = next(iter(values.values()))
            parts.append(f"{percent(value)} with all {trial.channels} channels")
        else:
            without = (
                f"{percent(value)} without {removed} {mode_of(name).kind} ones"
                for name, value in values.items()
            )
            parts.append(", ".join(without))
    return (
        f"Pixel accuracy on {images}: {'; '.join(parts)}. A few images illustrate; they prove "
        "nothing."
    )


def _table(title: str, trial: Trial) -> Table:
    rows = [
        Row(str(removed), [Cell(number(values[place])) for values in trial.accuracy.values()])
        for place, removed in enumerate(trial.counts)
    ]
    columns = [Column(mode_of(name).kind) for name in trial.accuracy]
    return Table("removed", columns, [Section(rows)], title=title, where="terminal")


def _pictures(trial: Trial) -> list[Block]:
    """A row for each image and ranking: the image or its labels, then predictions by N."""
    if not trial.samples or trial.palette is None:
        return []
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(trial.palette)] = trial.palette
    rows: list[tuple[str, Sequence[Picture | None]]] = []
    present: set[int] = set()
    for name, sample in zip(trial.names, trial.samples, strict=False):
        for place, ranking in enumerate(trial.accuracy):
            predictions = sample[ranking]
            present |= set(np.unique(predictions).tolist())
            kind = mode_of(ranking).kind
            before = (_image(name, sample), _labels(name, sample, colours))
            first = before[place] if place < len(before) else None
            shown = [
                _prediction(sample["labels"], predictions[number], colours, f"{removed} {kind}")
                for number, removed in enumerate(trial.counts)
            ]
            rows.append((f"Without {kind} channels", [first, *shown]))
        if len(trial.accuracy) == 1:
            rows.append(("", [_labels(name, sample, colours)]))
        present |= set(np.unique(sample["labels"]).tolist())
    keys = [
        Key(name, "rgb({} {} {})".format(*colours[place]), "square")
        for place, name in enumerate(trial.classes)
        if place in present
    ]
    ignored = [Key("ignored", "rgb(0 0 0)", "square")] if _IGNORED in present else []
    return [Legend([*keys, *ignored]), Pictures(rows)]


def _image(name: str, sample: dict[str, np.ndarray]) -> Picture:
    pixels = np.ascontiguousarray(sample["image"].transpose(1, 2, 0))
    return Picture(png(pixels), name, text=f"image {name}")


def _labels(name: str, sample: dict[str, np.ndarray], colours: np.ndarray) -> Picture:
    source = png(colours[sample["labels"]], blend=False)
    return Picture(source, f"labels of {name}", text="labels")


def _prediction(
    labels: np.ndarray, predictions: np.ndarray, colours: np.ndarray, removed: str
) -> Picture:
    counted = labels != _IGNORED
    # What is to be ignored is black in both, so that they can be compared.
    source = png(colours[np.where(counted, predictions, _IGNORED)], blend=False)
    correct = percent(100 * float((predictions == labels)[counted].mean())) if counted.any() else ""
    alt = f"predictions without {removed} channels"
    return Picture(source, alt, bold=correct, text=f"{removed.partition(' ')[0]} removed")
