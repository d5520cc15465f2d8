"""Where the frame that the published detectors were trained in differs from torchvision's.

That frame has boxes whose last pixel belongs to them: (x1, y1, x2, y2) is x2 - x1 + 1 wide. Held
as (x1, y1, x2 + 1, y2 + 1), as everything here holds them, nearly all its rules are torchvision's
own: coder, overlap, RoIAlign with ``aligned=False`` and ``sampling_ratio=2``, levels of the
pyramid. What is left differs by the functions below.
"""

import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import box_iou

STRIDES = (4, 8, 16, 32, 64)
_LOG_LIMIT = 4.135166556742356  # of a side's change: log(1000 / 16)


class Anchors(AnchorGenerator):
    """torchvision's anchors, moved by half a stride: of each level three shapes, 8 strides long.

    Example:
        >>> Anchors().cell_anchors[0][1].tolist()  # a square of 32 around (2, 2)
        [-14.0, -14.0, 18.0, 18.0]
    """

    cell_anchors: list[Tensor]

    def __init__(self) -> None:
        sizes = tuple((8 * stride,) for stride in STRIDES)
        super().__init__(sizes, ((0.5, 1.0, 2.0),) * len(STRIDES))
        moved = zip(self.cell_anchors, STRIDES, strict=True)
        self.cell_anchors = [anchors + stride / 2 for anchors, stride in moved]


def coder(stds: tuple[float, float, float, float]) -> BoxCoder:
    """torchvision's coder of boxes whose deltas were divided by ``stds``.

    Example:
        >>> [round(weight, 3) for weight in coder((0.033, 0.033, 0.067, 0.067)).weights]
        [30.303, 30.303, 14.925, 14.925]
    """
    x, y, w, h = (1 / std for std in stds)
    return BoxCoder((x, y, w, h), bbox_xform_clip=_LOG_LIMIT)


def clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes ``[..., 4]`` within an image of height and width ``size``.

    What lies wholly outside stays as a strip of one pixel, where torchvision's has no area and is
    dropped.

    Example:
        >>> clip(torch.tensor([[-9.0, 5, -3, 20], [90, 5, 130, 70]]), (64, 100)).tolist()
        [[0.0, 5.0, 1.0, 20.0], [90.0, 5.0, 100.0, 64.0]]
    """
    height, width = size
    most = boxes.new_tensor([width - 1, height - 1])
    return torch.cat([boxes[..., :2].clamp(min=0).minimum(most),
                      boxes[..., 2:].clamp(min=1).minimum(most + 1)], -1)  # fmt: skip


def exported(boxes: Tensor) -> Tensor:
    """Boxes ``[..., 4]`` as the published result files have them: one pixel less wide and high.

    Their writer took x2 - x1 for the width of a box whose last pixel belongs to it. Miss rates in
    the paper are of such files.

    Example:
        >>> exported(torch.tensor([10.0, 20, 51, 120])).tolist()
        [10.0, 20.0, 50.0, 119.0]
    """
    return boxes - boxes.new_tensor([0, 0, 1, 1])


def levels(boxes: Tensor) -> Tensor:
    """Which of the four levels of the pyramid each box ``[n,4]`` is pooled from, int64 ``[n]``.

    Example:
        >>> levels(torch.tensor([[0.0, 0, 111, 111], [0, 0, 112, 112], [0, 0, 900, 900]])).tolist()
        [0, 1, 3]
    """
    sides = (boxes[:, 2:] - boxes[:, :2]).prod(1).sqrt()
    return (sides / 56 + 1e-6).log2().floor().clamp(0, 3).long()


def soft_nms(
    boxes: Tensor, scores: Tensor, *, overlap: float = 0.5, least_score: float = 1e-3
) -> tuple[Tensor, Tensor]:
    """Linear soft suppression (Bodla et al., ICCV 2017): overlapping boxes lose score, not life.

    In turn the box of the highest score is kept, and the score of each other one that it overlaps
    by more than ``overlap`` is multiplied by 1 - IoU; below ``least_score`` it is dropped. Of boxes
    ``[n,4]`` come the indices of those kept, int64 ``[m]``, and their new scores, falling.

    Example:
        >>> boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8], [50, 0, 60, 10]])
        >>> soft_nms(boxes, torch.tensor([0.9, 0.8, 0.3]))
        (tensor([0, 2, 1]), tensor([0.9000, 0.3000, 0.1600]))
    """
    over = box_iou(boxes, boxes)
    factors = torch.where(over > overlap, 1 - over, 1.0)
    left, kept, values = scores.clone(), [], []
    gone = torch.zeros_like(left, dtype=torch.bool)
    while not gone.all() and left.max() >= least_score:
        kept.append(best := int(left.argmax()))
        values.append(left[best].clone())
        gone[best] = True
        left = (left * factors[best]).masked_fill(gone, -1)
    indices = torch.tensor(kept, dtype=torch.int64, device=boxes.device)
    return indices, torch.stack(values) if values else scores[:0]
