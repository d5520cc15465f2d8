"""Detections of pedestrians: checked, flat, and in COCO's JSON form."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from gpe.errors import InputError, expect_integer, expect_one_of
from gpe.records import atomic

BoxFormat = Literal["xyxy", "xywh"]
Predictions = Sequence[Mapping[str, Tensor]]
Targets = Sequence[np.ndarray | Tensor]

PEDESTRIAN = 1  # among labels, and of COCO's categories


def read_detections(path: str | Path, images: int) -> list[dict[str, Tensor]]:
    """What a file of detections says of each image, as :class:`gpe.LogAverageMissRate` takes it.

    Args:
        path: JSON, a list of ``{"image_id": place of the image in the annotations, from 1,
            "category_id": 1, "bbox": [x, y, w, h] in pixels, "score": …}``; other categories
            count nowhere.
        images: how many the annotations have.

    Returns:
        A dict an image: ``boxes`` float64 ``[n,4]`` (x, y, w, h: give the metric
        ``box_format="xywh"``), ``scores`` float64 ``[n]`` and ``labels`` int64 ``[n]``, in the
        file's order.

    Raises:
        InputError: a file that is missing or of another form, or an image that is not there.
    """
    expect_integer("images", images, 1)
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"path: there is no {path}")
    expected = f"path: expected {path} to hold a list of detections in COCO's JSON form"
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{expected}, got what is no JSON: {error}") from None
    if not isinstance(content, list):
        raise InputError(f"{expected}, got a {type(content).__name__}")
    rows: list[list[list[float]]] = [[] for _ in range(images)]
    for number, entry in enumerate(content):
        rows[_image(entry, f"{expected}, entry {number}", images) - 1].append(
            [*entry["bbox"], entry["score"], entry["category_id"]]
        )
    tables = [torch.tensor(some, dtype=torch.float64).view(-1, 6) for some in rows]
    return [{"boxes": t[:, :4], "scores": t[:, 4], "labels": t[:, 5].long()} for t in tables]


def write_detections(
    path: str | Path, preds: Predictions, *, box_format: BoxFormat = "xyxy"
) -> None:
    """Writes detections in the form that :func:`read_detections` and CityPersons' script read.

    Args:
        path: to write.
        preds: as :class:`gpe.LogAverageMissRate` takes them, all images in the annotations' order;
            of ``labels`` only 1, pedestrians, are written.
        box_format: of ``preds``.

    Raises:
        InputError: as :class:`gpe.LogAverageMissRate`.

    Example:
        >>> import tempfile
        >>> one = {"boxes": torch.tensor([[10.0, 20, 30, 70]]), "scores": torch.tensor([0.5])}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_detections(file := f"{folder}/found.json", [one])
        ...     read_detections(file, 1)[0]["boxes"].tolist()
        [[10.0, 20.0, 20.0, 50.0]]
    """
    entries = [
        {"image_id": int(image) + 1, "category_id": PEDESTRIAN, "bbox": box, "score": score}
        for image, *box, score in flat_predictions(preds, box_format).tolist()
    ]
    with atomic(Path(path).expanduser()) as temporary:
        temporary.write_text(json.dumps(entries))


def flat_predictions(preds: Predictions, box_format: BoxFormat) -> Tensor:
    """Checked pedestrians, float64 ``[n,6]``: place in ``preds``, x, y, w, h and score."""
    expect_one_of("box_format", box_format, get_args(BoxFormat))
    if isinstance(preds, Mapping) or not all(
        isinstance(one, Mapping) and {"boxes", "scores"} <= one.keys() for one in preds
    ):
        raise InputError("preds: expected a list of dicts with boxes and scores, one an image")
    counts = []
    for place, one in enumerate(preds):
        n = len(one["scores"])
        for name, shape in (("boxes", (n, 4)), ("scores", (n,)), ("labels", (n,))):
            if name not in one and name == "labels":
                continue
            value = one[name]
            came = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            if came != shape and not (n == 0 and came == (0,)):
                raise InputError(f"preds: {name} of image {place}: expected {shape}, got {came}")
        counts.append(n)

    def joined(name: str, width: int = 1) -> Tensor:
        parts = [one[name] for one, n in zip(preds, counts, strict=True) if n]
        whole = torch.cat(parts) if parts else torch.zeros(0)
        return whole.detach().to("cpu", torch.float64).reshape(-1, width)

    boxes, scores = joined("boxes", 4), joined("scores")
    places = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts, dtype=torch.int64))
    if box_format == "xyxy":
        boxes[:, 2:] -= boxes[:, :2].clone()
    found = torch.cat([places[:, None], boxes, scores], 1)
    if not (found.isfinite().all() and (boxes[:, 2:] >= 0).all()):
        wrong = ~(found.isfinite().all(1) & (boxes[:, 2:] >= 0).all(1))
        first = int(wrong.nonzero()[0])
        image, n = int(places[first]), first - sum(counts[: int(places[first])])
        raise InputError(
            "preds: expected boxes with sides of 0 or more and scores, all finite, got "
            f"{preds[image]['boxes'][n].tolist()} ({box_format}) with "
            f"{float(preds[image]['scores'][n])} of image {image}"
        )
    if not any("labels" in one for one in preds):
        return found
    ones = [torch.ones(n) for n in counts]
    labels = [one.get("labels", every).cpu() for one, every in zip(preds, ones, strict=True)]
    return found[torch.cat(labels) == PEDESTRIAN]


def flat_targets(target: Targets) -> Tensor:
    """Checked annotations, float64 ``[m,7]``: place, class, x, y, w, h and visibility.

    The visibility is the area of what is seen over that of the whole box; 0 of an empty box.
    """
    tables = []
    for place, given in enumerate(target):
        rows = given.cpu().numpy() if isinstance(given, Tensor) else np.asarray(given)
        if rows.size and (rows.ndim != 2 or rows.shape[1] != 10 or rows.dtype.kind not in "iuf"):
            raise InputError(
                f"target: image {place}: expected numbers [m,10] (class, x, y, w, h, number, x, y, "
                f"w and h of what is seen), got {rows.dtype} {list(rows.shape)}"
            )
        tables.append(rows.reshape(-1, 10))
    whole = np.concatenate([np.empty((0, 10)), *tables], dtype=np.float64)
    places = np.repeat(np.arange(len(tables)), list(map(len, tables)))
    wrong = ~(np.isfinite(whole).all(1) & (whole[:, [3, 4, 8, 9]] >= 0).all(1))
    if wrong.any():
        raise InputError(
            f"target: image {places[wrong][0]}: expected finite boxes with sides of 0 or more, got "
            f"{whole[wrong][0].tolist()}"
        )
    area = whole[:, 3] * whole[:, 4]
    seen = np.divide(whole[:, 8] * whole[:, 9], area, out=np.zeros_like(area), where=area > 0)
    return torch.from_numpy(np.column_stack([places, whole[:, :5], seen]))


def _image(entry: Any, expected: str, images: int) -> int:
    """The number of a detection's image, from 1."""
    fields = {"image_id", "category_id", "bbox", "score"}
    if not isinstance(entry, dict) or not fields <= entry.keys():
        raise InputError(f"{expected}: expected {', '.join(sorted(fields))}, got {entry!r:.80}")
    box, number = entry["bbox"], entry["image_id"]
    numbers = [*box, entry["score"]] if isinstance(box, list) else []
    if len(numbers) != 5 or not all(type(value) in (int, float) for value in numbers):
        raise InputError(f"{expected}: expected four numbers and a score, got {entry!r:.120}")
    if type(entry["category_id"]) is not int or type(number) is not int:
        raise InputError(f"{expected}: expected whole image and category ids, got {entry!r:.120}")
    if not 1 <= number <= images:
        raise InputError(
            f"{expected}: expected image_id from 1 to {images}, the image's place in the "
            f"annotations, got {number}"
        )
    return number
