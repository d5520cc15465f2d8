"""What consistency means: one image, moved step by step, and what the networks say of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from gpe.experiments.augshift.trials import Trial, by, method_of
from gpe.records import load_arrays
from gpe.report.blocks import Bar, Block, Cell, Column, Heading, Note, RawHtml, Row, Section, Table
from gpe.report.html import template
from gpe.report.plots import png
from gpe.report.words import number

_HERE = Path(__file__).parent
_ABOUT = "images", "labels", "shifts"
_DRAWN = "baseline", "augshift"


@dataclass(frozen=True)
class Answers:
    """What one run says of a few images, shift by shift.

    Attributes:
        images: uint8 ``[K,3,h,w]``.
        labels: int64 ``[K]``.
        shifts: int64 ``[S]``, in pixels to the right.
        probabilities: float32 ``[K,S,classes]``.
        answers: int64 ``[K,S]``.
        changes: int64 ``[K]``, how often the answer changes.
    """

    trial: Trial
    images: np.ndarray
    labels: np.ndarray
    shifts: np.ndarray
    probabilities: np.ndarray
    answers: np.ndarray
    changes: np.ndarray


def film(trials: Sequence[Trial]) -> list[Block]:
    """One run of each method, all about the same images; empty where no run has arrays.

    Baseline and AugShift are drawn, where they are there. The image is picked to show the
    effect: of those that the first of them is right about while they stand still, the one
    about which it changes its answer most often. All images are counted, of all methods.
    """
    found = _answers(trials)
    if not found:
        return []
    drawn = [found[method] for method in _DRAWN if method in found] or list(found.values())
    first = drawn[0]
    correct = first.answers[:, np.abs(first.shifts).argmin()] == first.labels
    index = int(np.where(correct | ~correct.any(), first.changes, -1).argmax())
    trial, images = first.trial, len(first.images)
    among = ", among those that it is right about while they stand still" if correct.any() else ""
    truth = _class(trial, int(first.labels[index]))
    return [
        Note(
            f"Picked to show the effect: of {images} {trial.split} images, the one about which "
            f"{method_of(trial).in_a_sentence} changes its answer most often{among}. The numbers "
            "below are about all of them. Under each picture: by how many pixels it was moved to "
            f"the right (protocol {trial.protocol})."
        ),
        _drawing(drawn, index, truth),
        Note(
            f"Curves: the probability of the true class, {truth}. Bars: the answer; filled is "
            "correct."
        ),
        Heading(f"How often the answer changes, over all {images} images", level=3),
        _counts(list(found.values())),
    ]


def _drawing(drawn: Sequence[Answers], index: int, truth: str) -> RawHtml:
    """A strip of pictures, and below it the answers of each network, step by step."""
    first = drawn[0]
    html = template(_HERE / "film.html").render(
        truth=truth,
        steps=len(first.shifts) - 1,
        film=_film(first.images[index], first.shifts.tolist(), first.trial),
        panels=[_panel(one, index) for one in drawn],
    )
    return RawHtml(html, (_HERE / "film.css").read_text())


def _counts(found: Sequence[Answers]) -> Table:
    rows = []
    for one in found:
        method, images = method_of(one.trial), len(one.images)
        changed = int((one.changes > 0).sum())
        steps = 100 * float(one.changes.mean()) / (len(one.shifts) - 1)
        cells = [
            Cell(f"{changed} of {images}", bar=Bar(100 * changed / images)),
            Cell(f"{number(steps)} %"),
        ]
        rows.append(Row(method.label, cells, colour=method.colour))
    columns = [Column("images"), Column("steps")]
    return Table("method", columns, [Section(rows)], style="plain", where="page")


def _answers(trials: Sequence[Trial]) -> dict[str, Answers]:
    """By method, the arrays of its first run that is about the same images as the others."""
    found: dict[str, Answers] = {}
    for (method, _), (trial, *_) in by(trials, "method", "seed").items():
        if method in found:
            continue
        arrays = {name: array.numpy() for name, array in load_arrays(trial.directory).items()}
        if not arrays.keys() >= {*_ABOUT, "probabilities"} or len(arrays["shifts"]) < 2:
            continue
        answers = arrays["probabilities"].argmax(2)
        changes = (answers[:, 1:] != answers[:, :-1]).sum(1)
        about = {name: arrays[name] for name in (*_ABOUT, "probabilities")}
        one = Answers(trial, **about, answers=answers, changes=changes)
        other = next(iter(found.values()), one)
        if all(np.array_equal(getattr(one, name), getattr(other, name)) for name in _ABOUT):
            found[method] = one
    return found


def _panel(one: Answers, index: int) -> dict[str, object]:
    label, method = one.labels[index], method_of(one.trial)
    likely = one.probabilities[index, :, label]
    return {
        "label": method.label,
        "colour": method.colour,
        "changes": int(one.changes[index]),
        # In a box of 100 by 100; y counts downwards in SVG.
        "curve": " ".join(
            f"{x:.2f},{100 - 100 * y:.2f}"
            for x, y in zip(np.linspace(0, 100, len(likely)), likely, strict=True)
        ),
        "answers": [
            {
                "name": _class(one.trial, answer),
                "steps": len(list(same)),
                "correct": answer == label,
            }
            for answer, same in groupby(one.answers[index].tolist())
        ],
    }


def _class(trial: Trial, number: int) -> str:
    return trial.classes[number] if number < len(trial.classes) else str(number)


def _film(image: np.ndarray, shifts: Sequence[int], trial: Trial) -> list[dict[str, object]]:
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
