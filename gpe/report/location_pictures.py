"""What location networks answered: canvases with both cells marked, and maps of all answers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from gpe.records import load_arrays
from gpe.report.figures import png
from gpe.report.location_trials import NETWORKS, Trial, by

_CANVASES = 9


def answers(trials: Sequence[Trial]) -> dict[str, Any] | None:
    """One run of each network for each grid size, all of one task and padding.

    That is the location task and padding zeros where such runs have arrays, otherwise the
    next in the order of the table; None where no run has arrays.
    """
    for (task, padding), members in by(trials, "task", "padding").items():
        grids: dict[int, list] = {}
        for (grid, _), same in by(members, "grid", "network").items():
            panel = next(filter(None, map(_panel, same)), None)
            if panel:
                grids.setdefault(grid, []).append(panel)
        if grids:
            return {"task": task, "padding": padding, "grids": grids}
    return None


def _panel(trial: Trial) -> dict[str, Any] | None:
    arrays = load_arrays(trial.directory)
    if not {"canvases", "locations", "targets", "predictions", "confusion"} <= arrays.keys():
        return None
    canvases = _canvases(arrays, trial.grid)
    confusion = arrays["confusion"].double()
    # Rows are the truth: where the answers for each went, as shares that sum to one.
    shares = confusion / confusion.sum(1, keepdim=True).clamp(min=1)
    maps = shares.view(-1, trial.grid, trial.grid) if trial.task == "location" else shares[None]
    return {
        "network": trial.network,
        "label": NETWORKS.get(trial.network, trial.network),
        "grid": trial.grid,
        "accuracy": 100 * (confusion.trace() / confusion.sum().clamp(min=1)).item(),
        "canvases": canvases,
        "hits": sum(canvas["right"] for canvas in canvases),
        "cells": maps.shape[-1],
        "maps": {divmod(cell, trial.grid): _tint(one) for cell, one in enumerate(maps)},
    }


def _canvases(arrays: dict[str, Tensor], grid: int) -> list[dict[str, Any]]:
    names = "locations", "targets", "predictions"
    numbers = zip(*(arrays[name].tolist() for name in names), strict=True)
    return [
        {
            "source": png(canvas.permute(1, 2, 0).contiguous().numpy()),
            "cell": divmod(location, grid),
            "target": target,
            "answer": answer,
            "answered_cell": divmod(answer, grid),
            "right": answer == target,
        }
        for canvas, (location, target, answer) in zip(
            arrays["canvases"][:_CANVASES], numbers, strict=False
        )
    ]


def _tint(shares: Tensor) -> str:
    """Shares ``[rows,columns]`` as the opacity of one colour, a pixel each."""
    pixels = np.zeros((*shares.shape, 4), np.uint8)
    pixels[..., :3] = 224, 112, 0
    # The square root keeps one answer in fifty visible; the legend shows the scale.
    pixels[..., 3] = (255 * shares.sqrt()).round().byte().numpy()
    return png(pixels)
