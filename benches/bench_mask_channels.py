"""mask_channels beside what one would write without it, out of place and in place."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

import gpe
from benches.harness import OURS, Race, race

# The second is the latent of DeepLabv3-ResNet-50 for Cityscapes, output stride 16.
SHAPES = {"ImageNet": (64, 2048, 7, 7), "Cityscapes": (2, 2048, 64, 128)}
FORMATS = {"NCHW": torch.contiguous_format, "channels-last": torch.channels_last}
MASKED = 100  # as in the ranges of Figure 4


def races(device: str) -> Iterator[partial[Race]]:
    """Every shape and memory format; bfloat16 too on a GPU."""
    for dtype in (torch.float32, torch.bfloat16) if device == "cuda" else (torch.float32,):
        for name in SHAPES:
            for layout in FORMATS:
                for inplace in (False, True):
                    yield partial(_race, device, dtype, name, layout, inplace=inplace)


def _race(device: str, dtype: torch.dtype, name: str, layout: str, *, inplace: bool) -> Race:
    generator = torch.Generator(device).manual_seed(0)
    features = torch.randn(SHAPES[name], generator=generator, device=device)
    features = features.to(dtype, memory_format=FORMATS[layout])
    channels = torch.randperm(features.shape[1], generator=torch.Generator().manual_seed(0))
    channels = channels[:MASKED].to(device)
    torch.compiler.reset()
    rivals = _in_place() if inplace else _out_of_place()
    contestants = {
        label: _without_gradient(rival, features, channels) for label, rival in rivals.items()
    }
    expected = features.clone()
    expected[:, channels] = 0
    for label, contestant in contestants.items():
        before = features.clone()
        torch.testing.assert_close(contestant(), expected, rtol=0, atol=0, msg=label)
        features.copy_(before)
    share = MASKED / features.shape[1] if inplace else 2
    how = "in place" if inplace else "out of place"
    shape = "×".join(map(str, SHAPES[name]))
    return race(
        f"mask_channels, {device}, {name} {shape}, {dtype}, {layout}, {how}",
        contestants,
        device=device,
        calls=1,
        bytes_moved=int(share * features.nbytes),
    )


def _out_of_place() -> dict[str, Callable]:
    return {
        OURS: gpe.mask_channels,
        "clone and assign": _clone_and_assign,
        "multiply": _multiply,
        "compiled": torch.compile(_clone_and_assign, dynamic=False),
    }


def _in_place() -> dict[str, Callable]:
    return {
        OURS: lambda features, channels: gpe.mask_channels(features, channels, inplace=True),
        "assign": _assign,
        "index_fill_": lambda features, channels: features.index_fill_(1, channels, 0),
        "compiled": torch.compile(_assign, dynamic=False),
    }


def _assign(features: Tensor, channels: Tensor) -> Tensor:
    features[:, channels] = 0
    return features


def _clone_and_assign(features: Tensor, channels: Tensor) -> Tensor:
    return _assign(features.clone(), channels)


def _multiply(features: Tensor, channels: Tensor) -> Tensor:
    """Wrong where there are infinite values."""
    kept = torch.ones(features.shape[1], dtype=features.dtype, device=features.device)
    kept[channels] = 0
    return features * kept[:, None, None]


def _without_gradient(rival: Callable, features: Tensor, channels: Tensor) -> Callable:
    return lambda: torch.no_grad()(rival)(features, channels)
