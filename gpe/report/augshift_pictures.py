"""What consistency means: one image, moved step by step, and what the networks say of it."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np

from gpe.records import load_arrays
from gpe.report.augshift_trials import Trial, by, colour_of, method_of
from gpe.report.figures import png

_ABOUT = "images", "labels", "shifts"
_DRAWN = "baseline", "augshift"


def moved(trials: Sequence[Trial]) -> dict[str, Any] | None:
    """One run of each method, all about the same images; None where no run has arrays.

    Baseline and AugShift are drawn, where they are there. The image is picked to show the
    effect: of those that the first of them is right about while they stand still, the one
    about which it changes its answer most often. All images are counted, of all methods.
    """
    found = _answers(trials)
    if not found:
        return None
    drawn = [found[method] for method in _DRAWN if method in found] or list(found.values())
    first = drawn[0]
    images, labels, shifts = (first[name] for name in _ABOUT)
    right = first["answers"][:, np.abs(shifts).argmin()] == labels
    index = int(np.where(right | ~right.any(), first["changes"], -1).argmax())
    trial = first["trial"]
    return {
        "still_right": bool(right.any()),
        "protocol": trial.protocol,
        "picked_by": method_of(trial).in_a_sentence,
        "truth": _class(trial, labels[index]),
        "images": len(images),
        "steps": len(shifts) - 1,
        "film": _film(images[index], shifts.tolist(), trial),
        "panels": [_panel(one, index) for one in drawn],
        "counts": [_count(one) for one in found.values()],
    }


def _answers(trials: Sequence[Trial]) -> dict[str, dict[str, Any]]:
    """By method, the arrays of its first run that is about the same images as the others."""
    found: dict[str, dict[str, Any]] = {}
    for (method, _), (trial, *_) in by(trials, "method", "seed").items():
        if method in found:
            continue
        arrays = {name: array.numpy() for name, array in load_arrays(trial.directory).items()}
        if not arrays.keys() >= {*_ABOUT, "probabilities"} or len(arrays["shifts"]) < 2:
            continue
        about = next(iter(found.values()), arrays)
        if all(np.array_equal(arrays[name], about[name]) for name in _ABOUT):
            answers = arrays["probabilities"].argmax(2)
            changes = (answers[:, 1:] != answers[:, :-1]).sum(1)
            found[method] = arrays | {"trial": trial, "answers": answers, "changes": changes}
    return found


def _panel(found: dict[str, Any], index: int) -> dict[str, Any]:
    trial, label = found["trial"], found["labels"][index]
    likely = found["probabilities"][index, :, label]
    return {
        "label": method_of(trial).label,
        "colour": colour_of(trial),
        "changes": int(found["changes"][index]),
        # In a box of 100 by 100; y counts downwards in SVG.
        "curve": " ".join(
            f"{x:.2f},{100 - 100 * y:.2f}"
            for x, y in zip(np.linspace(0, 100, len(likely)), likely, strict=True)
        ),
        "answers": [
            {"name": _class(trial, answer), "steps": len(list(same)), "right": answer == label}
            for answer, same in groupby(found["answers"][index])
        ],
    }


def _count(found: dict[str, Any]) -> dict[str, Any]:
    trial, changes = found["trial"], found["changes"]
    return {
        "label": method_of(trial).label,
        "colour": colour_of(trial),
        "images": int((changes > 0).sum()),
        "share": 100 * float((changes > 0).mean()),
        "steps": 100 * float(changes.mean()) / (len(found["shifts"]) - 1),
    }


def _class(trial: Trial, number: int) -> str:
    return trial.classes[number] if number < len(trial.classes) else str(number)


def _film(image: np.ndarray, shifts: Sequence[int], trial: Trial) -> list[dict[str, Any]]:
    """The image at evenly spaced steps, the first and the last among them."""
    steps = len(shifts) - 1
    stride = next(steps // frames for frames in (8, 7, 6, 5, 4, 3, 2, 1) if steps % frames == 0)
    return [
        {"shift": shift, "source": png(_shifted(image, shift, trial))} for shift in shifts[::stride]
    ]


def _shifted(image: np.ndarray, shift: int, trial: Trial) -> np.ndarray:
    """``image`` ``[3,h,w]`` as the network saw it: ``[h,w,3]``, its content moved to the right."""
    _, height, width = image.shape
    size = min(trial.image_size, height, width)
    top, left = (height - size) // 2, (width - size) // 2
    columns = np.arange(left, left + size) - shift
    inside = (columns >= 0) & (columns < width)
    if trial.protocol == "circular":
        columns, inside = columns % width, True
    elif trial.protocol == "reflect":
        columns, inside = width - 1 - np.abs(width - 1 - np.abs(columns)), True
    view = image[:, top : top + size, columns.clip(0, width - 1)] * inside
    return np.ascontiguousarray(view.transpose(1, 2, 0).astype(np.uint8))
