"""HRNet and its pyramid: the published names and shapes, and what the pyramid computes."""

import pytest
import torch
import torch.nn.functional as F

from gpe.errors import InputError
from gpe.models.detection.hrfpn import HRFPN, hrnet
from gpe.models.detection.two_stage import faster_rcnn


@pytest.fixture(scope="module")
def published():
    with torch.device("meta"):
        return faster_rcnn()


def test_the_backbone_has_the_published_names_and_shapes(published):
    backbone = published.backbone.state_dict()
    assert len(backbone) == 1830
    assert sum(p.numel() for p in published.backbone.parameters()) == 29_305_536
    for name, shape in {
        "conv1.weight": (64, 3, 3, 3),
        "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "transition1.1.0.0.weight": (64, 256, 3, 3),
        "stage2.0.branches.1.3.bn2.bias": (64,),
        "stage4.2.fuse_layers.3.0.1.0.weight": (32, 32, 3, 3),
    }.items():
        assert tuple(backbone[name].shape) == shape


def test_the_neck_has_the_published_names_and_shapes(published):
    expected = {"reduction_conv.conv.weight": (256, 480, 1, 1), "reduction_conv.conv.bias": (256,)}
    for level in range(5):
        expected[f"fpn_convs.{level}.conv.weight"] = (256, 256, 3, 3)
        expected[f"fpn_convs.{level}.conv.bias"] = (256,)
    assert {name: tuple(v.shape) for name, v in published.neck.state_dict().items()} == expected


def test_the_pyramid_joins_mixes_and_pools():
    torch.manual_seed(0)
    neck = HRFPN((2, 3, 4, 5), 6).double()
    maps = [torch.rand(2, n, 32 >> k, 64 >> k).double() for k, n in enumerate((2, 3, 4, 5))]
    joined = [
        maps[0],
        *(F.interpolate(part, scale_factor=2.0**k, mode="bilinear", align_corners=False)
          for k, part in enumerate(maps[1:], 1)),
    ]  # fmt: skip
    whole = F.conv2d(torch.cat(joined, 1), *neck.reduction_conv.parameters())
    found = neck(maps)
    assert len(found) == 5
    for level, (one, conv) in enumerate(zip(found, neck.fpn_convs, strict=True)):
        pooled = whole.unflatten(3, (-1, 2**level)).mean(4).unflatten(2, (-1, 2**level)).mean(3)
        torch.testing.assert_close(one, F.conv2d(pooled, *conv.parameters(), padding=1))


def test_a_narrow_backbone_has_maps_of_the_published_sizes():
    backbone, channels = hrnet(4)
    maps = backbone(torch.zeros(1, 3, 64, 128))
    assert [part.shape[1] for part in maps] == list(channels) == [4, 8, 16, 32]
    assert [tuple(part.shape[2:]) for part in maps] == [(16 >> n, 32 >> n) for n in range(4)]


def test_widths_below_1_are_refused():
    with pytest.raises(InputError, match="width: expected at least 1, got 0"):
        HRFPN((4,) * 4, 0)
