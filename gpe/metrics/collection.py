"""What the metrics share: their settings as a state, and numbers for images without any."""

import hashlib

import torch
from torch import Tensor, distributed
from torchmetrics import Metric

from gpe.errors import InputError


def add_settings(metric: Metric, *settings: object) -> None:
    """Adds a state that is the same for the same settings only, and never changes.

    A collection takes metrics whose states agree after the first batch for one, and lets a single
    one of them count from then on: the left and the right halves of two images may agree once.

    Args:
        metric: that counts.
        settings: what tells it from others of its kind; their ``repr`` says all.
    """
    digest = hashlib.sha256(repr(settings).encode()).digest()
    metric.add_state("settings", torch.tensor(list(digest)), dist_reduce_fx="max")


def next_indices(seen: int, count: int, what: str) -> Tensor:  # int64 [count]
    """Images numbered as they come, after those ``seen``.

    Raises:
        InputError: there are several processes, on whose number ``what`` would depend.
    """
    several = distributed.is_available() and distributed.is_initialized()
    if several and distributed.get_world_size() > 1:
        raise InputError(
            f"indices: expected the images' indices in their set, without which {what} would "
            "depend on the number of processes, got None"
        )
    return torch.arange(seen, seen + count)
