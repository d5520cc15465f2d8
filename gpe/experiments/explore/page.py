"""The page of ``gpe explore``, from its record and arrays alone: one file that loads nothing."""

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpe.experiments.explore.config import CELLS
from gpe.experiments.removal.modes import band_of, mode_of
from gpe.records import Record, atomic, load_arrays
from gpe.report.html import STYLE, template
from gpe.report.plots import png

PAGE = "explore.html"
LIMIT = 10_000_000  # bytes
_REGIONS = {"full": "whole picture", "left": "left half", "centre": "centre", "right": "right half"}
PLACES = (
    *("top left", "top", "top right", "left", "centre", "right"),
    *("bottom left", "bottom", "bottom right"),
)
_HERE = Path(__file__).parent

Arrays = Mapping[str, np.ndarray]
Scores = dict[str, float | None]  # in percent, by region


def write_page(directory: Path) -> Path:
    """Writes the page beside the record of a run.

    Of 10 MB at most: where it would be larger, pictures get coarser.
    """
    record = Record.load(directory)
    arrays = {name: array.numpy() for name, array in load_arrays(directory).items()}
    for step in (1, 2, 4):
        text = _page(record, arrays, step)
        if len(text) < LIMIT:
            break
    with atomic(directory / PAGE) as path:
        path.write_text(text, encoding="utf-8")
    return directory / PAGE


def payload(record: Record, arrays: Arrays, step: int = 1) -> dict[str, Any]:
    """What the script of the page reads.

    Args:
        record, arrays: of a run.
        step: pictures have every so manieth pixel of the arrays.
    """
    result = record.result
    segments, counts = result["task"] == "segmentation", result["counts"]
    names = list(dict.fromkeys(row["ranking"] for row in result["rows"]))
    first = arrays[f"order.{names[0]}"].tolist()
    if segments:
        palette = [*arrays["palette"].tolist()]
        classes = list(zip(result["classes"], palette, strict=True))
        regions = _REGIONS
        score, samples = "mIoU", _segmented(record, arrays, names, step)
    else:
        classes = []
        regions = {"kept": "answers kept"}
        if result["reference"] == "labels":
            regions["accuracy"] = "right answers"
        score, samples = "answers", _answered(record, arrays, step)
    return {
        "task": result["task"],
        "network": result["network"],
        "layer": result["layer"],
        "data": record.config["data"],
        "images": result["images"],
        "channels": result["channels"],
        "score": score,
        "counts": counts,
        "classes": classes,
        "regions": [{"name": name, "label": label} for name, label in regions.items()],
        "rankings": [_ranking(name) for name in names],
        "orders": [arrays[f"order.{name}"].tolist() for name in names],
        "scores": _by_ranking(result["rows"], names),
        "samples": samples,
        "rank": first,
        "alone": _by_channel(result["alone"]),
        "responses": _maps(arrays.get("responses")),
        "cells": _maps(arrays.get("cells")),
        "bits": arrays["bits"].round(3).tolist() if "bits" in arrays else None,
    }


def _segmented(
    record: Record, arrays: Arrays, names: Sequence[str], step: int
) -> list[dict[str, Any]]:
    """Each count's classes are packed as what differs from those of the count before."""
    found = []
    for place, sample in enumerate(record.result["samples"]):
        answers = arrays[f"answers{place}"][..., ::step, ::step]
        changes = answers.copy()
        changes[:, 1:] ^= answers[:, :-1]
        found.append(
            {
                "id": sample["id"],
                "image": _picture(arrays[f"image{place}"], step),
                "size": answers.shape[2:],
                "labels": _packed(arrays[f"labels{place}"][::step, ::step]),
                "answers": _packed(changes),
                "scores": _by_ranking(sample["rows"], names),
            }
        )
    return found


def _answered(record: Record, arrays: Arrays, step: int) -> list[dict[str, Any]]:
    percent = (100 * arrays["shares"]).round(1)
    return [
        sample
        | {
            "image": _picture(arrays[f"image{place}"], step),
            "said": arrays["answers"][..., place].tolist(),
            "shares": percent[..., place].astype(float).round(1).tolist(),
        }
        for place, sample in enumerate(record.result["samples"])
    ]


def _by_ranking(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[list[Scores]]:
    """Of each ranking and count: the score of each region, or the accuracy."""
    found: dict[tuple[str, int], Scores] = {}
    for row in rows:
        found.setdefault((row["ranking"], row["stop"]), {}).update(_scores(row))
    counts = sorted({count for _, count in found})
    return [[found[name, count] for count in counts] for name in names]


def _by_channel(rows: Sequence[Mapping[str, Any]]) -> dict[int, Scores]:
    found: dict[int, Scores] = {}
    for row in rows:
        found.setdefault(row["channel"], {}).update(_scores(row))
    return found


def _scores(row: Mapping[str, Any]) -> Scores:
    """Of a row for one region, or of one with several scores."""
    named = {row["region"]: row["miou"]} if "region" in row else row
    known = (*_REGIONS, "accuracy", "kept")
    return {
        name: None if value is None else round(value, 4)
        for name, value in named.items()
        if name in known
    }


def _ranking(name: str) -> dict[str, Any]:
    if name.startswith(CELLS):
        place = int(name.removeprefix(CELLS))
        about = {"label": PLACES[place], "note": "", "cell": place}
        return about | {"colour": "ink", "dashes": ""}
    mode = mode_of(name)
    note = f"draw {name.partition('/')[2]}" if band_of(name) else mode.note
    about = {"label": mode.kind, "note": note, "cell": None}
    return about | {"colour": mode.colour, "dashes": mode.dashes}


def _maps(maps: np.ndarray | None) -> dict[str, Any] | None:
    """Of each channel from its lowest, 0, to its highest, 255."""
    if maps is None:
        return None
    if maps.ndim == 2:  # square cells, row by row
        side = round(maps.shape[1] ** 0.5)
        maps = maps.reshape(-1, side, side)
    low, high = (f(maps, axis=(1, 2), keepdims=True) for f in (np.min, np.max))
    shares = (maps - low) / np.where(high > low, high - low, 1)
    return {"size": maps.shape[1:], "data": _packed((255 * shares).round().astype(np.uint8))}


def _picture(image: np.ndarray, step: int) -> str:
    return png(np.ascontiguousarray(image[:, ::step, ::step].transpose(1, 2, 0)))


def _packed(array: np.ndarray) -> str:
    """Bytes, deflated, in base 64."""
    return base64.b64encode(zlib.compress(array.tobytes(), 9)).decode()


def _page(record: Record, arrays: Arrays, step: int) -> str:
    data = payload(record, arrays, step)
    return template(_HERE / "page.html").render(
        data=data,
        places=PLACES,
        finished=record.run.get("finished", ""),
        json=json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
        style=STYLE.read_text() + (_HERE / "page.css").read_text(),
        script=(_HERE / "page.js").read_text(),
    )
