"""place_on_grid beside what one would write without it, from uint8 with normalisation.

On a fresh canvas each call makes a new one; a reused one is the canvas of the call before, for all
but the loop, which does as the authors' code does.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

import gpe
from benches.harness import OURS, Race, race

SIZE = 32
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
FORMATS = {"NCHW": torch.contiguous_format, "channels-last": torch.channels_last}


def races(device: str) -> Iterator[partial[Race]]:
    """Batch 128 at 3×3, 5×5 and 7×7; on a GPU also batch 1024, far beyond its cache."""
    for batch in (128, 1024) if device == "cuda" else (128,):
        for grid in (3, 5, 7):
            for layout in FORMATS:
                for canvas in ("fresh", "reused"):
                    yield partial(_race, device, batch, grid, layout, canvas)


def _race(device: str, batch: int, grid: int, layout: str, canvas: str) -> Race:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    images = images.to(device)
    first = torch.randint(0, grid**2, (batch,), generator=generator).to(device)
    # Every patch moves between the two calls of a step.
    locations = (first, (first + 1) % grid**2)

    torch.compiler.reset()
    make = _fresh if canvas == "fresh" else _reused
    places = {
        OURS: make(_ours, grid, FORMATS[layout]),
        "loop": _fresh(_loop, grid, FORMATS[layout]),
        "eager": make(_eager, grid, FORMATS[layout]),
        "compiled eager": torch.compile(make(_eager, grid, FORMATS[layout]), dynamic=False),
        "compiled mask": torch.compile(make(_masked, grid, FORMATS[layout]), dynamic=False),
    }
    expected = [_eager(images, where, _empty(images, grid), grid) for where in locations]
    for name, place in places.items():
        for where, right in zip(locations * 2, expected * 2, strict=True):
            torch.testing.assert_close(place(images, where), right, rtol=1e-5, atol=1e-5, msg=name)

    written = 2 * 4 * images.numel() if canvas == "reused" else expected[0].nbytes
    return race(
        f"place_on_grid, {device}, batch {batch}, {grid}×{grid}, {layout}, {canvas} canvas",
        {name: _step(place, images, locations) for name, place in places.items()},
        device=device,
        calls=len(locations),
        bytes_moved=images.nbytes + written,
    )


def _step(place: Callable, images: Tensor, locations: tuple[Tensor, ...]) -> Callable:
    def step() -> None:
        for where in locations:
            place(images, where)

    return step


def _fresh(place: Callable, grid: int, memory_format: torch.memory_format) -> Callable:
    if place is _ours:
        return lambda images, where: _ours(images, where, None, grid, memory_format)
    return lambda images, where: place(images, where, _empty(images, grid, memory_format), grid)


def _reused(place: Callable, grid: int, memory_format: torch.memory_format) -> Callable:
    canvas = placed = None

    def reuse(images: Tensor, where: Tensor) -> Tensor:
        nonlocal canvas, placed
        if place is _ours:
            canvas = _ours(images, where, canvas, grid, memory_format, placed)
            placed = where
        else:
            canvas = _empty(images, grid, memory_format) if canvas is None else canvas
            place(images, where, canvas, grid)
        return canvas

    return reuse


def _ours(
    images: Tensor,
    locations: Tensor,
    canvas: Tensor | None,
    grid: int,
    memory_format: torch.memory_format,
    placed: Tensor | None = None,
) -> Tensor:
    options = {"memory_format": memory_format, "out": canvas, "placed": placed}
    return gpe.place_on_grid(images, locations, grid, mean=MEAN, std=STD, **options)


def _loop(images: Tensor, locations: Tensor, canvas: Tensor, grid: int) -> Tensor:
    """One image after the other, as the authors do."""
    canvas.zero_()
    for i, (image, location) in enumerate(zip(_normalise(images), locations.tolist(), strict=True)):
        top, left = location // grid * SIZE, location % grid * SIZE
        canvas[i, :, top : top + SIZE, left : left + SIZE] = image
    return canvas


def _eager(images: Tensor, locations: Tensor, canvas: Tensor, grid: int) -> Tensor:
    """All images at once, by index."""
    cells = canvas.zero_().unflatten(2, (grid, SIZE)).unflatten(4, (grid, SIZE))
    batch = torch.arange(len(images), device=images.device)
    cells[batch, :, locations // grid, :, locations % grid] = _normalise(images)
    return canvas


def _masked(images: Tensor, locations: Tensor, canvas: Tensor, grid: int) -> Tensor:
    """Every cell is the image or zero: what a compiler can fuse into one pass."""
    cells = canvas.unflatten(2, (grid, SIZE)).unflatten(4, (grid, SIZE))
    numbers = torch.arange(grid**2, device=images.device).view(grid, 1, grid, 1)
    here = locations.view(-1, 1, 1, 1, 1, 1) == numbers
    cells.copy_(torch.where(here, _normalise(images)[:, :, None, :, None, :], 0.0))
    return canvas


def _normalise(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(v, device=images.device).view(3, 1, 1) for v in (MEAN, STD))
    return (images / 255 - mean) / std


def _empty(
    images: Tensor, grid: int, memory_format: torch.memory_format = torch.contiguous_format
) -> Tensor:
    shape = (len(images), 3, grid * SIZE, grid * SIZE)
    return torch.empty(shape, device=images.device, memory_format=memory_format)
