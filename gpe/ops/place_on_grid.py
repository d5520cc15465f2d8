"""Images on a grid: each in one cell of a larger canvas, zero elsewhere (paper, section 3.2)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gpe.errors import InputError
from gpe.ops import backend, reference
from gpe.ops.normalisation import output_dtype, scale_and_shift


def place_on_grid(
    images: Tensor,  # [N,C,h,w]
    locations: Tensor,  # [N]
    grid_size: int,
    *,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format = torch.contiguous_format,
    out: Tensor | None = None,
) -> Tensor:  # [N,C,n·h,n·w]
    """Places each image in one cell of an ``n×n`` grid, normalised, in one pass.

    The patch is ``(image - mean) / std``, where uint8 images are first scaled to [0, 1];
    the canvas around it is zero after the normalisation, as in the paper. Gradients reach
    floating-point ``images``.

    Args:
        images: uint8 or floating ``[N,C,h,w]``, with any strides.
        locations: int64 ``[N]`` on the same device; cells are numbered row by row from 0.
        grid_size: ``n``, cells along each side.
        mean: of each channel (or one for all), in units of the scaled image; 0 if None.
        std: likewise; 1 if None.
        dtype: floating dtype of the canvas. If None: that of autocast where it is on, else
            that of floating images, else :func:`torch.get_default_dtype`.
        memory_format: ``torch.contiguous_format`` or ``torch.channels_last``.
        out: the canvas that an earlier call returned. It changes nothing in the result, only
            how fast it comes: where it still fits, its memory is used again, and where
            nobody wrote to it in between (which torch counts, numpy does not), only the
            cells that change are touched. Go on with what this call returns.

    Returns:
        Canvases ``[N,C,n·h,n·w]``.

    Raises:
        InputError: an argument of the wrong type, shape, dtype or device; ``grid_size`` below
            1; on the CPU, a location outside the grid (on a GPU that is a device-side
            assertion); ``out`` together with images that require a gradient.

    Example:
        >>> import torch, gpe
        >>> images = torch.full((2, 3, 32, 32), 255, dtype=torch.uint8)
        >>> canvas = gpe.place_on_grid(images, torch.tensor([0, 8]), 3)
        >>> canvas.shape, canvas[1, :, 64:, 64:].mean().item(), canvas[1].sum().item()
        (torch.Size([2, 3, 96, 96]), 1.0, 3072.0)
    """
    _check(images, locations, grid_size, memory_format, out)
    dtype = output_dtype(images, dtype)
    scale, shift = scale_and_shift(images, mean, std, dtype)
    device, tracing = images.device.type, torch.compiler.is_compiling()

    reusable = out is not None and _fits(out, images, grid_size, dtype, memory_format)
    if reusable and not tracing and (placed := _placed(out, grid_size)) is not None:
        move = backend.implementation("place_on_grid_", device)
        move(out, placed, images, locations, grid_size, scale, shift)
        torch.autograd.graph.increment_version(out)
        _remember(out, placed.copy_(locations), grid_size)
        return out

    place = backend.implementation("place_on_grid", device)
    channels_last = memory_format == torch.channels_last
    canvas = place(images, locations, grid_size, scale, shift, dtype, channels_last)
    if reusable:
        canvas = out.copy_(canvas)
    if not (tracing or canvas.requires_grad or canvas.is_inference()):
        _remember(canvas, locations.clone(), grid_size)
    return canvas


class _Placed(NamedTuple):
    """What a canvas holds, for as long as its version says that nobody else wrote to it."""

    locations: Tensor
    grid_size: int
    version: int


def _remember(canvas: Tensor, locations: Tensor, grid_size: int) -> None:
    canvas._gpe_placed = _Placed(locations, grid_size, canvas._version)


def _placed(out: Tensor, grid_size: int) -> Tensor | None:
    """The locations that ``out`` holds, None where they are not known."""
    placed = getattr(out, "_gpe_placed", None)
    if placed is None or placed.version != out._version:
        backend.warn_once(
            "gpe: place_on_grid writes the whole of `out`: it is no canvas of an earlier call, "
            "or was changed since"
        )
        return None
    return placed.locations if placed.grid_size == grid_size else None


def _fits(
    out: Tensor,
    images: Tensor,
    grid_size: int,
    dtype: torch.dtype,
    memory_format: torch.memory_format,
) -> bool:
    """Whether ``out`` can hold the canvases."""
    count, channels, height, width = images.shape
    return (
        out.shape == (count, channels, grid_size * height, grid_size * width)
        and out.dtype == dtype
        and out.device == images.device
        and out.is_contiguous(memory_format=memory_format)
    )


def _check(
    images: Tensor,
    locations: Tensor,
    grid_size: int,
    memory_format: torch.memory_format,
    out: Tensor | None,
) -> None:
    if images.dim() != 4:
        raise InputError(f"images: expected shape [N,C,h,w], got {list(images.shape)}")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise InputError(f"images: expected uint8 or floating point, got {images.dtype}")
    if locations.dtype != torch.int64:
        raise InputError(f"locations: expected torch.int64, got {locations.dtype}")
    if locations.shape != images.shape[:1]:
        raise InputError(
            f"locations: expected shape [{len(images)}], one for each image, "
            f"got {list(locations.shape)}"
        )
    if locations.device != images.device:
        raise InputError(
            f"locations: expected the device of images, {images.device}, got {locations.device}"
        )
    if not isinstance(grid_size, int) or grid_size < 1:
        raise InputError(f"grid_size: expected an integer of at least 1, got {grid_size!r}")
    if memory_format not in (torch.contiguous_format, torch.channels_last):
        raise InputError(
            f"memory_format: expected contiguous_format or channels_last, got {memory_format}"
        )
    needs_gradient = torch.is_grad_enabled() and images.requires_grad
    if out is not None and (needs_gradient or out.requires_grad):
        raise InputError("out: expected None where a gradient is required")


def _fake(images, locations, grid_size, scale, shift, dtype, channels_last):
    return reference.empty_canvas(images, grid_size, dtype, channels_last)


def _setup_context(ctx, inputs, output) -> None:
    images, locations, grid_size, scale, *_ = inputs
    ctx.save_for_backward(locations, scale)
    ctx.grid_size, ctx.dtype = grid_size, images.dtype


def _backward(ctx, gradient: Tensor):
    locations, scale = ctx.saved_tensors
    patches = reference.place_on_grid_backward(gradient, locations, ctx.grid_size)
    images = (patches * scale[:, None, None]).to(ctx.dtype)
    return images, None, None, None, None, None, None


def register(library: str) -> None:
    """Adds shapes and gradients to the kernels of ``torch.ops.<library>``."""
    torch.library.register_fake(f"{library}::place_on_grid", _fake)
    torch.library.register_fake(f"{library}::place_on_grid_", lambda *arguments: None)
    torch.library.register_autograd(
        f"{library}::place_on_grid", _backward, setup_context=_setup_context
    )


if backend.extension().ready:
    register("gpe")
