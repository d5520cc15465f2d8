"""The miss rate of 500 images under four settings beside a loop over boxes, as scripts have it.

The loop is that of CityPersons' evaluation: all overlaps of an image first, box by box into an
array, then the matching, detection by detection, anew for each setting.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch

from benches.harness import OURS, Race, race
from gpe.metrics.matching import SETTINGS, Setting
from gpe.metrics.miss_rate import REFERENCES, log_average_miss_rate

IMAGES, PEDESTRIANS = 500, 12  # in CityPersons 5,795 boxes to 500 images
DETECTIONS = (100, 1000)  # an image: what detectors give, and what the script takes at most
ROUNDS = 3  # the loop takes seconds

Rows = list[list[float]]


def races(device: str) -> Iterator[partial[Race]]:
    """Boxes of CityPersons' sizes, noisy ones around them, and others anywhere; on the CPU."""
    if device == "cuda":
        return
    for count in DETECTIONS:
        yield partial(_race, count)


def _race(count: int) -> Race:
    random = np.random.default_rng(0)
    target = [_people(random) for _ in range(IMAGES)]
    found = [_detections(random, rows, count) for rows in target]
    preds = [
        {"boxes": torch.from_numpy(rows[:, :4]), "scores": torch.from_numpy(rows[:, 4])}
        for rows in found
    ]
    lists = [rows.tolist() for rows in found], [rows.tolist() for rows in target]

    def ours() -> dict[str, float]:
        return log_average_miss_rate(preds, target, box_format="xywh")

    def loop() -> dict[str, float]:
        return {name: _looped(*lists, setting) for name, setting in SETTINGS.items()}

    expected = loop()
    for name, value in ours().items():
        assert abs(value - expected[name]) < 1e-9, f"{name}: {value}, not {expected[name]}"
    return race(
        f"miss rate of {IMAGES} images under 4 settings, {count} detections an image",
        {OURS: ours, "loop over boxes": loop},
        device="cpu",
        calls=1,
        bytes_moved=sum(rows.nbytes for rows in (*found, *target)),
        rounds=ROUNDS,
    )


def _people(random: np.random.Generator) -> np.ndarray:
    rows = np.zeros((PEDESTRIANS, 10))
    rows[:, 0] = random.choice([0, 1, 1, 1, 2, 5], PEDESTRIANS)
    rows[:, 4] = random.integers(30, 300, PEDESTRIANS)
    rows[:, 3] = (0.41 * rows[:, 4]).round()
    rows[:, 1:3] = random.integers(0, (2000, 700), (PEDESTRIANS, 2))
    rows[:, 6:] = rows[:, 1:5]
    rows[:, 9] *= random.choice([0.4, 0.65, 1, 1], PEDESTRIANS)
    return rows


def _detections(random: np.random.Generator, rows: np.ndarray, count: int) -> np.ndarray:
    """x, y, w, h and score: four around each person, the rest anywhere, with lower scores."""
    boxes = _people(random)[random.integers(0, PEDESTRIANS, count), 1:5]
    boxes[:, :2] += random.integers(0, 300, (count, 2))
    boxes[: 4 * len(rows)] = np.tile(rows[:, 1:5], (4, 1))
    boxes += random.normal(0, 0.05, boxes.shape) * boxes[:, 2:3]
    scores = random.random(count)
    scores[4 * len(rows) :] /= 4
    return np.column_stack([boxes, scores])


def _looped(found: list[Rows], target: list[Rows], setting: Setting) -> float:
    (low, high), (least, most) = setting
    outcomes, people = [], 0
    for detections, rows in zip(found, target, strict=True):
        boxes = sorted(
            (
                (not (row[0] == 1 and low <= row[4] <= high and least <= seen <= most), row[1:5])
                for row in rows
                for seen in [row[8] * row[9] / (row[3] * row[4])]
            ),
            key=lambda box: box[0],
        )
        people += sum(not ignored for ignored, _ in boxes)
        detections = sorted(detections, key=lambda row: -row[4])[:1000]
        overlaps = np.zeros((len(detections), len(boxes)))
        for i, row in enumerate(detections):
            for j, (ignored, box) in enumerate(boxes):
                overlaps[i, j] = _overlap(row, box, ignored)
        within = [low / 1.25 <= row[3] < high * 1.25 for row in detections]
        scores = [row[4] for row, some in zip(detections, within, strict=True) if some]
        outcomes += _matched(scores, overlaps[within], np.array([box[0] for box in boxes]))
    outcomes.sort(key=lambda outcome: -outcome[0])
    hits = np.array([hit for _, hit in outcomes])
    last = np.searchsorted((~hits).cumsum() / len(found), REFERENCES, "right") - 1
    recall = hits.cumsum()[last] / people
    return float(100 * np.exp(np.log(1 - recall).mean()))


def _matched(
    scores: list[float], overlaps: np.ndarray, ignored: np.ndarray
) -> list[tuple[float, bool]]:
    taken, outcomes = np.zeros(len(ignored)), []
    for i, score in enumerate(scores):
        best, match = 0.5, -1
        for j in range(len(ignored)):
            if taken[j]:
                continue
            if match >= 0 and ignored[j]:
                break
            if overlaps[i, j] >= best:
                best, match = overlaps[i, j], j
        if match >= 0 and ignored[match]:
            continue
        if match >= 0:
            taken[match] = 1
        outcomes.append((score, match >= 0))
    return outcomes


def _overlap(one: list[float], other: list[float], ignored: bool) -> float:
    across = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    if across <= 0:
        return 0
    down = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    if down <= 0:
        return 0
    shared, area = across * down, one[2] * one[3]
    return shared / (area if ignored else area + other[2] * other[3] - shared)
