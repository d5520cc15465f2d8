"""Plain PyTorch for every op: what "right" means.

Kernels give the same bits, but for sums: there each has an order of its own.
"""

import torch
from torch import Tensor

from gpe.errors import InputError


def place_on_grid(
    images: Tensor,  # [N,C,h,w]
    locations: Tensor,  # [N]
    grid_size: int,
    scale: Tensor,  # [C]
    shift: Tensor,  # [C]
    dtype: torch.dtype,
    channels_last: bool,
) -> Tensor:  # [N,C,n·h,n·w]
    """Canvases of zeros, each with ``images * scale + shift`` in one cell."""
    expect_inside(locations, grid_size)
    canvas = empty_canvas(images, grid_size, dtype, channels_last).zero_()
    patches = images * scale[:, None, None] + shift[:, None, None]
    _cells(canvas, grid_size)[_index(locations, grid_size)] = patches.to(dtype)
    return canvas


def place_on_grid_(
    canvas: Tensor,
    placed: Tensor,
    images: Tensor,
    locations: Tensor,
    grid_size: int,
    scale: Tensor,
    shift: Tensor,
) -> None:
    """Clears the cells ``placed`` of a canvas and writes the cells ``locations``."""
    expect_inside(locations, grid_size)
    patches = images * scale[:, None, None] + shift[:, None, None]
    cells = _cells(canvas, grid_size)
    cells[_index(placed, grid_size)] = 0
    cells[_index(locations, grid_size)] = patches.to(canvas.dtype)


def place_on_grid_backward(gradient: Tensor, locations: Tensor, grid_size: int) -> Tensor:
    """The cells ``locations`` of canvases ``[N,C,n·h,n·w]``: patches ``[N,C,h,w]``."""
    return _cells(gradient, grid_size)[_index(locations, grid_size)]


def gap_mse(
    features_a: Tensor,  # [N,C,H,W], or [2N,C,H,W] alone
    features_b: Tensor | None,  # [N,C,H,W]
) -> tuple[Tensor, Tensor]:  # [2N,C], []
    """Means over H and W, and the mean squared error of the second half against the first."""
    dtype = torch.promote_types(features_a.dtype, torch.float32)
    maps = [features_a] if features_b is None else [features_a, features_b]
    pooled = torch.cat([features.mean((2, 3), dtype=dtype) for features in maps])
    count = len(pooled) // 2
    return pooled, (pooled[:count] - pooled[count:]).square().mean()


def empty_canvas(images: Tensor, grid_size: int, dtype: torch.dtype, channels_last: bool) -> Tensor:
    """Memory for the canvases of ``images``, not written yet."""
    count, channels, height, width = images.shape
    return torch.empty(
        (count, channels, grid_size * height, grid_size * width),
        dtype=dtype,
        device=images.device,
        memory_format=torch.channels_last if channels_last else torch.contiguous_format,
    )


def expect_inside(locations: Tensor, grid_size: int) -> None:
    """Raises where a location lies outside the grid; on a GPU by a device-side assertion."""
    inside = (locations >= 0) & (locations < grid_size**2)
    if locations.is_cuda or torch.compiler.is_compiling():
        torch._assert_async(inside.all(), "locations: a location lies outside the grid")
    elif not inside.all():
        where = int(inside.logical_not().nonzero()[0])
        raise InputError(
            f"locations: expected cells from 0 to {grid_size**2 - 1}, "
            f"got {int(locations[where])} at index {where}"
        )


def _cells(canvas: Tensor, grid_size: int) -> Tensor:
    """A view ``[N,C,n,h,n,w]`` of canvases ``[N,C,n·h,n·w]``."""
    height, width = canvas.shape[2] // grid_size, canvas.shape[3] // grid_size
    return canvas.unflatten(2, (grid_size, height)).unflatten(4, (grid_size, width))


def _index(locations: Tensor, grid_size: int) -> tuple:
    """Takes ``[N,C,h,w]`` out of :func:`_cells`: of each image the cell of its location."""
    images = torch.arange(len(locations), device=locations.device)
    rows, columns = locations // grid_size, locations % grid_size
    return images, slice(None), rows, slice(None), columns
