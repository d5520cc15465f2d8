"""What is averaged over images for each mode, and what its score is."""

from collections.abc import Sequence

import torch
from torch import Tensor

SUBSETS = ("left", "right")  # Equation 3, each over its own images
DEVIATION = "deviation"
ACTIVITY = "activity:"  # before the name of a region
ROUNDING = 1e-13  # of squares: a variance that is smaller is none
CELLS = "cells:"  # before the cells of a region of a grid, "cells:0+3"


def is_signed(mode: str) -> bool:
    """Whether a mode's scores are means of differences, not of their sizes."""
    return mode in SUBSETS or mode.startswith((ACTIVITY, CELLS))


def over_maps(mode: str, differences: Sequence[Tensor]) -> Tensor:  # each [n,C] -> [n,C]
    """The mean over a layer's maps: of their differences, or of the sizes of these."""
    plain = is_signed(mode) or mode == DEVIATION
    values = differences if plain else [each.abs() for each in differences]
    return values[0] if len(values) == 1 else torch.stack(list(values)).mean(0)


def moments(mode: str, values: Tensor) -> Tensor:  # [n,C] -> [n,C], of a deviation [n,2C]
    """What is averaged over images: the values, their sizes, or they and their squares."""
    if mode == DEVIATION:
        values = values.double()
        return torch.cat([values, values**2], 1)
    return values if is_signed(mode) else values.abs()


def score(mode: str, means: Tensor) -> Tensor:  # [...,C] or [...,2C] -> [...,C]
    """The score of each channel, from the means of :func:`moments`."""
    if mode != DEVIATION:
        return means
    mean, square = means.chunk(2, -1)
    variance = square - mean**2
    return torch.where(variance > ROUNDING * square, variance, 0.0).clamp(min=0).sqrt()
