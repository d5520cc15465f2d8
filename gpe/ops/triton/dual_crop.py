"""dual_crop in Triton, with the geometry of ``csrc/dual_crop.h``.

The crops are planes of rows. NCHW has a plane for each crop and channel; in channels-last memory
a crop is one plane, whose rows hold the channels side by side. A program writes some rows of one
plane.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from gpe.ops import reference
from gpe.ops.dual_crop import register

ROWS, COLUMNS = 8, 128  # of the tile a program holds
ROWS_PER_PROGRAM = 32


@torch.library.custom_op("gpe_triton::dual_crop", mutates_args=())
def dual_crop(
    images: Tensor,
    offsets: Tensor,
    flips: Tensor,
    size: Sequence[int],
    padding: Sequence[int],
    padding_mode: str,
    scale: Tensor,
    shift: Tensor,
    dtype: torch.dtype,
    channels_last: bool,
) -> Tensor:
    crops = reference.empty_crops(images, offsets, size, dtype, channels_last)
    if crops.numel() == 0:
        return crops
    count, channels, height, width = images.shape
    reference.expect_offsets_inside(offsets, height, width, size, padding)
    planes_per_crop, channels_in_row = (1, channels) if channels_last else (channels, 1)
    planes = offsets.shape[0] * count * planes_per_crop
    _write_crops[(planes, triton.cdiv(size[0], ROWS_PER_PROGRAM))](
        crops, images, offsets.contiguous(), flips.contiguous(), scale, shift, *images.stride(),
        count, planes_per_crop, channels_in_row, height, width, *size, *padding,
        MODE=padding_mode, ROWS=ROWS, COLUMNS=COLUMNS, ROW_STEPS=ROWS_PER_PROGRAM // ROWS,
        COLUMN_STEPS=triton.cdiv(size[1] * channels_in_row, COLUMNS),
        enable_fp_fusion=False,  # round as the other implementations do
    )  # fmt: skip
    return crops


@triton.jit
def _write_crops(
    out, images, offsets, flips, scale, shift,
    image_stride, channel_stride, row_stride, column_stride,
    count, planes_per_crop, channels_in_row, height, width,
    crop_height, crop_width, row_padding, column_padding,
    MODE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    ROW_STEPS: tl.constexpr, COLUMN_STEPS: tl.constexpr,
):  # fmt: skip
    plane = tl.program_id(0).to(tl.int64)
    crop = plane // planes_per_crop
    first_channel = plane % planes_per_crop
    top = tl.load(offsets + 2 * crop) - row_padding
    left = tl.load(offsets + 2 * crop + 1) - column_padding
    flip = tl.load(flips + crop)
    image = images + (crop % count) * image_stride
    row_size = crop_width * channels_in_row
    plane_out = out + plane * crop_height * row_size
    for row_step in range(ROW_STEPS):
        first_row = (tl.program_id(1).to(tl.int64) * ROW_STEPS + row_step) * ROWS
        y = first_row + tl.arange(0, ROWS)[:, None]
        row, in_rows = _unpadded(top + y, height, MODE)
        for column_step in range(COLUMN_STEPS):
            element = column_step * COLUMNS + tl.arange(0, COLUMNS)[None, :]
            x = element // channels_in_row
            column, in_columns = _unpadded(
                left + tl.where(flip, crop_width - 1 - x, x), width, MODE
            )
            channel = first_channel + element % channels_in_row
            written = (y < crop_height) & (element < row_size)
            pixels = image + channel * channel_stride + row * row_stride + column * column_stride
            pixel = tl.load(pixels, mask=written & in_rows & in_columns, other=0)
            a = tl.load(scale + channel, mask=element < row_size, other=0)
            b = tl.load(shift + channel, mask=element < row_size, other=0)
            value = pixel.to(scale.dtype.element_ty) * a + b
            tl.store(plane_out + y * row_size + element, value, mask=written)


@triton.jit
def _unpadded(position, side, MODE: tl.constexpr):
    """Which row (or column) of an image is at a position, below 0 in the padding; and if one is."""
    inside = (position >= 0) & (position < side)
    row = position
    if MODE == "reflect":
        row = side - 1 - tl.abs(side - 1 - tl.abs(position))
        inside = row >= 0
    if MODE == "replicate":
        row = tl.minimum(tl.maximum(position, 0), side - 1)
        inside = row >= 0
    if MODE == "circular":
        row = tl.where(position < 0, position + side, position)
        row = tl.where(row >= side, row - side, row)
        inside = row < side
    return row, inside


register("gpe_triton")
