"""Which detections hit a pedestrian, by the rules of CityPersons' evaluation, all images at once.

A loop over boxes takes detections by falling score, and gives each the free pedestrian that it
overlaps most. That is a stable matching in which detections prefer overlap and all pedestrians
prefer score, and there is only one: deferred acceptance (Gale & Shapley, 1962) finds it in a few
rounds, in each of which all unmatched detections of all images and settings propose at once.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

OVERLAP = 0.5
HEIGHT_TOLERANCE = 1.25  # detections so much lower or higher than the setting's still count
PER_IMAGE = 1000  # detections, those of the highest scores
_PAIRS = 2**20  # of boxes at once: it bounds the memory


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
    detections: np.ndarray, boxes: np.ndarray, count: int, settings: Sequence[Setting]
) -> Outcomes:
    """Matches detections with annotated boxes, setting by setting.

    Args:
        detections: float64 ``[n,6]``: place of the image, x, y, w, h and score.
        boxes: float64 ``[m,7]``: place of the image, class, x, y, w, h and visibility, those of an
            image in the annotation's order.
        count: N, of images.
        settings: S of them.

    Source:
        CityPersons (Zhang et al., CVPR 2017) and its evaluation script.
    """
    boxes = boxes[np.argsort(boxes[:, 0], kind="stable")]
    detections = detections[np.lexsort((-detections[:, 5], detections[:, 0]))]
    images = detections[:, 0].astype(np.int64)
    # The highest scores are taken before any height is looked at.
    best = np.arange(len(images)) - np.searchsorted(images, images) < PER_IMAGE
    detections, images = detections[best], images[best]

    height, visibility = boxes[:, 5], boxes[:, 6]
    real = (boxes[:, 1] == 1) & np.stack(
        [
            (low <= height) & (height <= high) & (least <= visibility) & (visibility <= most)
            for (low, high), (least, most) in settings
        ]
    )
    kept = np.stack(
        [
            (detections[:, 4] >= low / HEIGHT_TOLERANCE)
            & (detections[:, 4] < high * HEIGHT_TOLERANCE)
            for (low, high), _ in settings
        ]
    )

    one, other, iou, of_detection = _overlaps(detections, boxes, count)
    setting, pair = np.nonzero(real[:, other] & kept[:, one] & (iou >= OVERLAP))
    hit = np.zeros(kept.shape, bool)
    hit.flat[_matched(setting * len(images) + one[pair], setting * len(boxes) + other[pair],
                      iou[pair])] = True  # fmt: skip
    # A box to be ignored takes any number of those that found no pedestrian.
    setting, pair = np.nonzero(~real[:, other] & (of_detection >= OVERLAP))
    ignored = np.zeros(kept.shape, bool)
    ignored[setting, one[pair]] = True

    places = boxes[:, 0].astype(np.int64)
    pedestrians = [np.bincount(places[some], minlength=count) for some in real]
    order = np.argsort(-detections[:, 5], kind="stable")  # ties in the order of the images
    counted = kept & (hit | ~ignored)
    return Outcomes(images[order], hit[:, order], counted[:, order], np.stack(pedestrians))


def _matched(detections: np.ndarray, boxes: np.ndarray, overlap: np.ndarray) -> np.ndarray:
    """Which detections are matched, of pairs that may be; their numbers rise as scores fall.

    A detection prefers the greatest overlap, and of equal ones the later box.
    """
    order = np.lexsort((-boxes, -overlap, detections))
    detections, boxes = detections[order], boxes[order]
    proposing, at = np.unique(detections, return_index=True)
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
    detections: np.ndarray, boxes: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of a detection and a box of one image that share half of anything.

    Both places, the intersection over union, and over the detection's own area.
    """
    x, y, w, h = detections.T[1:5]
    right, bottom, area = x + w, y + h, w * h
    gx, gy, gw, gh = boxes.T[2:6]
    g_right, g_bottom, g_area = gx + gw, gy + gh, gw * gh
    found = []
    for one, other in _pairs(detections[:, 0], boxes[:, 0], count):
        across = np.minimum(right[one], g_right[other]) - np.maximum(x[one], gx[other])
        some = across > 0
        one, other, across = one[some], other[some], across[some]
        down = np.minimum(bottom[one], g_bottom[other]) - np.maximum(y[one], gy[other])
        some = down > 0
        one, other = one[some], other[some]
        shared = across[some] * down[some]
        iou, of_detection = shared / (area[one] + g_area[other] - shared), shared / area[one]
        some = (iou >= OVERLAP) | (of_detection >= OVERLAP)
        found.append((one[some], other[some], iou[some], of_detection[some]))
    one, other, iou, of_detection = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return one, other, iou, of_detection


def _pairs(
    images: np.ndarray, of_boxes: np.ndarray, count: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs of a detection and a box of the same image; both are sorted by image."""
    places = images.astype(np.int64)
    boxes = np.bincount(of_boxes.astype(np.int64), minlength=count)
    times, first = boxes[places], (np.cumsum(boxes) - boxes)[places]
    ends = np.cumsum(times)
    total = int(ends[-1]) if len(ends) else 0
    cuts = [0, *np.searchsorted(ends, np.arange(_PAIRS, total, _PAIRS)), len(places)]
    for start, stop in pairwise(cuts):
        some = times[start:stop]
        one = np.repeat(np.arange(start, stop), some)
        shift = np.cumsum(some) - some - first[start:stop]
        yield one, np.arange(len(one)) - np.repeat(shift, some)
