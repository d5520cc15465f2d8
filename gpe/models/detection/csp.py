"""CSP (Liu et al., "High-level semantic feature detection", CVPR 2019) on ResNets.

The head is that of the network in Table S1: three branches, each with its own 3×3 convolution,
where the paper's has one for all.
"""

import math
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from gpe.errors import expect_at_least_one, expect_one_of
from gpe.models.deeplab import _DEPTHS, Backbone, _resnet
from gpe.models.detection.csp_loss import STRIDE, csp_loss, csp_targets
from gpe.models.detection.detector import Counted, Detector, Found, own

# torchvision takes a second to import: only inside the functions that need it.

ASPECT = 0.41  # of a pedestrian: width over height
LEAST_SCORE = 0.1  # of a box that is kept


class CSP(Detector):
    """From normalised images ``[N,3,H,W]`` to three maps ``[N,1|1|2,H/4,W/4]``.

    They are logits of a centre, logarithms of the height in cells, and offsets (y, x) of the
    centre from the middle of the cell, in cells. Images are padded to multiples of 128.
    """

    multiple, least_score = 128, LEAST_SCORE

    def __init__(self, backbone: nn.Module, neck: nn.Module, bbox_head: "_Head"):
        super().__init__()
        self.backbone, self.neck, self.bbox_head = backbone, neck, bbox_head

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.bbox_head(self.latent(images)[0])

    def first(self) -> list[tuple[nn.Conv2d, int]]:
        return [(branch.conv, 0) for branch in self.bbox_head.branches()]

    def found(
        self, latent: list[Tensor], size: tuple[int, int], mixed: list[Tensor], least_score: float
    ) -> Found:
        return decode(self.bbox_head.outputs(mixed), size, least_score=least_score)

    def losses(
        self,
        images: Tensor,
        wanted: Sequence[Tensor],
        ignored: Sequence[Tensor],
        *,
        of_all: Counted = own,
    ) -> dict[str, Tensor]:
        targets = csp_targets(wanted, ignored, (images.shape[2], images.shape[3]))
        maps = self(images)
        rows, columns = targets.centres.shape[1:]
        inside = (maps[0][..., :rows, :columns], *(m[..., :rows, :columns] for m in maps[1:]))
        return csp_loss(inside, targets.to(images.device), of_all=of_all)


def csp(
    backbone: Backbone = "resnet50",
    *,
    width: int = 64,
    neck_width: int = 256,
    head_width: int = 256,
) -> CSP:
    """A network with random weights, in training mode.

    Args:
        backbone: ``"resnet50"`` or ``"resnet18"``.
        width: channels of the first stage.
        neck_width: channels of each of the three maps that the neck puts together.
        head_width: channels of each branch, a multiple of 32 or less than 32. 64, 256 and 256 with
            a ResNet-50 give the published network, with 344 weights.

    Raises:
        InputError: unknown backbone, or a width below 1.

    Source:
        Table S1, CSP.

    Example:
        >>> net = csp("resnet18", width=8, neck_width=8, head_width=8).eval()
        >>> [list(part.shape) for part in net(torch.zeros(1, 3, 128, 256))]
        [[1, 1, 32, 64], [1, 1, 32, 64], [1, 2, 32, 64]]
    """
    expect_one_of("backbone", backbone, tuple(_DEPTHS))
    for name, value in (("width", width), ("neck_width", neck_width), ("head_width", head_width)):
        expect_at_least_one(name, value)
    from torchvision.models import ResNet
    from torchvision.models._utils import IntermediateLayerGetter

    built, last = _resnet(backbone, width)
    resnet = cast(ResNet, built)
    # The last stage keeps its size, and all of its 3×3 convolutions are dilated. (torchvision's
    # and timm's own dilation leaves out the first.)
    for conv in (module for module in resnet.layer4.modules() if isinstance(module, nn.Conv2d)):
        conv.stride = (1, 1)
        if conv.kernel_size == (3, 3):
            conv.dilation = conv.padding = (2, 2)
    stages = {f"layer{number}": f"layer{number}" for number in (2, 3, 4)}
    neck = _Neck((last // 4, last // 2, last), neck_width)
    return CSP(IntermediateLayerGetter(resnet, stages), neck, _Head(3 * neck_width, head_width))


class _L2Norm(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), 10.0))

    def forward(self, x: Tensor) -> Tensor:
        norm = x.float().pow(2).sum(1, keepdim=True).sqrt() + 1e-10
        return (self.weight.float().view(-1, 1, 1) * x / norm).type_as(x)


