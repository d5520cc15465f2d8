"""Mean intersection over union, for the whole image and for parts of it (section 4.2)."""

import math
import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from gpe.errors import InputError, expect_integer
from gpe.metrics.collection import add_settings
from gpe.ops.region_confusion import Rectangle, expect_rectangle, region_confusion

Regions = Sequence[str] | Mapping[str, Rectangle]

NAMES = ("full", "left", "centre", "right")


def resolve_regions(regions: Regions, height: int, width: int) -> dict[str, Rectangle]:
    """The rectangles that regions are in an image of this size.

    The names are the paper's and take the full height: ``full``, ``left`` (columns [0, W/2)),
    ``right`` ([W/2, W)) and ``centre`` ([W/4, 3W/4)), rounded down. ``3x4:5`` is the cell with this
    number of a grid of three rows and four columns, row by row from 0.

    Args:
        regions: such names, or a mapping of any names to ``(top, left, bottom, right)`` in pixels,
            half-open.
        height: of the image, in pixels.
        width: likewise.

    Returns:
        Name to rectangle, in the order given.

    Raises:
        InputError: no regions; an unknown name or one that comes twice; a rectangle that is empty
            or leaves the image.

    Source:
        Section 4.2, the region-specific mIoU.

    Example:
        >>> from gpe.metrics import resolve_regions
        >>> resolve_regions(("full", "centre"), 10, 8)
        {'full': (0, 0, 10, 8), 'centre': (0, 2, 10, 6)}
        >>> resolve_regions({"sky": (0, 0, 3, 8)}, 10, 8)
        {'sky': (0, 0, 3, 8)}
    """
    if not isinstance(regions, Mapping):
        columns = {
            "full": (0, width),
            "left": (0, width // 2),
            "centre": (width // 4, 3 * width // 4),
            "right": (width // 2, width),
        }
        regions = {
            name: (0, columns[name][0], height, columns[name][1])
            if name in columns
            else _cell(name, height, width)
            for name in _names(regions)
        }
    elif not regions:
        raise InputError("regions: expected one or more, got none")
    return {
        name: expect_rectangle(f"regions: {name}", rectangle, height, width)
        for name, rectangle in regions.items()
    }


def class_iou(confusion: Tensor, ignore_index: int | None = None) -> Tensor:
    """Intersection over union of each class; NaN where neither labels nor predictions have it.

    Args:
        confusion: ``[..., K, K]``: labels along the rows, predictions along the columns.
        ignore_index: of labels that were not counted; where it is a class, that is NaN.

    Returns:
        float64 ``[..., K]``.

    Example:
        >>> import torch
        >>> from gpe.metrics import class_iou
        >>> class_iou(torch.tensor([[3, 1, 0], [0, 2, 0], [0, 0, 0]])).tolist()
        [0.75, 0.6666666666666666, nan]
    """
    confusion = confusion.double()
    hits = confusion.diagonal(dim1=-2, dim2=-1)
    scores = hits / (confusion.sum(-1) + confusion.sum(-2) - hits)
    if ignore_index is not None and 0 <= ignore_index < scores.shape[-1]:
        scores[..., ignore_index] = math.nan
    return scores


def mean_iou(confusion: Tensor, ignore_index: int | None = None) -> Tensor:
    """The mean of :func:`class_iou` over the classes that occur; NaN where none does.

    Args:
        confusion, ignore_index: as there.

    Returns:
        float64 ``[...]``.

    Example:
        >>> import torch
        >>> from gpe.metrics import mean_iou
        >>> mean_iou(torch.tensor([[3, 1, 0], [0, 3, 0], [0, 0, 0]])).item()
        0.75
    """
    return class_iou(confusion, ignore_index).nanmean(-1)


class RegionIoU(Metric):
    """The mean IoU of regions over a whole set of images, exact on any number of processes.

    ``update(logits, labels)`` takes logits ``[N,K,h,w]``, of any size, or predictions ``[N,H,W]``,
    and labels ``[N,H,W]``, as :func:`gpe.region_confusion` does; ``compute()`` returns a mapping
    of name to mIoU. Pixels are added up over the set before anything is divided; classes that a
    region has neither among its labels nor among its predictions are left out of its mean. A
    region without a labelled pixel has no number: NaN. The state is one sum, int64 ``confusion``
    ``[R,K,K]``.

    Args:
        num_classes: K.
        regions: as in :func:`gpe.metrics.resolve_regions`. Names fit images of any size.
        ignore_index: pixels with this label count nowhere. It may be a class: that class then has
            no IoU (NaN) and is left out of the mean, as in torchmetrics; to predict it where there
            is another still counts as a miss of that other.

    Raises:
        InputError: as :func:`gpe.metrics.resolve_regions` and :func:`gpe.region_confusion`.

    Source:
        Section 4.2, Figures 4 to 6.

    Example:
        >>> import torch, gpe
        >>> metric = gpe.RegionIoU(num_classes=3, regions=("full", "left", "right"))
        >>> labels = torch.tensor([[0, 0, 1, 255], [0, 0, 1, 1]]).view(1, 2, 4)
        >>> predictions = torch.tensor([[0, 0, 1, 0], [0, 1, 1, 1]]).view(1, 2, 4)
        >>> metric.update(predictions, labels)
        >>> metric.compute()  # class 0: 3 of 4, class 1: 3 of 4; left 3 of 4 and 0 of 1
        {'full': 0.75, 'left': 0.375, 'right': 1.0}
        >>> metric.class_iou()["full"].tolist()
        [0.75, 0.75, nan]
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    confusion: Tensor

    def __init__(self, num_classes: int, *, regions: Regions = NAMES, ignore_index: int = 255):
        super().__init__()
        self.num_classes = expect_integer("num_classes", num_classes, 1)
        self.ignore_index = expect_integer("ignore_index", ignore_index, -(2**63))
        self.regions = dict(regions) if isinstance(regions, Mapping) else _names(regions)
        shape = len(self.regions), self.num_classes, self.num_classes
        self.add_state("confusion", torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")
        add_settings(self, self.num_classes, self.regions, self.ignore_index)

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Adds a batch."""
        if labels.dim() != 3:
            raise InputError(f"labels: expected shape [N,H,W], got {list(labels.shape)}")
        rectangles = resolve_regions(self.regions, *labels.shape[1:])
        confusion = region_confusion(
            logits,
            labels,
            list(rectangles.values()),
            num_classes=self.num_classes,
            ignore_index=self.ignore_index,
        )
        self.confusion += confusion.to(self.confusion.device)

    def compute(self) -> dict[str, float]:
        """The mIoU of each region over all batches, of all processes; NaN where there is none."""
        scores = mean_iou(self.confusion, self.ignore_index).tolist()
        return dict(zip(self.regions, scores, strict=True))

    def class_iou(self) -> dict[str, Tensor]:
        """The IoU ``[K]`` of each class in each region, over the same as :meth:`compute`."""
        with self.sync_context(dist_sync_fn=self.dist_sync_fn):
            scores = class_iou(self.confusion, self.ignore_index)
        return dict(zip(self.regions, scores, strict=True))


def _names(regions: Sequence[str]) -> tuple[str, ...]:
    names = (regions,) if isinstance(regions, str) else tuple(regions)
    if not names:
        raise InputError("regions: expected one or more, got none")
    for name in names:
        if not (name in NAMES or _grid(name)) or names.count(name) > 1:
            raise InputError(
                f"regions: expected each of {', '.join(NAMES)} or ROWSxCOLUMNS:CELL at most once, "
                f"or a mapping of names to (top, left, bottom, right), got {name!r}"
            )
    return names


def _grid(name: str) -> tuple[int, int, int] | None:
    """Rows, columns and the number of a cell, as its name tells."""
    found = re.fullmatch(r"(\d+)x(\d+):(\d+)", name)
    rows, columns, cell = map(int, found.groups()) if found else (0, 0, 0)
    return (rows, columns, cell) if cell < rows * columns else None


def _cell(name: str, height: int, width: int) -> Rectangle:
    rows, columns, cell = _grid(name) or (1, 1, 0)
    row, column = divmod(cell, columns)
    return (
        *(row * height // rows, column * width // columns),
        *((row + 1) * height // rows, (column + 1) * width // columns),
    )
