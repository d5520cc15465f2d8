"""Latents of a frozen network, one for each pair of an image and a cell, computed once."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gpe.data import ImageSet
from gpe.errors import InputError, expect_at_least_one
from gpe.metrics.evaluating import evaluating
from gpe.ops.place_on_grid import place_on_grid
from gpe.ranking.layer import pooled_at


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
        layers: names for :func:`gpe.ranking.layer.pooled_at`.
        order: int64 ``[P]``, which image each pair has; all in turn where None.
        batch_size: canvases at a time.
        mean, std: of the channels, as the model wants them; those of the set where None.

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
            for layer, pooled in run(model, layers, canvas, grid_size).items():
                parts[layer].append(pooled.cpu())
    return {layer: torch.cat(part) for layer, part in parts.items()}


def run(
    model: nn.Module, layers: Sequence[str], canvases: Tensor, grid_size: int
) -> dict[str, Tensor]:
    """:func:`pooled_at`, with a word on the size where the network refuses it."""
    try:
        return pooled_at(model, layers, canvases)
    except InputError:
        raise
    except Exception as error:  # a network may raise anything
        raise refused(canvases, grid_size, error) from error


def refused(canvases: Tensor, grid_size: int, error: Exception) -> InputError:
    """What to say of a network that does not take such canvases."""
    side = canvases.shape[-1]
    came = next(iter(str(error).splitlines()), "")
    return InputError(
        f"image_size: expected cells that make canvases of a size that the network takes, got "
        f"{side // grid_size} pixels, {grid_size}×{grid_size} of which make {side}×{side}: "
        f"{type(error).__name__}: {came:.120}"
    )


def memory_format(model: nn.Module, device: torch.device) -> torch.memory_format:
    """The faster one for convolutions; torch 2.15 crashes on it on the CPU with 8 channels in."""
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    safe = device.type == "cuda" or all(
        c.in_channels in (1, 3) or c.in_channels % 16 == 0 for c in convolutions
    )
    return torch.channels_last if safe and convolutions else torch.contiguous_format
