"""Latents of a frozen network, one for each pair of an image and a cell, computed once."""

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from gpe.data import ImageSet
from gpe.errors import InputError, expect_at_least_one
from gpe.metrics.evaluating import evaluating
from gpe.models.inside import Layout, layouts_of, pooled_at
from gpe.models.running import foreign
from gpe.ops.place_on_grid import place_on_grid


def grid_latents(
    model: nn.Module,
    images: ImageSet,
    cells: Tensor,  # int64 [P]
    grid_size: int,
    *,
    layers: Sequence[str],
    order: Tensor | None = None,
    batch_size: int = 32,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    channel_dim: int | None = None,
) -> dict[str, Tensor]:  # each [P,C]
    """Places images on black canvases and pools what each layer makes of them.

    A 1×1 convolution followed by global average pooling is a linear map of these vectors, so that
    a readout needs nothing else of the network (Equation S1).

    Args:
        model: on the device of ``images``. It runs in evaluation mode without gradients, once for
            each pair whatever the number of layers, and is left as it was.
        images: the patches.
        cells: where each lies, counted row by row; one for each of ``order``.
        grid_size: cells along each side.
        layers: names for :func:`gpe.models.inside.pooled_at`.
        order: int64 ``[P]``, which image each pair has; all in turn where None.
        batch_size: canvases at a time.
        mean, std: of the channels, as the model wants them; those of the set where None.
        channel_dim: of the layers' outputs, where it does not show; negative from the end.

    Returns:
        By layer, float32 or wider, on the CPU.

    Raises:
        InputError: cells that do not go with the images, a layer that there is not or that yields
            no channels, or canvases of a size that the network refuses.

    Example:
        >>> from gpe.data import load
        >>> digits, _ = load("digits", train_images=4, image_size=16)
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten())
        >>> latents = grid_latents(net, digits, torch.tensor([0, 3, 8, 8]), 3, layers=["0", "1"])
        >>> {layer: list(values.shape) for layer, values in latents.items()}
        {'0': [4, 8], '1': [4, 8]}
    """
    order = torch.arange(len(images)) if order is None else order
    if cells.shape != order.shape or cells.dtype != torch.int64:
        raise InputError(
            f"cells: expected int64 {list(order.shape)}, one for each image, "
            f"got {cells.dtype} {list(cells.shape)}"
        )
    if len(cells) == 0:
        raise InputError("images: expected one or more, got none")
    expect_at_least_one("batch_size", batch_size)
    layout = memory_format(model, images.device)
    parts: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    layouts: dict[str, Layout] = {}
    canvas = None
    there = cells.to(images.device).split(batch_size)
    with evaluating(model):
        for batch, place in zip(images.batches(order, batch_size), there, strict=True):
            canvas = place_on_grid(
                batch.images,
                place,
                grid_size,
                mean=images.mean if mean is None else mean,
                std=images.std if std is None else std,
                dtype=torch.float32,
                memory_format=layout,
                out=canvas,
            )
            with taking_canvases(canvas, grid_size):
                layouts = layouts or layouts_of(model, layers, canvas, channel_dim=channel_dim)
                for layer, pooled in pooled_at(model, layers, canvas, layouts).items():
                    parts[layer].append(pooled.cpu())
    return {layer: torch.cat(part) for layer, part in parts.items()}


def taking_canvases(canvases: Tensor, grid_size: int) -> AbstractContextManager[None]:
    """Within the block, what a network raises that refuses such canvases speaks of their size."""
    side = canvases.shape[-1]
    return foreign(
        "image_size: expected cells that make canvases of a size that the network takes, got "
        f"{side // grid_size} pixels, {grid_size}×{grid_size} of which make {side}×{side}"
    )


def memory_format(model: nn.Module, device: torch.device) -> torch.memory_format:
    """The faster one for convolutions; torch 2.15 crashes on it on the CPU with 8 channels in."""
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    safe = device.type == "cuda" or all(
        c.in_channels in (1, 3) or c.in_channels % 16 == 0 for c in convolutions
    )
    return torch.channels_last if safe and convolutions else torch.contiguous_format
