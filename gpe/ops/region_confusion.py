"""Confusion matrices of rectangles, from low-resolution logits in one pass (section 4.2)."""

from collections.abc import Sequence
from operator import index

import torch
from torch import Tensor

from gpe.errors import InputError, expect_integer, is_integer, plain, shown
from gpe.ops import backend
from gpe.ops.checks import (
    FLOATS,
    INTEGERS,
    asserted,
    expect_device,
    expect_one_device,
    expect_tensor,
    expect_values,
)

Rectangle = tuple[int, int, int, int]  # top, left, bottom, right in pixels, half-open

_MOST_CLASSES = 32768  # as in csrc/region_confusion.h: their pairs fit 32 bits


def region_confusion(
    logits: Tensor,  # [N,K,h,w], or predictions [N,H,W]
    labels: Tensor,  # [N,H,W]
    regions: Sequence[Rectangle],
    *,
    num_classes: int,
    ignore_index: int = 255,
) -> Tensor:  # [R,K,K]
    """Upsamples logits, takes the largest and counts, for all regions in one pass.

    The same as ``F.interpolate(logits, labels.shape[1:], mode="bilinear")``, ``argmax(1)`` (of
    equal logits the first) and a confusion matrix for each region, but no logits of the labels'
    size are ever stored. Sums are taken in float32 or wider and in another order than torch's:
    where the two largest logits are level but for rounding, the other class may win (at most one
    pixel in a million of random logits). Predictions are counted exactly. No gradient comes back.

    Args:
        logits: floating ``[N,K,h,w]``, of any size and strides; or integer ``[N,H,W]``: classes
            that were predicted already.
        labels: ``[N,H,W]`` of any integer dtype, on the same device.
        regions: rectangles ``(top, left, bottom, right)`` in pixels of the labels, half-open;
            they may overlap.
        num_classes: K.
        ignore_index: pixels with this label count nowhere; any integer, also one that the labels'
            dtype cannot hold.

    Returns:
        int64 ``[R,K,K]``: pixels of region r with label i and prediction j.

    Raises:
        InputError: an argument of the wrong type, shape or device; another number of classes;
            a region that is empty or leaves the image; within the regions, labels that are neither
            a class nor ``ignore_index``, or predictions that are no class; logits that are not
            finite. The kernel counts these as it goes, and the call waits for a GPU to know: once,
            for a few bytes. Compiled or captured code does not wait; there it is an assertion.

    Source:
        Section 4.2, the region-specific mIoU.

    Example:
        >>> import torch, gpe
        >>> logits = torch.tensor([[4.0, 0.0], [0.0, 4.0]]).view(1, 2, 1, 2)  # class 0, then 1
        >>> labels = torch.tensor([[0, 0, 0, 1], [0, 255, 1, 1]]).view(1, 2, 4)
        >>> left, right = (0, 0, 2, 2), (0, 2, 2, 4)
        >>> gpe.region_confusion(logits, labels, [left, right], num_classes=2).tolist()
        [[[3, 0], [0, 0]], [[0, 1], [0, 3]]]
    """
    num_classes, ignore_index = _check(logits, labels, num_classes, ignore_index)
    rectangles = _rectangles(regions, *labels.shape[1:])
    flat = [side for rectangle in rectangles for side in rectangle]
    count = backend.implementation("region_confusion", labels.device.type)
    confusion, wrong = count(logits.detach(), labels, flat, num_classes, ignore_index)
    if torch.compiler.is_compiling() or _is_capturing(wrong):
        what = "labels, logits: expected classes, and logits that are finite, got others"
        confusion = asserted(confusion, wrong == 0, what)
    elif type(wrong) is Tensor and wrong.any():  # a fake tensor has no value to look at
        _say_what_is_wrong(logits, labels, rectangles, num_classes, ignore_index)
    return confusion


def expect_rectangle(name: str, rectangle: Rectangle, height: int, width: int) -> Rectangle:
    """A rectangle of four plain integers; an InputError where it is empty or leaves the image."""
    try:
        top, left, bottom, right = (index(side) for side in rectangle)
    except (TypeError, ValueError):
        raise InputError(
            f"{name}: expected four integers (top, left, bottom, right), got {shown(rectangle)}"
        ) from None
    sides = top, left, bottom, right
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        raise InputError(
            f"{name}: expected (top, left, bottom, right) with pixels, inside an image of "
            f"{height}×{width}, got {shown(sides)}"
        )
    return sides


