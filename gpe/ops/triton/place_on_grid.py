"""place_on_grid in Triton, with the geometry of ``csrc/place_on_grid.h``.

A canvas is planes of rows. NCHW has a plane for each image and channel; in channels-last memory
an image is one plane, whose rows hold the channels side by side, so that a cell is channels times
as wide. A program writes a region of one plane: the patch where it lies inside, zero elsewhere.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from gpe.ops import reference
from gpe.ops.place_on_grid import register

ROWS, COLUMNS = 8, 128  # of the tile a program holds
ROWS_PER_PROGRAM = 32


@torch.library.custom_op("gpe_triton::place_on_grid", mutates_args=())
def place_on_grid(
    images: Tensor,
    locations: Tensor,
    grid_size: int,
    scale: Tensor,
    shift: Tensor,
    dtype: torch.dtype,
    channels_last: bool,
) -> Tensor:
    canvas = reference.empty_canvas(images, grid_size, dtype, channels_last)
    _launch(canvas, None, images, locations, grid_size, scale, shift)
    return canvas


@torch.library.custom_op("gpe_triton::place_on_grid_", mutates_args=("canvas",))
def place_on_grid_(
    canvas: Tensor,
    placed: Tensor | None,
    images: Tensor,
    locations: Tensor,
    grid_size: int,
    scale: Tensor,
    shift: Tensor,
) -> None:
    if placed is not None:
        reference.expect_inside(placed, grid_size, "placed")
    _launch(canvas, placed, images, locations, grid_size, scale, shift)


def _launch(
    canvas: Tensor,
    placed: Tensor | None,  # None where the canvas is unwritten memory
    images: Tensor,
    locations: Tensor,
    grid_size: int,
    scale: Tensor,
    shift: Tensor,
) -> None:
    if canvas.numel() == 0:
        return
    reference.expect_inside(locations, grid_size)
    count, channels, height, width = images.shape
    channels_last = not canvas.is_contiguous()
    planes_per_image, channels_in_row = (1, channels) if channels_last else (channels, 1)
    cell_width = width * channels_in_row
    if placed is None:
        kernel, chunks = _write_canvas, triton.cdiv(grid_size * height, ROWS_PER_PROGRAM)
        region = ROWS_PER_PROGRAM, grid_size * cell_width
    else:
        kernel, chunks, region = _move_patch, 1, (height, cell_width)
    kernel[(count * planes_per_image, chunks)](
        canvas, (locations if placed is None else placed).contiguous(),
        images, locations.contiguous(), scale, shift, *images.stride(),
        planes_per_image, channels_in_row, grid_size, height, cell_width, ROWS=ROWS,
        COLUMNS=COLUMNS, ROW_STEPS=triton.cdiv(region[0], ROWS),
        COLUMN_STEPS=triton.cdiv(region[1], COLUMNS),
        enable_fp_fusion=False,  # round as the other implementations do
    )  # fmt: skip


@triton.jit
def _write_canvas(
    out, placed, images, locations, scale, shift,
    image_stride, channel_stride, row_stride, column_stride,
    planes_per_image, channels_in_row, grid_size, cell_height, cell_width,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, ROW_STEPS: tl.constexpr, COLUMN_STEPS: tl.constexpr,
):  # fmt: skip
    """Fresh memory: a program writes some rows of a plane."""
    plane = tl.program_id(0).to(tl.int64)
    location = tl.load(locations + plane // planes_per_image)
    top = tl.program_id(1) * ROWS * ROW_STEPS
    bottom = tl.minimum(top + ROWS * ROW_STEPS, grid_size * cell_height)
    _write(
        out, images, scale, shift,
        image_stride, channel_stride, row_stride, column_stride,
        planes_per_image, channels_in_row, grid_size, cell_height, cell_width,
        plane, top, bottom, 0, grid_size * cell_width, location,
        ROWS, COLUMNS, ROW_STEPS, COLUMN_STEPS,
    )  # fmt: skip


@triton.jit
def _move_patch(
    out, placed, images, locations, scale, shift,
    image_stride, channel_stride, row_stride, column_stride,
    planes_per_image, channels_in_row, grid_size, cell_height, cell_width,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, ROW_STEPS: tl.constexpr, COLUMN_STEPS: tl.constexpr,
):  # fmt: skip
    """An earlier canvas: a program clears the old cell of a plane and writes the new one."""
    plane = tl.program_id(0).to(tl.int64)
    location = tl.load(locations + plane // planes_per_image)
    before = tl.load(placed + plane // planes_per_image)
    for cell in tl.static_range(2):
        region = before if cell == 0 else location
        top = (region // grid_size) * cell_height
        left = (region % grid_size) * cell_width
        # Nothing is to be cleared where the cell stays the same.
        bottom = tl.where((cell == 0) & (before == location), top, top + cell_height)
        _write(
            out, images, scale, shift,
            image_stride, channel_stride, row_stride, column_stride,
            planes_per_image, channels_in_row, grid_size, cell_height, cell_width,
            plane, top, bottom, left, left + cell_width, location,
            ROWS, COLUMNS, ROW_STEPS, COLUMN_STEPS,
        )  # fmt: skip


@triton.jit
def _write(
    out, images, scale, shift,
    image_stride, channel_stride, row_stride, column_stride,
    planes_per_image, channels_in_row, grid_size, cell_height, cell_width,
    plane, top, bottom, left, right, location,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, ROW_STEPS: tl.constexpr, COLUMN_STEPS: tl.constexpr,
):  # fmt: skip
    """Rows [top, bottom) and columns [left, right) of a plane, in as many steps as they take."""
    width = grid_size * cell_width
    plane_out = out + plane * grid_size * cell_height * width
    image = images + (plane // planes_per_image) * image_stride
    first_channel = plane % planes_per_image
    patch_top = (location // grid_size) * cell_height
    patch_left = (location % grid_size) * cell_width
    for row_step in range(ROW_STEPS):
        y = top + row_step * ROWS + tl.arange(0, ROWS)[:, None]
        row = y - patch_top
        for column_step in range(COLUMN_STEPS):
            x = left + column_step * COLUMNS + tl.arange(0, COLUMNS)[None, :]
            element = x - patch_left
            region = (y < bottom) & (x < right)
            patch = (row >= 0) & (row < cell_height) & (element >= 0) & (element < cell_width)
            patch = patch & region
            channel = first_channel + element % channels_in_row
            column = element // channels_in_row
            pixels = image + channel * channel_stride + row * row_stride + column * column_stride
            pixel = tl.load(pixels, mask=patch, other=0).to(scale.dtype.element_ty)
            a = tl.load(scale + channel, mask=patch, other=0)
            b = tl.load(shift + channel, mask=patch, other=0)
            tl.store(plane_out + y * width + x, pixel * a + b, mask=region)


register("gpe_triton")
