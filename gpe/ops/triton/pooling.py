"""Global average pooling of two feature maps, with the passes of ``csrc/cuda/pooling.h``.

A program takes a tile of channels of one image of a and of b. Where there are too few tiles to fill
a GPU, or too many pixels for sums in float32, pixels are split, and the sums of the splits are
maps whose pixels are summed in the same way.
"""

import triton
import triton.language as tl
from torch import Tensor

TILE = 2048  # channels times pixels that a program holds at once
WANTED_PROGRAMS = 1024
FEWEST_PIXELS, MOST_PIXELS = 64, 2048  # of a split


def pool_maps(a: Tensor, b: Tensor, scale: float, pooled: Tensor) -> Tensor:
    """Writes the sums over pixels times ``scale``; returns parts of their squared error."""
    count, channels, height, width = a.shape
    pixels = height * width
    flat = all(maps.stride(2) == width * maps.stride(3) or 1 in (height, width) for maps in (a, b))
    if width == 1:
        a, b, width = a.mT, b.mT, height
    wide = a.stride(1) == 1 and a.stride(3) != 1  # channels lie side by side
    tile = 64 if wide else triton.next_power_of_2(max(1, TILE // max(pixels, 64)))
    tile = min(tile, triton.next_power_of_2(channels))
    step = min(TILE // tile, triton.next_power_of_2(pixels))
    tiles = triton.cdiv(channels, tile)
    splits = min(triton.cdiv(WANTED_PROGRAMS, count * tiles), triton.cdiv(pixels, FEWEST_PIXELS))
    splits = max(splits, triton.cdiv(pixels, MOST_PIXELS))
    split_pixels = triton.cdiv(pixels, splits)
    splits = triton.cdiv(pixels, split_pixels)
    sums = pooled if splits == 1 else pooled.new_empty((2 * count, splits, 1, channels))
    errors = pooled.new_empty((count, tiles, splits))
    _pool[(count, tiles, splits)](
        a, b, sums, errors, scale if splits == 1 else 1.0,
        *a.stride(), *b.stride(), count, channels, width, pixels, split_pixels,
        FLAT=flat, CHANNELS=tile, PIXELS=step, STEPS=triton.cdiv(split_pixels, step),
    )  # fmt: skip
    if splits > 1:
        sums_a, sums_b = sums.permute(0, 3, 1, 2).tensor_split(2)
        return pool_maps(sums_a, sums_b, scale, pooled)
    return errors


@triton.jit
def _pool(
    a, b, sums, errors, scale,
    image_a, channel_a, row_a, column_a, image_b, channel_b, row_b, column_b,
    count, channels, width, pixels, split_pixels,
    FLAT: tl.constexpr, CHANNELS: tl.constexpr, PIXELS: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """Sums of a split of the pixels of some channels, and the squared errors of their means."""
    image, split = tl.program_id(0).to(tl.int64), tl.program_id(2).to(tl.int64)
    channel = tl.program_id(1).to(tl.int64) * CHANNELS + tl.arange(0, CHANNELS)
    first, last = split * split_pixels, tl.minimum((split + 1) * split_pixels, pixels)
    a += image * image_a + channel[:, None] * channel_a
    b += image * image_b + channel[:, None] * channel_b
    parts_a = tl.zeros((CHANNELS, PIXELS), sums.dtype.element_ty)
    parts_b = tl.zeros((CHANNELS, PIXELS), sums.dtype.element_ty)
    for step in range(STEPS):
        pixel = (first + step * PIXELS + tl.arange(0, PIXELS))[None, :]
        inside = (channel[:, None] < channels) & (pixel < last)
        row, column = pixel * 0, pixel
        if not FLAT:
            row, column = pixel // width, pixel % width
        parts_a += tl.load(a + row * row_a + column * column_a, mask=inside, other=0).to(
            sums.dtype.element_ty
        )
        parts_b += tl.load(b + row * row_b + column * column_b, mask=inside, other=0).to(
            sums.dtype.element_ty
        )
    sums_a, sums_b = tl.sum(parts_a, 1) * scale, tl.sum(parts_b, 1) * scale
    splits = tl.num_programs(2)
    out = sums + (image * splits + split) * channels + channel
    tl.store(out, sums_a, mask=channel < channels)
    tl.store(out + count * splits * channels, sums_b, mask=channel < channels)
    program = (image * tl.num_programs(1) + tl.program_id(1)) * splits + split
    tl.store(errors + program, tl.sum((sums_a - sums_b) * (sums_a - sums_b), 0))
