"""Pairs of views of an image, displaced at random: what shift consistency compares."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from gpe.errors import InputError, expect_integer, expect_one_of
from gpe.ops.dual_crop import dual_crop, pair

ShiftProtocol = Literal["crop", "zeros", "reflect", "circular"]


@dataclass(frozen=True)
class Views:
    """How views are cut: the arguments of ``shift_consistency`` that say so."""

    max_shift: int
    protocol: ShiftProtocol
    passes: int
    seed: int
    size: int | tuple[int, int] | None
    mean: float | Sequence[float] | None
    std: float | Sequence[float] | None
    dtype: torch.dtype | None
    memory_format: torch.memory_format

    def __post_init__(self):
        expect_one_of("protocol", self.protocol, get_args(ShiftProtocol))
        for name, least in (("max_shift", 0), ("passes", 1), ("seed", 0)):
            number = expect_integer(name, getattr(self, name), least)
            object.__setattr__(self, name, number)  # an int, where it was NumPy's

    def cut(self, images: Tensor, indices: Tensor, number: int) -> Tensor:
        """The pairs of views of one pass, ``[2,n,C,h,w]``."""
        height, width = images.shape[2:]
        size, borders = self._window((height, width))
        padding = tuple(max(0, self.max_shift - border) for border in borders)
        unmoved = torch.tensor(borders) + torch.tensor(padding)
        offsets = unmoved + _shifts(self.seed, number, indices, self.max_shift)
        return dual_crop(
            images,
            size,
            offsets.to(images.device),
            torch.zeros(2, len(images), dtype=torch.bool, device=images.device),
            padding=padding,
            padding_mode="zeros" if self.protocol == "crop" else self.protocol,
            mean=self.mean,
            std=self.std,
            dtype=self.dtype,
            memory_format=self.memory_format,
        )

    def _window(self, sides: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Size of the views, and the borders of the unmoved one: above it, left of it."""
        if self.size is not None:
            size = pair("size", self.size, 1)
        elif self.protocol == "crop":
            # At least 1: where the shift leaves no view, the shift is what is wrong.
            height, width = (max(1, side - 2 * self.max_shift) for side in sides)
            size = height, width
        else:
            size = sides
        # Where the difference is odd, the opposite border is wider by one pixel.
        borders = (sides[0] - size[0]) // 2, (sides[1] - size[1]) // 2

        reach = min(map(self._reach, borders, sides))
        if reach < 0:
            raise InputError(
                f"size: expected views that protocol {self.protocol} can fill from images of "
                f"{list(sides)}, got {list(size)}"
            )
        if self.max_shift > reach:
            raise InputError(
                f"max_shift: expected at most {reach}, the "
                f"{'border' if self.protocol == 'crop' else 'reach'} that protocol "
                f"{self.protocol} has, got {self.max_shift}"
            )
        return size, borders

    def _reach(self, border: int, side: int) -> float:
        """The largest shift beyond which the protocol has no pixels."""
        padding = {"crop": 0, "zeros": math.inf, "reflect": side - 1, "circular": side}
        return border + padding[self.protocol]


def _shifts(seed: int, number: int, indices: Tensor, max_shift: int) -> Tensor:  # [2,n,2]
    """Shifts of both views in (rows, columns), from ``-max_shift`` to ``max_shift``.

    A hash of (seed, pass, index, view and axis), which has no state. The remainder favours no
    shift by more than (2·max_shift + 1) / 2⁶⁴.
    """
    words = (
        np.full((1, 1), seed, dtype=np.uint64),
        np.uint64(number),
        indices.cpu().numpy().astype(np.uint64)[:, None],
        np.arange(4, dtype=np.uint64).reshape(2, 1, 2),
    )
    state = np.zeros((1, 1), dtype=np.uint64)
    for word in words:
        state = _splitmix64(state + word)
    return torch.from_numpy((state % np.uint64(2 * max_shift + 1)).astype(np.int64)) - max_shift


def _splitmix64(state: np.ndarray) -> np.ndarray:
    """SplitMix64's number that follows ``state``, uint64 (Steele, Lea & Flood, "Fast splittable
    pseudorandom number generators", OOPSLA 2014; prng.di.unimi.it/splitmix64.c)."""
    z = state + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
