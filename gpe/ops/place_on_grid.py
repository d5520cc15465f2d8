"""Images on a grid: each in one cell of a larger canvas, zero elsewhere (paper, section 3.2)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gpe.errors import InputError, expect_integer
from gpe.ops import backend, reference
from gpe.ops.checks import (
    FLOATS,
    expect_addressable,
    expect_device,
    expect_memory_format,
    expect_one_device,
    expect_tensor,
    expect_values,
    overlap,
    told,
    transformed,
)
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
    placed: Tensor | None = None,  # [N]
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
        out: a tensor, such as the canvas of an earlier call, whose memory is used again where
            it fits. It changes nothing in the result. Go on with what this call returns.
        placed: the ``locations`` of the call that filled ``out``, with the same ``grid_size``,
            where the caller knows that nobody wrote to it since: then only cells that change
            are touched, which is many times faster on a large grid. Whatever else ``out``
            holds stays. None: all of it is written.

    Returns:
        Canvases ``[N,C,n·h,n·w]``.

    Raises:
        InputError: an argument of the wrong type, shape, dtype or device; ``grid_size`` below
            1; on the CPU, a location outside the grid (on a GPU that is a device-side
            assertion); ``out`` together with images that require a gradient or are
            transformed by torch.func; ``placed`` without ``out``.

    Example:
        >>> import torch, gpe
        >>> images = torch.full((2, 3, 32, 32), 255, dtype=torch.uint8)
        >>> canvas = gpe.place_on_grid(images, torch.tensor([0, 8]), 3)
        >>> canvas.shape, canvas[1, :, 64:, 64:].mean().item(), canvas[1].sum().item()
        (torch.Size([2, 3, 96, 96]), 1.0, 3072.0)
    """
    grid_size = expect_integer("grid_size", grid_size, 1, 2**31 - 1)
    _check(images, locations, memory_format)
    dtype = output_dtype(images, dtype)
    count, channels, height, width = images.shape
    shape = (count, channels, grid_size * height, grid_size * width)
    expect_addressable("grid_size", shape, dtype)
    scale, shift = scale_and_shift(images, mean, std, dtype)
    device, unserved = images.device.type, transformed(images)
    _check_out(images, out, placed, unserved)

    reusable = (
        out is not None
        and out.shape == shape
        and out.dtype == dtype
        and out.device == images.device
        and out.is_contiguous(memory_format=memory_format)
    )
    if out is not None and reusable and not torch.compiler.is_compiling():
        move = backend.implementation("place_on_grid_", device)
        images, locations = (_apart(tensor, out) for tensor in (images, locations))
        placed = None if placed is None else _apart(placed, out)
        told(move, out, placed, images, locations, grid_size, scale, shift)
        return out
    place = backend.implementation("place_on_grid", device, unserved)
    channels_last = memory_format == torch.channels_last
    canvas = told(place, images, locations, grid_size, scale, shift, dtype, channels_last)
    return out.copy_(canvas) if out is not None and reusable else canvas


def _apart(tensor: Tensor, out: Tensor) -> Tensor:
    return tensor.clone() if overlap(tensor, out) else tensor


def _check(images: Tensor, locations: Tensor, memory_format: torch.memory_format) -> None:
    allowed = (torch.uint8, *FLOATS)
    expect_tensor("images", images, allowed, "uint8 or floating point", first=True)
    if images.dim() != 4:
        raise InputError(f"images: expected shape [N,C,h,w], got {list(images.shape)}")
    _check_locations("locations", locations, images)
    expect_memory_format(memory_format)


def _check_locations(name: str, locations: Tensor, images: Tensor) -> None:
    expect_tensor(name, locations, (torch.int64,), "torch.int64")
    if locations.shape != images.shape[:1]:
        raise InputError(
            f"{name}: expected shape [{len(images)}], one for each image, "
            f"got {list(locations.shape)}"
        )
    expect_device(name, locations, "images", images)
    expect_values(name, locations)


def _check_out(images: Tensor, out: Tensor | None, placed: Tensor | None, unserved: str) -> None:
    if out is None:
        if placed is not None:
            raise InputError("placed: expected None without out, got locations")
        return
    expect_tensor("out", out, FLOATS, "None or a floating-point canvas")
    needs_gradient = torch.is_grad_enabled() and images.requires_grad
    if unserved or needs_gradient or out.requires_grad:
        raise InputError("out: expected None where a gradient is required")
    if placed is not None:
        _check_locations("placed", placed, images)


def _fake(images, locations, grid_size, scale, shift, dtype, channels_last):
    expect_one_device(images=images, locations=locations, scale=scale, shift=shift)
    return reference.empty_canvas(images, grid_size, dtype, channels_last)


def _fake_in_place(canvas, placed, images, locations, grid_size, scale, shift):
    expect_one_device(
        canvas=canvas, placed=placed, images=images, locations=locations, scale=scale, shift=shift
    )


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
    torch.library.register_fake(f"{library}::place_on_grid_", _fake_in_place)
    torch.library.register_autograd(
        f"{library}::place_on_grid", _backward, setup_context=_setup_context
    )


if backend.extension().ready:
    register("gpe")
