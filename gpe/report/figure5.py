"""Figure 5: what the network says of a few images without some of its channels."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpe.records import load_arrays
from gpe.report.figures import png
from gpe.report.given_networks import each
from gpe.report.grouping import recipe
from gpe.report.rankings import in_order, ranking_of
from gpe.report.runs import Run
from gpe.report.words import percent

_RECIPE = ("preset", "size", "precision", "seed")
_IGNORED = 255


@dataclass(frozen=True)
class Trial:
    """One network before a few images.

    Attributes:
        counts: how many channels were removed.
        accuracy: share of labelled pixels that are right over all samples, in percent, by the
            ranking whose first channels were removed, one for each of ``counts``.
        palette: uint8 ``[K,3]``; None without arrays.
        samples: of each image ``image`` uint8 ``[3,h,w]``, ``labels`` uint8 ``[h,w]`` and by
            ranking predictions uint8 ``[len(counts),h,w]``; none without arrays.
    """

    config: dict[str, Any]
    channels: int
    counts: list[int]
    names: list[str]
    classes: list[str]
    accuracy: dict[str, list[float]]
    palette: np.ndarray | None
    samples: list[dict[str, np.ndarray]]


def section(runs: Sequence[Run]) -> dict[str, Any]:
    """The context of ``figure5.html``: one group for each network.

    Raises:
        InputError: a record lacks what a record of Figure 5 has.
    """
    return {"groups": [_group(title, trial) for title, trial in each(runs, read)]}


def findings(runs: Sequence[Run]) -> list[str]:
    """A sentence for each network, under its title where there are several.

    Raises:
        InputError: as of :func:`section`.
    """
    found = each(runs, read)
    return [
        f"{title}: {_finding(trial)}" if len(found) > 1 else _finding(trial)
        for title, trial in found
    ]


def read(run: Run) -> Trial:
    """The trial in ``run``.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: its record is no such record.
        InputError: its arrays are damaged.
    """
    result = run.record.result
    counts = [int(number) for number in result["counts"]]
    accuracy = {
        name: [float(value) for value in result["accuracy"][name]]
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
    for number, values in table(trial):
        if number == 0:
            parts.append(f"with all {trial.channels} channels {percent(values[0])}")
        else:
            without = (
                f"without {number} {ranking_of(name).kind} ones {percent(value)}"
                for name, value in zip(trial.accuracy, values, strict=True)
            )
            parts.append(", ".join(without))
    return (
        f"Of the labelled pixels of {images}, so many are named rightly: {'; '.join(parts)}. "
        "A few images illustrate; they prove nothing."
    )


def _group(title: str, trial: Trial) -> dict[str, Any]:
    colours = np.zeros((256, 3), np.uint8)
    if trial.samples:
        colours[: len(trial.palette)] = trial.palette
    shown = {int(label) for sample in trial.samples for label in np.unique(sample["labels"])}
    for sample in trial.samples:
        shown |= {int(label) for name in trial.accuracy for label in np.unique(sample[name])}
    return {
        "title": title,
        "recipe": recipe([trial], _RECIPE),
        "finding": _finding(trial),
        "counts": trial.counts,
        "channels": trial.channels,
        "classes": [
            (name, "rgb({} {} {})".format(*colours[place]))
            for place, name in enumerate(trial.classes)
            if place in shown
        ],
        "ignored": _IGNORED in shown,
        "samples": [
            {"name": name, **_pictures(sample, trial.accuracy, colours)}
            for name, sample in zip(trial.names, trial.samples, strict=False)
        ],
    }


def _pictures(
    sample: dict[str, np.ndarray], rankings: Iterable[str], colours: np.ndarray
) -> dict[str, Any]:
    labels = sample["labels"]
    counted = labels != _IGNORED

    def said(predictions: np.ndarray) -> dict[str, Any]:
        right = 100 * float((predictions == labels)[counted].mean()) if counted.any() else None
        # What is to be ignored is black in both, so that they can be compared.
        shown = np.where(counted, predictions, _IGNORED)
        return {"source": png(colours[shown], blend=False), "right": right}

    return {
        "image": png(np.ascontiguousarray(sample["image"].transpose(1, 2, 0))),
        "labels": png(colours[labels], blend=False),
        "removed": [(ranking_of(name).kind, list(map(said, sample[name]))) for name in rankings],
    }


def table(trial: Trial) -> list[tuple[int, list[float]]]:
    """Of each count the accuracies, in the order of ``trial.accuracy``."""
    columns = zip(*trial.accuracy.values(), strict=True)
    return list(zip(trial.counts, map(list, columns), strict=True))
