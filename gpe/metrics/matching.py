"""Which detections hit a pedestrian, by the rules of CityPersons' evaluation, all images at once.

A loop over boxes takes detections by falling score, and gives each the free pedestrian that it
overlaps most. That is a stable matching in which detections prefer overlap and all pedestrians
prefer score, and there is only one: deferred acceptance (Gale & Shapley, 1962) finds it in a few
rounds, in each of which all unmatched detections of all images and settings propose at once.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

OVERLAP = 0.5
HEIGHT_TOLERANCE = 1.25  # detections so much lower or higher than the setting's still count
PER_IMAGE = 1000  # detections, those of the highest scores


class Setting(NamedTuple):
    """Which pedestrians count; the others are to be ignored, as all boxes of other classes are.

    Attributes:
        height: lowest and highest, in pixels; both count.
        visibility: seen area over the whole box's, likewise.
    """

    height: tuple[float, float]
    visibility: tuple[float, float]


SETTINGS = {
    "reasonable": Setting((50, math.inf), (0.65, math.inf)),
    "small": Setting((50, 75), (0.65, math.inf)),
    "heavy": Setting((50, math.inf), (0.2, 0.65)),
    "all": Setting((20, math.inf), (0.2, math.inf)),
}


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What became of n detections in N images under S settings, by falling score over the set.

    Attributes:
        images: int64 ``[n]``, the place of each detection's image.
        hit: bool ``[S,n]``, true positives.
        counted: bool ``[S,n]``, true and false positives; the others were left out.
        pedestrians: int64 ``[S,N]``, how many were to be found.
    """

    images: np.ndarray
    hit: np.ndarray
    counted: np.ndarray
    pedestrians: np.ndarray


def match(
    found: tuple[np.ndarray, np.ndarray],
    annotated: tuple[np.ndarray, np.ndarray],
    count: int,
    settings: Sequence[Setting],
) -> Outcomes:
    """Matches detections with annotated boxes, setting by setting.

    Args:
        found: int64 ``[n]``, the place of each detection's image, and float64 ``[n,5]``: x, y, w,
            h and score.
        annotated: int64 ``[m]`` likewise, and float64 ``[m,6]``: class, x, y, w, h and
            visibility; boxes of an image in the annotation's order.
        count: N, of images.
        settings: S of them.

    Source:
        CityPersons (Zhang et al., CVPR 2017) and its evaluation script.
    """
    images, detections = _by_image(*found)
    highest = _highest(images, detections[:, 4], count)
    images, detections = images[highest], detections[highest]
    places, boxes = _by_image(*annotated)

    # From here on detections are numbered by falling score over the set; equal scores in the
    # order of the images, and of each image's own.
    order = np.argsort(-detections[:, 4], kind="stable")
    number = np.empty_like(order)
    number[order] = np.arange(len(order))
    one, other, iou, of_detection = _overlaps(images, detections, places, boxes, count)
    # A detection prefers the greatest overlap, and of equal ones the later box.
    one = number[one]
    preferred = np.lexsort((-other, -iou, one))
    one, other, iou, of_detection = (some[preferred] for some in (one, other, iou, of_detection))

    height, visibility = boxes[:, 4], boxes[:, 5]
    real = (boxes[:, 0] == 1) & np.stack(
        [
            (low <= height) & (height <= high) & (least <= visibility) & (visibility <= most)
            for (low, high), (least, most) in settings
        ]
    )
    height = detections[order, 3]
    kept = np.stack(
        [
            (height >= low / HEIGHT_TOLERANCE) & (height < high * HEIGHT_TOLERANCE)
            for (low, high), _ in settings
        ]
    )
    setting, pair = np.nonzero(real[:, other] & kept[:, one] & (iou >= OVERLAP))
    numbers = setting * len(images) + one[pair], setting * len(boxes) + other[pair]
    hit = np.zeros(kept.shape, bool)
    hit.flat[_matched(*numbers)] = True
    # A box to be ignored takes any number of those that found no pedestrian.
    setting, pair = np.nonzero(~real[:, other] & (of_detection >= OVERLAP))
    ignored = np.zeros(kept.shape, bool)
    ignored[setting, one[pair]] = True

    pedestrians = [np.bincount(places[some], minlength=count) for some in real]
    return Outcomes(images[order], hit, kept & (hit | ~ignored), np.stack(pedestrians))


def _by_image(places: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if (places[1:] >= places[:-1]).all():
        return places, rows
    order = np.argsort(places, kind="stable")
    return places[order], rows[order]


def _highest(images: np.ndarray, scores: np.ndarray, count: int) -> np.ndarray | slice:
    """Which detections an image may have, before any height is looked at; sorted by image."""
    if np.bincount(images, minlength=count).max() <= PER_IMAGE:
        return slice(None)
    order = np.lexsort((-scores, images))
    rank = np.arange(len(images)) - np.searchsorted(images, images)
    return np.sort(order[rank < PER_IMAGE])


def _matched(detections: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Which detections are matched, of pairs that may be, by detection and its preference.

    The numbers of detections rise as scores fall.
    """
    at = np.flatnonzero(np.append(True, detections[1:] != detections[:-1])[: len(detections)])
    proposing = detections[at]
    end = np.append(at[1:], len(detections))
    holder = np.full(boxes.max(initial=-1) + 1, np.iinfo(np.int64).max)
    while True:
        free = np.flatnonzero(at < end)
        chosen = boxes[at[free]]
        np.minimum.at(holder, chosen, proposing[free])
        refused = free[holder[chosen] != proposing[free]]
        if not len(refused):
            return proposing[free]
        at[refused] += 1


def _overlaps(
    images: np.ndarray, detections: np.ndarray, places: np.ndarray, boxes: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of a detection and a box of one image that share half of anything.

    Both numbers, the intersection over union, and over the detection's own area.
    """
    low, sides = detections.T[:2].copy(), detections.T[2:4].copy()
    high, area = low + sides, sides[0] * sides[1]
    box_low, box_sides = boxes.T[1:3, :, None].copy(), boxes.T[3:5, :, None].copy()
    box_high, box_area = box_low + box_sides, box_sides[0] * box_sides[1]
    low, high = low[:, None], high[:, None]  # [2,1,n] beside [2,m,1]: a table an image
    least = 0.99 * OVERLAP * area  # to choose pairs by, before anything is divided
    cuts = (np.searchsorted(some, np.arange(count + 1)).tolist() for some in (images, places))
    pairs: list[tuple[np.ndarray, ...]] = [(np.zeros(0, int), np.zeros(0, int), np.zeros(0))]
    for (start, stop), (first, last) in zip(*map(pairwise, cuts), strict=True):
        if start == stop or first == last:
            continue
        both = np.minimum(high[..., start:stop], box_high[:, first:last])
        both -= np.maximum(low[..., start:stop], box_low[:, first:last])
        shared = np.maximum(both[0], 0) * both[1]
        at = (shared > least[start:stop]).ravel().nonzero()[0]
        other, one = np.divmod(at, stop - start)
        pairs.append((one + start, other + first, shared.ravel()[at]))
    one, other, shared = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    of_one, of_other = area[one], box_area[other, 0]
    return one, other, shared / (of_one + of_other - shared), shared / of_one
