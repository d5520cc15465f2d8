"""The AugShift step beside Equation 1 written out: from a layer's output through ReLU, pooling, a
linear head and the loss, and back to that output and to the head's parameters.

Both crops lie in one batch, as they leave a network that is given both at once.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gpe
from benches.bench_gap_mse import FORMATS, SHAPES, STEP_ROUNDS
from benches.harness import OURS, Race, race

CLASSES = {"CIFAR": 10, "ImageNet": 1000, "large": 1000}
WEIGHT = 1.0


def races(device: str) -> Iterator[partial[Race]]:
    """All shapes in both layouts; on a GPU also in bfloat16."""
    for dtype in (torch.float32, torch.bfloat16) if device == "cuda" else (torch.float32,):
        for name in SHAPES:
            for layout in FORMATS:
                yield partial(_race, device, dtype, name, layout)


def _race(device: str, dtype: torch.dtype, name: str, layout: str) -> Race:
    count, channels, *size = SHAPES[name]
    torch.manual_seed(0)
    maps = torch.randn(2 * count, channels, *size, device=device)
    maps = maps.to(dtype, memory_format=FORMATS[layout]).requires_grad_()
    head = nn.Linear(channels, CLASSES[name]).to(device, dtype)
    target = torch.randint(0, CLASSES[name], (count,), device=device)

    def step(loss: Callable) -> Callable:
        inputs = (maps, *head.parameters())
        return lambda: torch.autograd.grad(loss(maps, head, target), inputs)

    torch.compiler.reset()
    contestants = {
        OURS: step(_ours),
        f"{OURS} compiled": step(torch.compile(_ours, dynamic=False)),
        "eager": step(_plain),
        "compiled": step(torch.compile(_plain, dynamic=False)),
    }
    expected = contestants["eager"]()
    for label, contestant in contestants.items():
        _assert_close(label, contestant(), expected)
    return race(
        f"AugShift step, {device}, {name} 2×{'×'.join(map(str, SHAPES[name]))}, {dtype}, {layout}",
        contestants,
        device=device,
        calls=1,
        bytes_moved=3 * maps.nbytes,  # the maps are read forward and back, their gradient written
        rounds=STEP_ROUNDS[name],
        training=True,
    )


def _ours(maps: Tensor, head: nn.Module, target: Tensor) -> Tensor:
    return gpe.fused_augshift_loss(maps.relu(), None, head, target, weight=WEIGHT).loss


def _plain(maps: Tensor, head: nn.Module, target: Tensor) -> Tensor:
    z = maps.relu().mean((2, 3))
    z_a, z_b = z.chunk(2)
    logits_a, logits_b = head(z).chunk(2)
    cross_entropies = F.cross_entropy(logits_a, target) + F.cross_entropy(logits_b, target)
    return cross_entropies + WEIGHT * F.mse_loss(z_a, z_b)


def _assert_close(label: str, gradients: tuple, expected: tuple) -> None:
    for gradient, right in zip(gradients, expected, strict=True):
        rtol = 1e-4 if right.dtype == torch.float32 else 5e-2
        atol = rtol * right.abs().max().item()
        torch.testing.assert_close(gradient, right, rtol=rtol, atol=atol, msg=label)
