"""HRNetV2 (Wang et al., TPAMI 2020) with its pyramid, as Table S1's two-stage detectors have it."""

import copy
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpe.errors import expect_at_least_one

# timm takes a second to import: only inside the function that needs it.


class HRFPN(nn.Module):
    """Maps of four sizes to five of one width: joined at the largest, mixed, and pooled.

    All of it is linear in its input.

    Args:
        channels: of each map that comes in.
        width: channels of each of the five maps that go out, each half as large as the one before;
            the index of a channel means the same in all.

    Example:
        >>> maps = [torch.zeros(1, 4, 32 >> n, 64 >> n) for n in range(4)]
        >>> [list(level.shape[1:]) for level in HRFPN((4,) * 4, 8)(maps)]
        [[8, 32, 64], [8, 16, 32], [8, 8, 16], [8, 4, 8], [8, 2, 4]]
    """

    def __init__(self, channels: tuple[int, ...], width: int):
        super().__init__()
        expect_at_least_one("width", width)
        self.reduction_conv = _Conv(sum(channels), width, 1)
        self.fpn_convs = nn.ModuleList(_Conv(width, width, 3) for _ in range(5))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        size = maps[0].shape[2:]
        joined = [
            part if part.shape[2:] == size else F.interpolate(part, size, mode="bilinear")
            for part in maps
        ]
        whole = self.reduction_conv(torch.cat(joined, 1))
        return [
            conv(F.avg_pool2d(whole, 2**level) if level else whole)
            for level, conv in enumerate(self.fpn_convs)
        ]


def hrnet(width: int = 32) -> tuple[nn.Module, tuple[int, ...]]:
    """timm's HRNet, from images to four maps of strides 4 to 32, and their channels.

    ``width`` is that of the largest map: 32 is ``hrnet_w32``, as the published detectors have it;
    with others there is one module a stage, as in ``hrnet_w18_small``.
    """
    expect_at_least_one("width", width)
    import timm
    from timm.models import FeatureInfo
    from timm.models.hrnet import HighResolutionNetFeatures, cfg_cls

    how: dict[str, Any] = {"feature_location": "", "out_indices": (1, 2, 3, 4)}
    if width == 32:
        backbone = timm.create_model("hrnet_w32", features_only=True, **how)
    else:
        cfg: dict[str, Any] = copy.deepcopy(cfg_cls["hrnet_w18_small"])
        cfg["stage1"]["num_channels"] = (width,)
        for branches in (2, 3, 4):
            channels = tuple(width << branch for branch in range(branches))
            cfg[f"stage{branches}"]["num_channels"] = channels
        backbone = HighResolutionNetFeatures(cfg, **how)
    return backbone, tuple(cast(FeatureInfo, backbone.feature_info).channels())


class _Conv(nn.Module):
    """A convolution under the published name, ``conv``."""

    def __init__(self, channels: int, width: int, side: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, width, side, padding=side // 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)