class _Neck(nn.Module):
    """Three stages at a quarter of the image's size, each normalised over its channels."""

    def __init__(self, channels: tuple[int, int, int], width: int):
        super().__init__()
        self.p3 = nn.ConvTranspose2d(channels[0], width, 4, stride=2, padding=1)
        self.p4 = nn.ConvTranspose2d(channels[1], width, 4, stride=4)
        self.p5 = nn.ConvTranspose2d(channels[2], width, 4, stride=4)
        self.p3_l2, self.p4_l2, self.p5_l2 = (_L2Norm(width) for _ in range(3))

    def forward(self, stages: Mapping[str, Tensor]) -> Tensor:
        c3, c4, c5 = stages.values()
        parts = self.p3_l2(self.p3(c3)), self.p4_l2(self.p4(c4)), self.p5_l2(self.p5(c5))
        return torch.cat(parts, 1)


class _Branch(nn.Module):
    def __init__(self, channels: int, width: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.gn = nn.GroupNorm(min(32, width), width)

    def forward(self, mixed: Tensor) -> Tensor:
        """What follows the convolution."""
        return self.gn(mixed).relu()


class _Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class _Head(nn.Module):
    def __init__(self, channels: int, width: int):
        super().__init__()
        self.cls_convs, self.reg_convs, self.offset_convs = (
            nn.ModuleList([_Branch(channels, width)]) for _ in range(3)
        )
        self.csp_cls, self.csp_reg, self.csp_offset = (
            nn.Conv2d(width, outputs, 3, padding=1) for outputs in (1, 1, 2)
        )
        self.reg_scales, self.offset_scales = (nn.ModuleList([_Scale()]) for _ in range(2))
        for conv in (module for module in self.modules() if isinstance(module, nn.Conv2d)):
            nn.init.normal_(conv.weight, std=0.01)
        for conv in (self.csp_cls, self.csp_reg, self.csp_offset):
            nn.init.zeros_(cast(Tensor, conv.bias))
        nn.init.constant_(cast(Tensor, self.csp_cls.bias), -math.log(99))  # p = 0.01

    def branches(self) -> list[_Branch]:
        """Of the logits, the log-heights and the offsets."""
        return [
            cast(_Branch, convs[0]) for convs in (self.cls_convs, self.reg_convs, self.offset_convs)
        ]

    def forward(self, latent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.outputs([branch.conv(latent) for branch in self.branches()])

    def outputs(self, mixed: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Of what the convolution of each branch makes of the latent."""
        branches = zip(self.branches(), mixed, strict=True)
        logits, heights, offsets = (branch(part) for branch, part in branches)
        return (
            self.csp_cls(logits),
            self.reg_scales[0](self.csp_reg(heights)),
            self.offset_scales[0](self.csp_offset(offsets)),
        )


def decode(
    maps: tuple[Tensor, Tensor, Tensor],
    size: tuple[int, int],
    *,
    least_score: float = LEAST_SCORE,
    overlap: float = 0.5,
    most: int = 100,
    candidates: int = 1000,
) -> Found:
    """Boxes of the maps of a :class:`CSP`, as :class:`gpe.LogAverageMissRate` takes them.

    Args:
        maps: logits, log-heights and offsets, ``[N,1|1|2,h,w]``.
        size: height and width of the images before they were padded, in pixels.
        least_score: only higher ones are kept.
        overlap: of which a box suppresses those with lower scores.
        most: boxes an image, those of the highest scores.
        candidates: cells of the highest scores, before anything is suppressed.

    Example:
        >>> maps = torch.full((1, 1, 8, 8), -9.0), torch.zeros(1, 1, 8, 8), torch.zeros(1, 2, 8, 8)
        >>> maps[0][0, 0, 3, 4], maps[1][0, 0, 3, 4] = 9.0, 2.0
        >>> decode(maps, (32, 32))[0]["boxes"].round(decimals=2)
        tensor([[11.9400,  0.0000, 24.0600, 28.7800]])
    """
    from torchvision.ops import nms

    height, width = size
    found = []
    for logits, log_heights, offsets in zip(*maps, strict=True):
        scores, cells = logits.sigmoid().flatten().float().sort(descending=True, stable=True)
        cells = cells[:candidates][scores[:candidates] > least_score]
        scores = scores[: len(cells)]
        rows, columns = cells // logits.shape[-1], cells % logits.shape[-1]
        dy, dx = offsets.flatten(1)[:, cells].float()
        y, x = ((place + 0.5 + off) * STRIDE for place, off in ((rows, dy), (columns, dx)))
        h = STRIDE * log_heights.flatten()[cells].float().exp() / 2
        w = ASPECT * h
        boxes = torch.stack(
            [
                *((x - w).clamp(0, width - 1), (y - h).clamp(0, height - 1)),
                *((x + w).clamp(0, width - 1), (y + h).clamp(0, height - 1)),
            ],
            1,
        )
        kept = nms(boxes, scores, overlap)[:most]
        found.append({"boxes": boxes[kept], "scores": scores[kept]})
    return found
