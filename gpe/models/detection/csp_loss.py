"""What CSP is trained towards, and how far from it its maps are."""

from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gpe.models.detection.detector import Counted, own

STRIDE = 4  # pixels of the image to a cell
_AROUND = 2  # cells around a centre that learn its height
# Logarithms of heights in cells are compared by their ratio, which would explode as a pedestrian
# gets as low as a cell: smaller ones than this count as this, that is boxes below 7 pixels.
_LEAST_LOG = 0.5


class CSPTargets(NamedTuple):
    """Maps of h × w cells for each of N images.

    Attributes:
        centres: bool ``[N,h,w]``.
        near: float32 ``[N,h,w]``, 1 at a centre, falling to 0 around it: it takes weight off the
            negatives there.
        negatives: bool ``[N,h,w]``, cells that are no centre and not to be ignored.
        log_heights: float32 ``[N,h,w]``, in cells; NaN away from centres.
        offsets: float32 ``[N,2,h,w]``, (y, x) from the middle of a centre's cell; NaN elsewhere.
    """

    centres: Tensor
    near: Tensor
    negatives: Tensor
    log_heights: Tensor
    offsets: Tensor

    def to(self, device: torch.device) -> "CSPTargets":
        """The same on another device."""
        return CSPTargets(*(part.to(device) for part in self))


def csp_targets(
    wanted: Sequence[Tensor], ignored: Sequence[Tensor], size: tuple[int, int]
) -> CSPTargets:
    """Targets of a batch of images of ``size`` height and width, multiples of 4.

    ``wanted`` are boxes ``[p,4]`` of each image, corners in pixels, x2 = x1 + w, clipped to the
    image, and left out where less than a pixel remains; in those ``ignored`` nothing is a negative.

    Example:
        >>> targets = csp_targets([torch.tensor([[8.0, 4, 24, 44]])], [torch.zeros(0, 4)], (64, 64))
        >>> targets.centres.nonzero().tolist(), targets.log_heights[0, 5, 3].exp()
        ([[0, 5, 3]], tensor(9.7500))
    """
    height, width = size[0] // STRIDE, size[1] // STRIDE
    n = len(wanted)
    centres = torch.zeros(n, height, width, dtype=torch.bool)
    negatives = torch.ones_like(centres)
    near, log_heights = torch.zeros(n, height, width), torch.full((n, height, width), torch.nan)
    offsets = torch.full((n, 2, height, width), torch.nan)
    for image, (boxes, others) in enumerate(zip(wanted, ignored, strict=True)):
        for x1, y1, x2, y2 in _cells(others, size):
            negatives[image, int(y1) : ceil(y2), int(x1) : ceil(x2)] = False
        for x1, y1, x2, y2 in _cells(boxes, size):
            left, top, right, bottom = ceil(x1), ceil(y1), int(x2), int(y2)
            row, column = int((y1 + y2) / 2), int((x1 + x2) / 2)
            inside = image, slice(top, bottom), slice(left, right)
            bump = _bump(bottom - top)[:, None] * _bump(right - left)
            near[inside] = near[inside].maximum(bump)
            negatives[inside] = True
            centres[image, row, column] = True
            rows, columns = (slice(max(0, at - _AROUND), at + _AROUND + 1) for at in (row, column))
            log_heights[image, rows, columns] = torch.tensor(y2 - y1).log()
            middle = torch.tensor([(y1 + y2) / 2 - row - 0.5, (x1 + x2) / 2 - column - 0.5])
            offsets[image, :, row, column] = middle
    return CSPTargets(centres, near, negatives & ~centres, log_heights, offsets)


def csp_loss(
    maps: tuple[Tensor, Tensor, Tensor], targets: CSPTargets, *, of_all: Counted = own
) -> dict[str, Tensor]:
    """The three parts of the loss, weighted; their sum is to be minimised.

    With p = sigmoid(logit), N centres and G the targets' ``near``:

    - ``centre``: 0.01 / max(1, N) · Σ w · BCE, with w = (1 − p)² at centres and (1 − G)⁴ p² at
      negatives;
    - ``height``: the mean of smooth L1 of (predicted / true log-height − 1) around centres;
    - ``offset``: 0.1 · the mean of smooth L1 at centres.

    Where this is a part of a batch, ``of_all`` tells N, and the number of cells that a mean is
    over, in the whole.

    Example:
        >>> targets = csp_targets([torch.zeros(0, 4)], [torch.zeros(0, 4)], (64, 64))
        >>> parts = csp_loss(tuple(torch.zeros(1, n, 16, 16) for n in (1, 1, 2)), targets)
        >>> {name: round(value.item(), 3) for name, value in parts.items()}
        {'centre': 0.444, 'height': 0.0, 'offset': 0.0}
    """
    logits, log_heights, offsets = (part.float() for part in maps)
    logits, log_heights = logits[:, 0], log_heights[:, 0]
    p = logits.sigmoid()
    weights = torch.where(targets.centres, (1 - p) ** 2, (1 - targets.near) ** 4 * p**2)
    weights = weights * (targets.centres | targets.negatives)
    entropy = F.binary_cross_entropy_with_logits(logits, targets.centres.float(), reduction="none")
    tall = targets.log_heights.isfinite()
    count, cells = (of_all(some.sum()).clamp(min=1) for some in (targets.centres, tall))
    true = targets.log_heights[tall]
    ratio = (log_heights[tall] - true) / true.clamp(min=_LEAST_LOG)
    apart = (offsets - targets.offsets).movedim(1, -1)[targets.centres]
    return {
        "centre": 0.01 * (weights * entropy).sum() / count,
        "height": F.smooth_l1_loss(ratio, torch.zeros_like(ratio), reduction="sum") / cells,
        "offset": 0.1
        * F.smooth_l1_loss(apart, torch.zeros_like(apart), reduction="sum")
        / (2 * count),
    }


def _cells(boxes: Tensor, size: tuple[int, int]) -> list[list[float]]:
    """Corners in cells, in the frame of the published training: the last pixel belongs to a box."""
    inside = boxes.double().clamp(min=0).minimum(boxes.new_tensor([*size[::-1]] * 2).double())
    inside = inside[(inside[:, 2:] - inside[:, :2] >= 1).all(1)]
    return ((inside - inside.new_tensor([0, 0, 1, 1])) / STRIDE).tolist()


def _bump(cells: int) -> Tensor:
    """A Gaussian over a side of so many cells, 1 at its middle cell."""
    sigma = 0.3 * ((cells - 1) / 2 - 1) + 0.8
    return torch.exp(-((torch.arange(max(cells, 0)) - cells // 2) ** 2) / (2 * sigma**2))