def _rectangles(regions: Sequence[Rectangle], height: int, width: int) -> list[Rectangle]:
    regions = plain("regions", regions)
    if not isinstance(regions, Sequence) or isinstance(regions, str) or len(regions) == 0:
        raise InputError(f"regions: expected a sequence of one or more, got {shown(regions)}")
    return [
        expect_rectangle(f"regions[{number}]", rectangle, height, width)
        for number, rectangle in enumerate(regions)
    ]


def _check(
    logits: Tensor, labels: Tensor, num_classes: int, ignore_index: int
) -> tuple[int, int]:  # both numbers, as plain ones
    """InputErrors of everything but the regions."""
    num_classes = expect_integer("num_classes", num_classes, 1)
    if num_classes > _MOST_CLASSES:
        raise InputError(f"num_classes: expected at most {_MOST_CLASSES}, got {num_classes}")
    if not is_integer(ignore_index) or not -(2**63) <= ignore_index < 2**63:
        raise InputError(f"ignore_index: expected a 64-bit integer, got {shown(ignore_index)}")
    numbers = num_classes, int(ignore_index)
    predicted_or_not = "floating point [N,K,h,w] or integer predictions [N,H,W]"
    expect_tensor("logits", logits, (*FLOATS, *INTEGERS), predicted_or_not, first=True)
    expect_tensor("labels", labels, INTEGERS, "integers [N,H,W]")
    if labels.dim() != 3:
        raise InputError(
            f"labels: expected integers [N,H,W], got {labels.dtype} {list(labels.shape)}"
        )
    expect_device("labels", labels, "logits", logits)
    for name, tensor in (("logits", logits), ("labels", labels)):
        expect_values(name, tensor)
    if logits.dtype in INTEGERS:
        if logits.shape != labels.shape:
            raise InputError(
                f"logits: expected predictions of the labels' shape, {list(labels.shape)}, "
                f"got {list(logits.shape)}"
            )
        return numbers
    if logits.dim() != 4:
        got = f"{logits.dtype} {list(logits.shape)}"
        raise InputError(f"logits: expected {predicted_or_not}, got {got}")
    count, classes, height, width = logits.shape
    if classes != num_classes:
        raise InputError(f"logits: expected {num_classes} classes, num_classes, got {classes}")
    if count != len(labels):
        raise InputError(f"labels: expected {count} images, as many as logits, got {len(labels)}")
    if height == 0 or width == 0:
        raise InputError(f"logits: expected maps with pixels, got {list(logits.shape)}")
    return numbers


def _is_capturing(tensor: Tensor) -> bool:
    return tensor.is_cuda and torch.cuda.is_current_stream_capturing()


def _say_what_is_wrong(
    logits: Tensor, labels: Tensor, rectangles: list[Rectangle], num_classes: int, ignore_index: int
) -> None:
    """Looks for the first of them; time does not matter any more."""
    classes = f"classes from 0 to {num_classes - 1}"
    counts = torch.zeros(labels.shape, dtype=torch.bool, device=labels.device)
    for top, left, bottom, right in rectangles:
        counts[:, top:bottom, left:right] = True
    counts &= labels.long() != ignore_index
    expected = f"labels: expected {classes}, or ignore_index, {ignore_index}"
    _expect_classes(expected, labels.long(), counts, num_classes)
    if not logits.is_floating_point():
        _expect_classes(
            f"logits: expected predictions of {classes}", logits.long(), counts, num_classes
        )
    where = logits.isfinite().logical_not().nonzero()[0].tolist()
    raise InputError(f"logits: expected finite numbers, got {logits[tuple(where)]} at {where}")


def _expect_classes(expected: str, values: Tensor, counts: Tensor, num_classes: int) -> None:
    wrong = (counts & ((values < 0) | (values >= num_classes))).nonzero()
    if len(wrong):
        where = wrong[0].tolist()
        raise InputError(
            f"{expected}, got {int(values[tuple(where)])} at {where}; wrong pixels: {len(wrong)}"
        )


def _fake(logits, labels, regions, num_classes, ignore_index):
    expect_one_device(logits=logits, labels=labels)
    shape = len(regions) // 4, num_classes, num_classes
    return tuple(labels.new_empty(size, dtype=torch.int64) for size in (shape, (3,)))


def register(library: str) -> None:
    """Adds shapes to the kernel of ``torch.ops.<library>``."""
    torch.library.register_fake(f"{library}::region_confusion", _fake)


if backend.extension().ready:
    register("gpe")
