"""What two-stage detectors are trained towards, and how far from it they are."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, BoxCoder, Matcher
from torchvision.ops import box_iou

from gpe.models.detection.detector import Counted, own
from gpe.models.detection.legacy import coder

_IGNORED = 0.7  # of a box in one that is to be ignored


class Sample(NamedTuple):
    """Regions of an image that count.

    Attributes:
        boxes: ``[n,4]``.
        positive: bool ``[n]``, whether each is of a pedestrian.
        targets: ``[n,4]``, whose box; of the others anything.
    """

    boxes: Tensor
    positive: Tensor
    targets: Tensor


def matched(
    boxes: Tensor, wanted: Tensor, ignored: Tensor, matcher: Matcher
) -> tuple[Tensor, Tensor]:
    """Labels ``[n]`` (1 a pedestrian, 0 none, -1 neither) and whose box each is to become."""
    labels, targets = boxes.new_zeros(len(boxes)), torch.zeros_like(boxes)
    if len(wanted):
        matches = matcher(box_iou(wanted, boxes))
        labels[matches >= 0] = 1
        labels[matches == Matcher.BETWEEN_THRESHOLDS] = -1
        targets = wanted[matches.clamp(min=0)]
    if len(ignored):
        shared = torch.minimum(boxes[:, None, 2:], ignored[None, :, 2:])
        shared = (shared - torch.maximum(boxes[:, None, :2], ignored[None, :, :2])).clamp(min=0)
        area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        inside = (shared.prod(2) / area[:, None].clamp(min=1e-6)).amax(1) > _IGNORED
        labels[inside & (labels == 0)] = -1
    return labels, targets


def proposal_loss(
    logits: Tensor,
    deltas: Tensor,
    anchors: Tensor,
    wanted: Sequence[Tensor],
    ignored: Sequence[Tensor],
    size: tuple[int, int],
    *,
    of_all: Counted = own,
) -> dict[str, Tensor]:
    """Of the region proposals: 256 anchors an image that lie wholly inside, half of them positive.

    ``logits`` are ``[N,A]``, ``deltas`` ``[N,A,4]``; ``of_all`` tells how many anchors count in the
    whole batch, where this is a part of it.
    """
    height, width = size
    inside = (anchors[:, :2] >= 0).all(1)
    inside &= (anchors[:, 2] <= width) & (anchors[:, 3] <= height)
    matcher = Matcher(0.7, 0.3, allow_low_quality_matches=True)
    found = [matched(anchors[inside], *some, matcher) for some in zip(wanted, ignored, strict=True)]
    labels = torch.stack([each for each, _ in found])
    positive, negative = (
        torch.stack(masks).bool()
        for masks in BalancedPositiveNegativeSampler(256, 0.5)(list(labels))
    )
    chosen = positive | negative
    logits, deltas = logits[:, inside].float(), deltas[:, inside].float()
    count = of_all(chosen.sum()).clamp(min=1)
    encode = coder((1.0, 1.0, 1.0, 1.0))
    aims = [
        encode.encode_single(targets[some], anchors[inside][some])
        for (_, targets), some in zip(found, positive, strict=True)
    ]
    return {
        "proposals": F.binary_cross_entropy_with_logits(
            logits[chosen], positive[chosen].float(), reduction="sum"
        )
        / count,
        "proposed_boxes": F.smooth_l1_loss(
            deltas[positive], torch.cat(aims), beta=1 / 9, reduction="sum"
        )
        / count,
    }


def sampled(regions: Tensor, wanted: Tensor, ignored: Tensor, overlap: float) -> Sample:
    """512 regions of an image, up to a quarter of them of pedestrians."""
    matcher = Matcher(overlap, overlap, allow_low_quality_matches=False)
    labels, targets = matched(regions, wanted, ignored, matcher)
    (positive,), (negative,) = BalancedPositiveNegativeSampler(512, 0.25)([labels])
    chosen = (positive | negative).bool()
    return Sample(regions[chosen], labels[chosen] == 1, targets[chosen])


def head_loss(
    logits: Tensor,
    deltas: Tensor,
    chosen: Sequence[Sample],
    decode: BoxCoder,
    *,
    of_all: Counted = own,
) -> dict[str, Tensor]:
    """Of a head: cross entropy, and smooth L1 of the boxes of pedestrians.

    ``logits`` are ``[n,K]``, background first, ``deltas`` ``[n,4]`` or ``[n,4K]``; ``of_all`` tells
    how many regions count in the whole batch, where this is a part of it.
    """
    positive = torch.cat([one.positive for one in chosen])
    aims = [decode.encode_single(one.targets[one.positive], one.boxes[one.positive])
            for one in chosen]  # fmt: skip
    moves = deltas.float().unflatten(1, (-1, 4))
    moves = moves[positive, min(1, moves.shape[1] - 1)]
    count = of_all(torch.tensor(len(positive), device=positive.device)).clamp(min=1)
    return {
        "classes": F.cross_entropy(logits.float(), positive.long(), reduction="sum") / count,
        "boxes": F.smooth_l1_loss(moves, torch.cat(aims), reduction="sum") / count,
    }
