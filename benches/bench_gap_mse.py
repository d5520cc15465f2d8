"""gap_mse beside what one would write without it: forward alone, and a whole step with a layer
before it, whose backward pass takes gap_mse's gradient.

Reading alone adds up everything, in whatever order is fastest: nobody pools in less time. The layer
alone goes forward, and backward from gradients that are there: what is left of a step is pooling.

A step's peak memory says who writes a gradient of the features' size: it holds what the layer
makes, keeps and hands on as well, which is the same for all.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gpe
from benches.harness import OURS, Race, race

SHAPES = {"CIFAR": (128, 512, 8, 8), "ImageNet": (64, 2048, 7, 7), "large": (16, 2048, 32, 64)}
FORMATS = {"NCHW": torch.contiguous_format, "channels-last": torch.channels_last}
NARROW = 64  # channels that the convolution takes
STEP_ROUNDS = {"CIFAR": 12, "ImageNet": 12, "large": 5}  # of which a step takes seconds


def races(device: str) -> Iterator[partial[Race]]:
    """Forward, and after a ReLU; after other layers on CIFAR's maps alone; bfloat16 on a GPU."""
    for dtype in (torch.float32, torch.bfloat16) if device == "cuda" else (torch.float32,):
        for name in SHAPES:
            for layout in FORMATS:
                yield partial(_forward, device, dtype, name, layout)
                layers = ("ReLU", "batch norm", "convolution") if name == "CIFAR" else ("ReLU",)
                for layer in layers:
                    yield partial(_step, device, dtype, name, layout, layer)


def _forward(device: str, dtype: torch.dtype, name: str, layout: str) -> Race:
    a, b = _features(device, dtype, SHAPES[name], FORMATS[layout])
    torch.compiler.reset()
    rivals = {OURS: gpe.gap_mse, "eager": _eager, "adaptive": _adaptive}
    rivals["compiled"] = torch.compile(_eager, dynamic=False)
    contestants = {label: _without_gradient(pool, a, b) for label, pool in rivals.items()}
    expected = _eager(a.double(), b.double())
    for label, contestant in contestants.items():
        _assert_close(label, contestant(), expected, dtype)
    contestants["reading alone"] = lambda: (a.sum(), b.sum())
    return race(
        f"gap_mse, {_title(device, dtype, name, layout)}, forward",
        contestants,
        device=device,
        calls=1,
        bytes_moved=a.nbytes + b.nbytes,
    )


def _step(device: str, dtype: torch.dtype, name: str, layout: str, layer: str) -> Race:
    count, channels, *size = SHAPES[name]
    shape = (count, NARROW if layer == "convolution" else channels, *size)
    a, b = (maps.requires_grad_() for maps in _features(device, dtype, shape, FORMATS[layout]))
    both = torch.cat([a, b]).detach().requires_grad_()
    before = _layer(layer, channels).to(device, dtype, memory_format=FORMATS[layout])

    # Batch norm takes away what is the same for all images.
    weight = torch.linspace(-1, 1, count * channels, device=device).view(count, channels)

    def two(pool: Callable) -> Callable:
        return lambda: torch.autograd.grad(_loss(pool(before(a), before(b)), weight), (a, b))

    def stacked(pool: Callable) -> Callable:
        return lambda: torch.autograd.grad(_loss(pool(before(both)), weight), both)

    def compiled(pool: Callable) -> Callable:
        loss = torch.compile(lambda a, b: _loss(pool(before(a), before(b)), weight), dynamic=False)
        return lambda: torch.autograd.grad(loss(a, b), (a, b))

    torch.compiler.reset()
    contestants = {
        OURS: two(gpe.gap_mse),
        f"{OURS} stacked": stacked(gpe.gap_mse),
        f"{OURS} compiled": compiled(gpe.gap_mse),
        "eager": two(_eager),
        "eager stacked": stacked(_eager_stacked),
        "adaptive": two(_adaptive),
        "compiled": compiled(_eager),
    }
    expected = torch.cat(contestants["eager"]())
    for label, contestant in contestants.items():
        # Batch norm takes the statistics of a batch: stacked is another sum.
        if not ("stacked" in label and layer == "batch norm"):
            _assert_close(label, (torch.cat(contestant()),), (expected,), dtype)
    made = before(a), before(b)
    given = torch.autograd.grad(_loss(gpe.gap_mse(*made), weight), made)
    contestants["layer alone"] = lambda: torch.autograd.grad((before(a), before(b)), (a, b), given)
    features = 2 * count * channels * size[0] * size[1] * both.itemsize
    return race(
        f"gap_mse, {_title(device, dtype, name, layout)}, forward and backward after {layer}",
        contestants,
        device=device,
        calls=1,
        bytes_moved=3 * features,  # the layer's output is written and read, its gradient written
        rounds=STEP_ROUNDS[name],
        training=True,
    )


def _layer(name: str, channels: int) -> nn.Module:
    if name == "ReLU":
        return nn.ReLU()
    if name == "batch norm":
        return nn.BatchNorm2d(channels)
    return nn.Conv2d(NARROW, channels, 1, bias=False)


def _eager(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    z_a, z_b = a.mean((2, 3)), b.mean((2, 3))
    return z_a, z_b, F.mse_loss(z_a, z_b)


def _eager_stacked(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    z_a, z_b = features.mean((2, 3)).chunk(2)
    return z_a, z_b, F.mse_loss(z_a, z_b)


def _adaptive(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    z_a, z_b = (F.adaptive_avg_pool2d(maps, 1).flatten(1) for maps in (a, b))
    return z_a, z_b, F.mse_loss(z_a, z_b)


def _loss(pooled: tuple[Tensor, Tensor, Tensor], weight: Tensor) -> Tensor:
    z_a, z_b, mse = pooled
    return (z_a * weight).sum() + (z_b * weight).sum() + mse


def _without_gradient(pool: Callable, a: Tensor, b: Tensor) -> Callable:
    return partial(torch.no_grad()(pool), a, b)


def _features(
    device: str, dtype: torch.dtype, shape: tuple, memory_format: torch.memory_format
) -> list[Tensor]:
    generator = torch.Generator(device).manual_seed(0)
    maps = (torch.randn(shape, generator=generator, device=device) for _ in "ab")
    return [features.to(dtype, memory_format=memory_format) for features in maps]


def _assert_close(label: str, results: tuple, expected: tuple, dtype: torch.dtype) -> None:
    rtol = 1e-4 if dtype == torch.float32 else 5e-2
    for result, right in zip(results, expected, strict=True):
        atol = rtol * right.abs().max().item()
        torch.testing.assert_close(
            result, right, rtol=rtol, atol=atol, check_dtype=False, check_stride=False, msg=label
        )


def _title(device: str, dtype: torch.dtype, name: str, layout: str) -> str:
    return f"{device}, {name} {'×'.join(map(str, SHAPES[name]))}, {dtype}, {layout}"
