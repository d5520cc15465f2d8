"""Faster R-CNN and Cascade R-CNN on HRNet, with the names and rules of the published detectors.

Boxes are held in the frame of :mod:`gpe.models.detection.legacy`, in which x2 = x1 + w.
"""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpe.models.detection.detector import Counted, Detector, Found, own
from gpe.models.detection.hrfpn import HRFPN, hrnet
from gpe.models.detection.legacy import (
    STRIDES,
    Anchors,
    clip,
    coder,
    exported,
    levels,
    soft_nms,
)
from gpe.models.detection.two_stage_loss import head_loss, proposal_loss, sampled

# Of the deltas of each stage, and how much of a pedestrian its boxes have to overlap in training.
STDS = ((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067))
OVERLAPS = (0.5, 0.6, 0.7)
_WEIGHTS = (1.0, 0.5, 0.25)  # of the stages' losses
_MOST = 100  # boxes of an image
_SIDE = 7  # of a pooled region


class TwoStage(Detector):
    """A detector that proposes regions from five maps and looks again at those it proposed.

    Args:
        width: channels of HRNet's largest map, as of :func:`gpe.models.detection.hrfpn.hrnet`.
        neck_width: channels of each of its five maps, of strides 4 to 64.
        heads: one, or one a stage of a cascade.
        proposals: regions that the heads look at, in an image.
        shrink: whether boxes come out a pixel less wide and high, as in the published results
            (:func:`gpe.models.detection.legacy.exported`).
    """

    multiple = 32

    def __init__(
        self, width: int, neck_width: int, heads: "list[Head]", proposals: int, shrink: bool
    ):
        super().__init__()
        self.backbone, channels = hrnet(width)
        self.neck = HRFPN(channels, neck_width)
        self.rpn_head = _ProposalHead(neck_width)
        self.least_score = 0.05 if len(heads) == 1 else 0.001
        # A single head has no number in the names of its weights.
        self.bbox_head = heads[0] if len(heads) == 1 else nn.ModuleList(heads)
        self.proposals, self.shrink = proposals, shrink

    @property
    def heads(self) -> "list[Head]":
        """Of the stages."""
        return cast("list[Head]", [self.bbox_head] if isinstance(self.bbox_head, Head)
                    else list(self.bbox_head))  # fmt: skip

    def forward(self, images: Tensor) -> Found:
        return self.detect(self.latent(images), (images.shape[2], images.shape[3]))

    def first(self) -> list[tuple[nn.Conv2d, int]]:
        return [(self.rpn_head.rpn_conv, level) for level in range(len(STRIDES))]

    def found(
        self, latent: list[Tensor], size: tuple[int, int], mixed: list[Tensor], least_score: float
    ) -> Found:
        logits, deltas = self.rpn_head(mixed)
        regions = self._proposed(_anchors(mixed), logits, deltas, size, self.proposals)
        find = self._by_stages if len(self.heads) > 1 else self._by_one
        found = find(latent, regions, size, least_score)
        if self.shrink:
            return [one | {"boxes": exported(one["boxes"])} for one in found]
        return found

    def _proposed(
        self,
        anchors: list[Tensor],
        logits: list[Tensor],
        deltas: list[Tensor],
        size: tuple[int, int],
        most: int,
    ) -> list[Tensor]:
        """Regions ``[n,4]`` of each image, by falling score over all levels."""
        from torchvision.ops import nms

        found: list[list[tuple[Tensor, Tensor]]] = [[] for _ in logits[0]]
        decode = coder((1.0, 1.0, 1.0, 1.0))
        for fixed, level, moves in zip(anchors, logits, deltas, strict=True):
            for image, (scores, delta) in enumerate(zip(level, moves, strict=True)):
                scores, order = scores.float().sigmoid().sort(descending=True, stable=True)
                order = order[:most]
                boxes = decode.decode_single(delta[order].float(), fixed[order])
                boxes = clip(boxes, size)
                kept = nms(boxes, scores[:most], 0.7)
                found[image].append((boxes[kept], scores[kept]))
        regions = []
        for parts in found:
            boxes, scores = (torch.cat(some) for some in zip(*parts, strict=True))
            regions.append(boxes[scores.argsort(descending=True, stable=True)[:most]])
        return regions

    def _pooled(self, latent: list[Tensor], regions: Sequence[Tensor]) -> Tensor:
        """Regions of all images ``[n,C,7,7]``, each from the level of its size."""
        from torchvision.ops import roi_align

        images = [torch.full((len(some), 1), float(n)) for n, some in enumerate(regions)]
        boxes = torch.cat(list(regions))
        rows = torch.cat([torch.cat(images).to(boxes), boxes], 1)
        level = levels(boxes)
        pooled = latent[0].new_zeros(len(rows), latent[0].shape[1], _SIDE, _SIDE)
        for number, stride in enumerate(STRIDES[:4]):
            some = (level == number).nonzero()[:, 0]
            if len(some):
                maps = latent[number]
                part = roi_align(maps, rows[some].to(maps.dtype), _SIDE, 1 / stride, 2, False)
                pooled = pooled.index_copy(0, some, part)
        return pooled

    def _by_one(
        self, latent: list[Tensor], regions: list[Tensor], size: tuple[int, int], least: float
    ) -> Found:
        """Of one head: pedestrians are class 1, and compete with the others for a place."""
        from torchvision.ops import batched_nms

        counts = [len(some) for some in regions]
        logits, deltas = self.heads[0](self._pooled(latent, regions))
        scores = logits.float().softmax(1)[:, 1:].split(counts)
        found = []
        for score, delta, boxes in zip(scores, deltas.float().split(counts), regions, strict=True):
            row, kind = (score > least).nonzero(as_tuple=True)
            moves = delta.unflatten(1, (-1, 4))[row, kind + 1]
            moved = clip(coder(STDS[0]).decode_single(moves, boxes[row]), size)
            kept = batched_nms(moved, score[row, kind], kind, 0.5)[:_MOST]
            kept = kept[kind[kept] == 0]
            found.append({"boxes": moved[kept], "scores": score[row, kind][kept]})
        return found

    def _by_stages(
        self, latent: list[Tensor], regions: list[Tensor], size: tuple[int, int], least: float
    ) -> Found:
        """Each stage pools with the boxes of the one before; the mean of their logits counts."""
        counts, total = [len(some) for some in regions], torch.zeros(())
        for head, stds in zip(self.heads, STDS, strict=True):
            logits, deltas = head(self._pooled(latent, regions))
            total = total + logits.float()
            moved = coder(stds).decode_single(deltas.float(), torch.cat(regions))
            regions = list(clip(moved, size).split(counts))
        scores = (total / len(self.heads)).softmax(1)[:, 1].split(counts)
        found = []
        for boxes, score in zip(regions, scores, strict=True):
            strong = score > least
            kept, values = soft_nms(boxes[strong], score[strong], least_score=least)
            found.append({"boxes": boxes[strong][kept][:_MOST], "scores": values[:_MOST]})
        return found

    def losses(
        self,
        images: Tensor,
        wanted: Sequence[Tensor],
        ignored: Sequence[Tensor],
        *,
        of_all: Counted = own,
    ) -> dict[str, Tensor]:
        size, device = (images.shape[2], images.shape[3]), images.device
        wanted, ignored = ([boxes.to(device) for boxes in some] for some in (wanted, ignored))
        # Only the cascade was trained to leave boxes that are to be ignored out of the negatives.
        if len(self.heads) == 1:
            ignored = [boxes[:0] for boxes in ignored]
        latent = self.latent(images)
        mixed = [conv(latent[place]) for conv, place in self.first()]
        anchors, (logits, deltas) = _anchors(mixed), self.rpn_head(mixed)
        parts = proposal_loss(
            torch.cat(logits, 1),
            torch.cat(deltas, 1),
            torch.cat(anchors),
            wanted,
            ignored,
            size,
            of_all=of_all,
        )
        with torch.no_grad():
            regions = self._proposed(anchors, logits, deltas, size, 2 * self.proposals)
            regions = [torch.cat(pair) for pair in zip(regions, wanted, strict=True)]
        stages = zip(self.heads, STDS, OVERLAPS, _WEIGHTS, strict=False)
        for stage, (head, stds, overlap, weight) in enumerate(stages):
            chosen = [
                sampled(*some, overlap) for some in zip(regions, wanted, ignored, strict=True)
            ]
            regions = [one.boxes for one in chosen]
            logit, delta = head(self._pooled(latent, regions))
            found = head_loss(logit, delta, chosen, coder(stds), of_all=of_all)
            parts |= {f"{name}{stage}": weight * value for name, value in found.items()}
            if stage + 1 < len(self.heads):
                moved = coder(stds).decode_single(delta.detach().float(), torch.cat(regions))
                regions = list(clip(moved, size).split([len(some) for some in regions]))
        return parts


