"""Plain PyTorch for every op: what "right" means.

Kernels give the same bits, but for sums: there each has an order of its own.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from gpe.errors import InputError
from gpe.ops.checks import asserted, has_values


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
    locations = expect_inside(locations, grid_size)
    canvas = empty_canvas(images, grid_size, dtype, channels_last).zero_()
    patches = (images * scale[:, None, None] + shift[:, None, None]).to(dtype)
    number, _, rows, _, columns = _index(locations, grid_size)
    # Into a new tensor, since torch.func.vmap takes no write into one that it does not map over.
    cells = _cells(canvas, grid_size).movedim((2, 4), (1, 2))  # [N,n,n,C,h,w]
    cells = cells.index_put((number, rows, columns), patches).movedim((1, 2), (2, 4))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return cells.flatten(4).flatten(2, 3).contiguous(memory_format=layout)


def place_on_grid_(
    canvas: Tensor,
    placed: Tensor | None,
    images: Tensor,
    locations: Tensor,
    grid_size: int,
    scale: Tensor,
    shift: Tensor,
) -> None:
    """Clears the cells ``placed`` of a canvas, or all, and writes the cells ``locations``."""
    locations = expect_inside(locations, grid_size)
    patches = images * scale[:, None, None] + shift[:, None, None]
    cells = _cells(canvas, grid_size)
    if placed is None:
        canvas.zero_()
    else:
        cells[_index(expect_inside(placed, grid_size, "placed"), grid_size)] = 0
    cells[_index(locations, grid_size)] = patches.to(canvas.dtype)


def place_on_grid_backward(gradient: Tensor, locations: Tensor, grid_size: int) -> Tensor:
    """The cells ``locations`` of canvases ``[N,C,n·h,n·w]``: patches ``[N,C,h,w]``."""
    return _cells(gradient, grid_size)[_index(locations, grid_size)]


def gap_mse(
    features_a: Tensor,  # [N,C,H,W], or [2N,C,H,W] alone
    features_b: Tensor | None,  # [N,C,H,W]
) -> tuple[Tensor, Tensor]:  # [2,N,C], []
    """Means over H and W, and the mean squared error of those of b against those of a."""
    dtype = torch.promote_types(features_a.dtype, torch.float32)
    maps = [features_a] if features_b is None else [features_a, features_b]
    pooled = torch.cat([features.mean((2, 3), dtype=dtype) for features in maps])
    pooled = pooled.unflatten(0, (2, len(pooled) // 2))
    return pooled, (pooled[0] - pooled[1]).square().mean()


def region_confusion(
    logits: Tensor,  # [N,K,h,w], or predictions [N,H,W]
    labels: Tensor,  # [N,H,W]
    regions: Sequence[int],  # top, left, bottom, right of each, one after the other
    num_classes: int,
    ignore_index: int,
) -> tuple[Tensor, Tensor]:  # [R,K,K], [3]
    """Confusion matrices of regions, and how many labels, predictions and logits are wrong."""
    predictions, labels = upsampled_argmax(logits, labels.shape[1:]), labels.long()
    not_finite = logits.isfinite().logical_not().sum()
    valid = (labels >= 0) & (labels < num_classes)
    counted = valid & (labels != ignore_index)
    predicted = (predictions >= 0) & (predictions < num_classes)
    pairs = labels * num_classes + predictions

    # One bin more takes what does not count: unlike a mask, it leaves every shape known.
    pairs = torch.where(counted & predicted, pairs, num_classes**2)
    confusion, inside = [], torch.zeros_like(labels, dtype=torch.bool)
    for top, left, bottom, right in zip(*[iter(regions)] * 4, strict=True):
        cut = (slice(None), slice(top, bottom), slice(left, right))
        inside[cut] = True
        bins = pairs[cut].flatten()
        zeros = labels.new_zeros(num_classes**2 + 1)
        confusion.append(zeros.scatter_add(0, bins, torch.ones_like(bins))[:-1])
    wrong = (inside & ~valid & (labels != ignore_index), inside & counted & ~predicted)
    confusion = torch.stack(confusion).unflatten(1, (num_classes, num_classes))
    return confusion, torch.stack([*(mask.sum() for mask in wrong), not_finite])


def upsampled_argmax(logits: Tensor, size: Sequence[int]) -> Tensor:  # [N,H,W]
    """The first of the largest logits at each pixel; predictions are what they are."""
    if not logits.is_floating_point():
        return logits.long()
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.interpolate(wide, tuple(size), mode="bilinear", align_corners=False).argmax(1)


def flip_difference(
    features: Tensor,  # [N,C,H,W]
    mirrored: Tensor,  # [N,C,H,W]
    total: Tensor | None,  # [C]
    absolute_total: Tensor | None,  # [C]
) -> tuple[Tensor, Tensor, Tensor]:  # [N,C], [C], [C]
    """Differences of the means over H and W, and float64 sums of them and of their sizes."""
    dtype = torch.promote_types(features.dtype, torch.float32)
    z, z_mirrored = (maps.mean((2, 3), dtype=dtype) for maps in (features, mirrored))
    difference = z - z_mirrored
    zeros = torch.zeros(z.shape[1], dtype=torch.float64, device=z.device)
    total = zeros.clone() if total is None else total.clone()
    absolute_total = zeros if absolute_total is None else absolute_total.clone()
    for image in difference:
        total = total + image
        absolute_total = absolute_total + image.abs()
    return difference, total, absolute_total


def mask_channels(features: Tensor, masked: Tensor) -> Tensor:  # [N,C,...], [C]
    """``features`` with zeros where a channel is ``masked``."""
    # masked_fill alone would forget the memory format.
    out = features.clone()
    mask_channels_(out, masked)
    return out


def mask_channels_(features: Tensor, masked: Tensor) -> None:  # [N,C,...], [C]
    """The same in place."""
    unsigned = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}
    if features.dtype in unsigned:  # in which torch fills nothing
        features = features.view(unsigned[features.dtype])
    features.masked_fill_(masked.view(-1, *(1 for _ in features.shape[2:])), 0)


def empty_canvas(images: Tensor, grid_size: int, dtype: torch.dtype, channels_last: bool) -> Tensor:
    """Memory for the canvases of ``images``, not written yet."""
    count, channels, height, width = images.shape
    return torch.empty(
        (count, channels, grid_size * height, grid_size * width),
        dtype=dtype,
        device=images.device,
        memory_format=torch.channels_last if channels_last else torch.contiguous_format,
    )


def expect_inside(locations: Tensor, grid_size: int, name: str = "locations") -> Tensor:
    """Raises where a location lies outside the grid; on a GPU by a device-side assertion."""
    inside = (locations >= 0) & (locations < grid_size**2)
    expected = f"{name}: expected cells from 0 to {grid_size**2 - 1}"
    if locations.is_cuda or torch.compiler.is_compiling():
        return asserted(locations, inside, expected)
    if has_values(locations) and not inside.all():
        where = int(inside.logical_not().nonzero()[0])
        raise InputError(f"{expected}, got {int(locations[where])} at index {where}")
    return locations


def dual_crop(
    images: Tensor,  # [N,C,H,W]
    offsets: Tensor,  # [V,N,2]
    flips: Tensor,  # [V,N]
    size: Sequence[int],
    padding: Sequence[int],
    padding_mode: str,
    scale: Tensor,  # [C]
    shift: Tensor,  # [C]
    dtype: torch.dtype,
    channels_last: bool,
) -> Tensor:  # [V,N,C,h,w]
    """Crops of padded images, mirrored where ``flips``: ``pixels * scale + shift``."""
    height, width = images.shape[2:]
    offsets = expect_offsets_inside(offsets, height, width, size, padding)
    y, x = (torch.arange(side, device=images.device) for side in size)
    x = torch.where(flips[..., None], size[1] - 1 - x, x)
    rows, in_rows = _unpadded(offsets[..., :1] + y - padding[0], height, padding_mode)
    columns, in_columns = _unpadded(offsets[..., 1:] + x - padding[1], width, padding_mode)

    batch = torch.arange(len(images), device=images.device)[:, None, None]
    pixels = images[batch, :, rows[..., :, None], columns[..., None, :]]  # [V,N,h,w,C]
    inside = in_rows[..., :, None, None] & in_columns[..., None, :, None]
    crops = torch.where(inside, pixels, 0) * scale + shift
    out = empty_crops(images, offsets, size, dtype, channels_last)
    return out.copy_(crops.movedim(-1, 2))


def empty_crops(
    images: Tensor, offsets: Tensor, size: Sequence[int], dtype: torch.dtype, channels_last: bool
) -> Tensor:
    """Memory for the crops ``[V,N,C,h,w]`` of ``images``, not written yet."""
    views, count, channels = len(offsets), *images.shape[:2]
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(
        (views * count, channels, *size),
        dtype=dtype,
        device=images.device,
        memory_format=memory_format,
    ).unflatten(0, (views, count))


def expect_offsets_inside(
    offsets: Tensor, height: int, width: int, size: Sequence[int], padding: Sequence[int]
) -> Tensor:
    """Raises where a crop leaves the padded image; on a GPU by a device-side assertion."""
    rows, columns = offsets.unbind(-1)
    last = height + 2 * padding[0] - size[0], width + 2 * padding[1] - size[1]
    inside = (rows >= 0) & (rows <= last[0]) & (columns >= 0) & (columns <= last[1])
    expected = f"offsets: expected rows from 0 to {last[0]} and columns from 0 to {last[1]}"
    if offsets.is_cuda or torch.compiler.is_compiling():
        return asserted(offsets, inside, expected)
    if has_values(offsets) and not inside.all():
        where = inside.logical_not().nonzero()[0].tolist()
        raise InputError(f"{expected}, got {offsets[tuple(where)].tolist()} at index {where}")
    return offsets


def _cells(canvas: Tensor, grid_size: int) -> Tensor:
    """A view ``[N,C,n,h,n,w]`` of canvases ``[N,C,n·h,n·w]``."""
    height, width = canvas.shape[2] // grid_size, canvas.shape[3] // grid_size
    return canvas.unflatten(2, (grid_size, height)).unflatten(4, (grid_size, width))


def _index(locations: Tensor, grid_size: int) -> tuple:
    """Takes ``[N,C,h,w]`` out of :func:`_cells`: of each image the cell of its location."""
    images = torch.arange(len(locations), device=locations.device)
    rows, columns = locations // grid_size, locations % grid_size
    return images, slice(None), rows, slice(None), columns


def _unpadded(positions: Tensor, side: int, padding_mode: str) -> tuple[Tensor, Tensor]:
    """Which of an image's rows (or columns) lies at a position, and whether a pixel is there.

    Positions below 0 and from ``side`` on are padding.
    """
    inside = (positions >= 0) & (positions < side)
    last = side - 1
    if padding_mode == "reflect":
        return last - (last - positions.abs()).abs(), torch.ones_like(inside)
    if padding_mode == "circular":
        return positions % side, torch.ones_like(inside)
    nearest = positions.clamp(0, last)
    return nearest, inside if padding_mode == "zeros" else torch.ones_like(inside)
