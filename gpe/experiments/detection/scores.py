"""What detectors find on a set, how it is scored, and what is drawn of it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from gpe.data.boxed_views import BoxedSet
from gpe.data.listing import spread
from gpe.errors import InputError
from gpe.experiments.detection.config import SETTINGS
from gpe.experiments.detection.images import Annotated
from gpe.metrics.detections import BoxFormat
from gpe.metrics.miss_rate import LogAverageMissRate
from gpe.models.detection.detector import Found
from gpe.statistics import Estimate

Boxes = dict[int, dict[str, Tensor]]  # boxes and scores of images, by their index in the set
PICTURES = 3
FOUND, MISSED, FALSE = 0, 1, 2  # what a box of a picture is
_POINTS = 200  # of a curve that is kept
_SIDE = 512  # pixels, about: pictures need no more


class People:
    """The people of a set, with whom what detectors find is compared.

    Args:
        images: whose boxes count.

    Raises:
        InputError: no pedestrian in any setting.
    """

    def __init__(self, images: BoxedSet | Annotated):
        self.scale = images.scale
        # In the pixels of CityPersons' settings.
        self.rows = [_scaled(np.asarray(rows, np.float64), self.scale) for rows in images.boxes]
        every = LogAverageMissRate(settings=SETTINGS)
        every.update([_NOTHING] * len(self.rows), self.rows, indices=torch.arange(len(self.rows)))
        self.pedestrians = every.pedestrians()
        self.settings = tuple(name for name in SETTINGS if self.pedestrians[name])
        if not self.settings:
            raise InputError(
                f"data: expected pedestrians, got none in {len(self.rows)} images of {images.name}"
            )

    def metric(self, found: Boxes, *, box_format: BoxFormat = "xyxy") -> LogAverageMissRate:
        """Of boxes in the pixels of the images: all of them, or those of this process."""
        metric = LogAverageMissRate(settings=self.settings, curves=True, box_format=box_format)
        scaled = [one | {"boxes": one["boxes"].double() * self.scale} for one in found.values()]
        indices = torch.tensor(list(found), dtype=torch.int64)
        metric.update(scaled, [self.rows[index] for index in found], indices=indices)
        return metric


def _scaled(rows: np.ndarray, scale: float) -> np.ndarray:
    factors = np.array([1, *[scale] * 4, 1, *[scale] * 4])
    return rows.reshape(-1, 10) * factors


_NOTHING = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0)}


def rates_of(metric: LogAverageMissRate) -> dict[str, float]:
    """Miss rates in percent by setting."""
    return {name: value for name, value in metric.compute().items() if name != "curves"}


def estimates(found: Mapping[str, Estimate], sign: int = 1) -> dict[str, list[float]]:
    """Value, low and high of each setting; with the other sign those of what is the less."""
    return {
        name: [sign * one.value, *sorted(sign * end for end in one.ends or ())]
        for name, one in found.items()
    }


def curves_of(metric: LogAverageMissRate, name: str) -> dict[str, Tensor]:
    """Arrays of a record: false positives per image and miss rates of each setting ``[2,k]``."""
    arrays = {}
    for setting, curve in metric.compute()["curves"].items():
        points = torch.stack([curve.fppi, curve.miss_rate])
        points = points[:, points[0] <= 2]
        # The last point at each of so many values of the false positives.
        marks = torch.logspace(-3, np.log10(2), _POINTS, dtype=torch.float64)
        last = torch.searchsorted(points[0].contiguous(), marks, right=True) - 1
        arrays[f"curve.{name}.{setting}"] = points[:, last[last >= 0].unique()].float()
    return arrays


def pictures(images: BoxedSet, people: People, found: Mapping[str, Boxes]) -> dict[str, Tensor]:
    """Arrays of a record: a few images, and by name what was found in each, as :func:`_told`.

    Boxes are drawn whose score is above that at which the first of ``found`` has one false box in
    ten images.
    """
    some = [n for n, rows in enumerate(people.rows) if len(_reasonable(rows))]
    some = [n for n in some if all(n in boxes for boxes in found.values())]
    least = _least_score(people, next(iter(found.values())))
    arrays = {}
    for place, index in enumerate(some[n] for n in spread(len(some), PICTURES)):
        step = -(-max(images.size) // _SIDE)
        arrays[f"image{place}"] = images[index].image[:, ::step, ::step]
        for name, boxes in found.items():
            told = _told(boxes[index], people.rows[index], people.scale, least)
            told[:, :4] /= step
            arrays[f"boxes{place}.{name}"] = told
    return arrays


def _least_score(people: People, found: Boxes) -> float:
    """The score of the last box before there is more than one false one in ten images."""
    scores, false = [], []
    for index, one in found.items():
        told = _told(one, people.rows[index], people.scale, -1.0)
        told = told[told[:, 4] != MISSED]
        scores.append(told[:, 5])
        false.append(told[:, 4] == FALSE)
    order = torch.cat(scores).argsort(descending=True)
    enough = torch.cat(false)[order].cumsum(0) > len(found) / 10
    beyond = torch.cat(scores)[order][enough]
    return float(beyond[0]) if len(beyond) else -1.0


def _told(found: dict[str, Tensor], rows: np.ndarray, scale: float, least: float) -> Tensor:
    """Boxes of an image in its own pixels ``[k,6]``: corners, found, missed or false, and score.

    Reasonable pedestrians have to be found (50 px high, 0.65 of them seen); boxes of others are
    left out.
    """
    strong = found["scores"] > least
    boxes, scores = found["boxes"][strong].double() * scale, found["scores"][strong]
    others = torch.from_numpy(rows[:, 1:5]).clone()
    others[:, 2:] += others[:, :2]
    free = torch.zeros(len(rows), dtype=torch.bool)
    free[_reasonable(rows)] = True
    overlap, told = box_iou(boxes, others), []
    for box, score, over in zip(boxes.tolist(), scores.tolist(), overlap, strict=True):
        best = over.where(free, torch.tensor(-1.0, dtype=over.dtype))
        if len(rows) and best.max() >= 0.5:
            free[best.argmax()] = False
            told.append([*box, FOUND, score])
        elif not len(rows) or over.max() < 0.5:
            told.append([*box, FALSE, score])
    told += [[*box, MISSED, 0.0] for box in others[free].tolist()]
    table = torch.tensor(told, dtype=torch.float64).reshape(-1, 6)
    table[:, :4] /= scale
    return table.float()


def _reasonable(people: np.ndarray) -> np.ndarray:
    area = people[:, 3] * people[:, 4]
    seen = people[:, 8] * people[:, 9] / np.maximum(area, 1e-9)
    return np.flatnonzero((people[:, 0] == 1) & (people[:, 4] >= 50) & (seen >= 0.65))


def summary(metric: LogAverageMissRate, people: People) -> dict[str, Any]:
    """For the result of a record: miss rates with intervals over images, pedestrians, images."""
    return {
        "miss_rates": estimates(metric.intervals()),
        "pedestrians": people.pedestrians,
        "images": len(people.rows),
    }


def flat(found: Found, first: int) -> Tensor:  # [k,6]
    """Boxes of a batch in one tensor, so that they can be saved: place, corners and score."""
    rows = [
        torch.cat([torch.full((len(one["scores"]), 1), float(place)), one["boxes"].float().cpu(),
                   one["scores"].float().cpu()[:, None]], 1)
        for place, one in enumerate(found, first)
    ]  # fmt: skip
    return torch.cat(rows) if rows else torch.zeros(0, 6)


def unflat(rows: Tensor, indices: Sequence[int]) -> Boxes:
    """The inverse of :func:`flat`: boxes and scores by the index of the image at each place."""
    places = rows[:, 0].long()
    order = places.argsort(stable=True)
    parts = rows[order].split(torch.bincount(places, minlength=len(indices)).tolist())
    return {
        index: {"boxes": part[:, 1:5], "scores": part[:, 5]}
        for index, part in zip(indices, parts, strict=True)
    }