def _anchors(mixed: list[Tensor]) -> list[Tensor]:
    """Of each level, whose maps tell its size."""
    device, anchors = mixed[0].device, Anchors()
    anchors.cell_anchors = [cell.to(device) for cell in anchors.cell_anchors]
    steps = [[torch.tensor(stride, device=device)] * 2 for stride in STRIDES]
    return anchors.grid_anchors([list(maps.shape[2:]) for maps in mixed], steps)


class _ProposalHead(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.rpn_conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.rpn_cls = nn.Conv2d(channels, 3, 1)  # of three shapes
        self.rpn_reg = nn.Conv2d(channels, 4 * 3, 1)
        for conv in (self.rpn_conv, self.rpn_cls, self.rpn_reg):
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.zeros_(cast(Tensor, conv.bias))

    def forward(self, mixed: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Of each level logits ``[N,A]`` and deltas ``[N,A,4]``, anchors of a place together."""
        hidden = [maps.relu() for maps in mixed]
        logits = [self.rpn_cls(maps).movedim(1, -1).flatten(1) for maps in hidden]
        deltas = [self.rpn_reg(maps).movedim(1, -1).flatten(1) for maps in hidden]
        return logits, [delta.unflatten(1, (-1, 4)) for delta in deltas]


class Head(nn.Module):
    """Two linear layers, then logits with the background first, and deltas of boxes.

    Of ``agnostic`` heads all classes share one box.
    """

    def __init__(self, channels: int, units: int, classes: int, *, agnostic: bool):
        super().__init__()
        self.shared_fcs = nn.ModuleList(
            nn.Linear(inputs, units) for inputs in (channels * _SIDE**2, units)
        )
        self.fc_cls = nn.Linear(units, classes)
        self.fc_reg = nn.Linear(units, 4 if agnostic else 4 * classes)
        nn.init.normal_(self.fc_cls.weight, std=0.01)
        nn.init.normal_(self.fc_reg.weight, std=0.001)
        for layer in (self.fc_cls, self.fc_reg):
            nn.init.zeros_(layer.bias)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        hidden = pooled.flatten(1)
        for layer in self.shared_fcs:
            hidden = F.relu(layer(hidden))
        return self.fc_cls(hidden), self.fc_reg(hidden)


def faster_rcnn(
    *,
    width: int = 32,
    neck_width: int = 256,
    head_width: int = 1024,
    proposals: int = 1000,
    shrink: bool = False,
) -> TwoStage:
    """Faster R-CNN on HRNet with random weights, in training mode.

    Args:
        width: channels of HRNet's largest map, as of :func:`gpe.models.detection.hrfpn.hrnet`.
        neck_width: channels of each map of the neck.
        head_width: units of the head. 32, 256 and 1024 give the published network, with 1,856
            weights; its head tells 80 classes, of which the first is pedestrians.
        proposals, shrink: as of :class:`TwoStage`.

    Raises:
        InputError: a width below 1.

    Source:
        Table S1, Faster R-CNN (Ren et al., NIPS 2015).

    Example:
        >>> net = faster_rcnn(width=4, neck_width=8, head_width=16, proposals=10).eval()
        >>> latent = net.latent(torch.zeros(1, 3, 64, 128))
        >>> [list(maps.shape[1:]) for maps in latent]
        [[8, 16, 32], [8, 8, 16], [8, 4, 8], [8, 2, 4], [8, 1, 2]]
        >>> sorted(net.detect(latent, (64, 128))[0])
        ['boxes', 'scores']
    """
    heads = [Head(neck_width, head_width, 81, agnostic=False)]
    return TwoStage(width, neck_width, heads, proposals, shrink)


def cascade_rcnn(
    *,
    width: int = 32,
    neck_width: int = 256,
    head_width: int = 1024,
    proposals: int = 1000,
    shrink: bool = False,
) -> TwoStage:
    """As :func:`faster_rcnn`, with three heads in a row: Cascade R-CNN, with 1,872 weights.

    Source:
        Table S1, Cascade R-CNN (Cai & Vasconcelos, CVPR 2018).
    """
    heads = [Head(neck_width, head_width, 2, agnostic=True) for _ in STDS]
    return TwoStage(width, neck_width, heads, proposals, shrink)
