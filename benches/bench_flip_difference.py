"""flip_difference beside what one would write without it: pool two maps, subtract, add to two sums.

Reading alone adds up everything, in whatever order is fastest: nobody pools in less time.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

import gpe
from benches.harness import OURS, Race, race

# The last is the latent of DeepLabv3-ResNet-50 for Cityscapes, output stride 16.
SHAPES = {"CIFAR": (128, 512, 8, 8), "ImageNet": (64, 2048, 7, 7), "Cityscapes": (2, 2048, 64, 128)}
FORMATS = {"NCHW": torch.contiguous_format, "channels-last": torch.channels_last}

Totals = tuple[Tensor, Tensor]


def races(device: str) -> Iterator[partial[Race]]:
    """Every shape and memory format; bfloat16 too on a GPU."""
    for dtype in (torch.float32, torch.bfloat16) if device == "cuda" else (torch.float32,):
        for name in SHAPES:
            for layout in FORMATS:
                yield partial(_race, device, dtype, name, layout)


def _race(device: str, dtype: torch.dtype, name: str, layout: str) -> Race:
    features, mirrored = _features(device, dtype, SHAPES[name], FORMATS[layout])
    torch.compiler.reset()
    rivals = {OURS: _ours, "eager": _eager, "compiled": torch.compile(_eager, dynamic=False)}
    contestants = {}
    for label, rival in rivals.items():
        _assert_right(label, rival, features, mirrored)
        contestants[label] = _without_gradient(rival, features, mirrored)
    contestants["reading alone"] = lambda: (features.sum(), mirrored.sum())
    shape = "×".join(map(str, SHAPES[name]))
    return race(
        f"flip_difference, {device}, {name} {shape}, {dtype}, {layout}",
        contestants,
        device=device,
        calls=1,
        bytes_moved=features.nbytes + mirrored.nbytes,
    )


def _ours(features: Tensor, mirrored: Tensor, totals: Totals) -> Tensor:
    return gpe.flip_difference(features, mirrored, totals=totals).difference


def _eager(features: Tensor, mirrored: Tensor, totals: Totals) -> Tensor:
    pooled, pooled_mirrored = (
        maps.mean((2, 3), dtype=torch.float32) for maps in (features, mirrored)
    )
    difference = pooled - pooled_mirrored
    totals[0].add_(difference.sum(0, dtype=torch.float64))
    totals[1].add_(difference.abs().sum(0, dtype=torch.float64))
    return difference


def _zeros(features: Tensor) -> Totals:
    zeros = torch.zeros(features.shape[1], dtype=torch.float64, device=features.device)
    return zeros, zeros.clone()


def _without_gradient(rival: Callable, features: Tensor, mirrored: Tensor) -> Callable:
    totals = _zeros(features)
    return lambda: torch.no_grad()(rival)(features, mirrored, totals)


def _assert_right(label: str, rival: Callable, features: Tensor, mirrored: Tensor) -> None:
    totals = _zeros(features)
    difference = torch.no_grad()(rival)(features, mirrored, totals)
    right = features.double().mean((2, 3)) - mirrored.double().mean((2, 3))
    close = {"rtol": 1e-4, "atol": 1e-5, "msg": label}
    torch.testing.assert_close(difference.double(), right, **close)
    torch.testing.assert_close(totals[0], right.sum(0), **close)
    torch.testing.assert_close(totals[1], right.abs().sum(0), **close)


def _features(
    device: str, dtype: torch.dtype, shape: tuple, memory_format: torch.memory_format
) -> list[Tensor]:
    generator = torch.Generator(device).manual_seed(0)
    maps = (torch.randn(shape, generator=generator, device=device) for _ in "ab")
    return [features.to(dtype, memory_format=memory_format) for features in maps]
