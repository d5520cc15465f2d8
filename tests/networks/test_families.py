"""Twelve families and more: what gpe makes of them is what hooks written by hand make of them."""

import pytest
import torch
from torch import nn

from gpe.models.inside import pooled_at
from gpe.models.stages import last_feature_map
from tests.networks.by_hand import build, output_of, pooled
from tests.networks.sweep import CHECKS, checked

# Network, layer, how that lies, and the size of images.
FAMILIES = [
    ("torchvision/resnet18", "layer3", "NCHW", (32, 64)),
    ("torchvision/swin_t", "features.5", "NHWC", (64, 64)),
    ("torchvision/convnext_tiny", "features.1.0.block.3", "NHWC", (32, 32)),
    ("torchvision/mobilenet_v3_small", "features.12", "NCHW", (64, 96)),
    ("timm/swinv2_cr_tiny_ns_224", "stages.3", "NCHW", (64, 64)),
    ("timm/hiera_tiny_224", "blocks.3", "NTC", (64, 64)),
    ("timm/mambaout_femto", "stages.3", "NHWC", (32, 64)),
    ("timm/nest_tiny", "norm", "NHWC", (64, 64)),
    ("timm/vit_tiny_patch16_224", "blocks.5", "1+NTC", (64, 64)),
    ("timm/vit_tiny_patch16_224", "patch_embed", "NTC", (64, 64)),
    ("timm/deit_tiny_distilled_patch16_224", "norm", "2+NTC", (64, 64)),
    ("timm/cait_xxs24_224", "blocks.3", "NTC", (64, 64)),
    ("timm/efficientnet_lite0", "bn2", "NCHW", (32, 64)),
    ("timm/mixer_s32_224", "blocks.3", "NTC", (64, 64)),
    ("timm/ghostnet_100", "classifier", "NC", (64, 64)),
]


@pytest.mark.parametrize(("name", "layer", "layout", "size"), FAMILIES, ids=str)
def test_ranked_and_removed_as_by_hand(name, layer, layout, size):
    """Scores, logits without half of the channels, and logits and counts of the sweep."""
    net = build(name)
    images = torch.rand(2, 3, *size, dtype=torch.float64)
    row = checked(net, layer, layout, images)
    assert [row[check] for check in CHECKS] == ["equal"] * 3, row
    by_hand = pooled(output_of(net, layer, images), layout)
    latents = pooled_at(net, [layer], images)[layer]
    torch.testing.assert_close(latents, by_hand, rtol=1e-8, atol=1e-10)


# What the head pools, by the networks' own words: timm's forward_features.
LAST = {
    "timm/resnet18": "layer4",
    "timm/dla34": "level5",
    "timm/dpn68": "features.conv5_bn_ac",
    "timm/volo_d1_224": "norm",
    "timm/mobilenetv3_small_050": "blocks.5",
    "timm/mobilenetv4_conv_small": "blocks.4",
    "timm/ghostnet_100": "blocks.9",
    "timm/efficientnet_lite0": "bn2",
    "timm/densenet121": "features.norm5",
    "timm/vit_tiny_patch16_224": "norm",
    "timm/swin_tiny_patch4_window7_224": "norm",
    "timm/resnet50_clip": "stages.3",
}


@pytest.mark.parametrize(("name", "layer"), LAST.items(), ids=LAST)
def test_the_last_feature_map_is_what_the_head_takes(name, layer):
    net = build(name)
    images = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    assert last_feature_map(net, images) == layer
    with torch.no_grad():
        expected = net.forward_features(images)
    torch.testing.assert_close(output_of(net, layer, images), expected)
    headless = build(name, num_classes=0)
    assert last_feature_map(headless, images) == layer


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("squeezenet1_1", "features.12"),
        ("vgg11", "features.20"),
        ("mobilenet_v3_small", "features.12"),
        ("efficientnet_b0", "features.8"),
        ("swin_t", "permute"),
    ],
)
def test_the_last_feature_map_of_torchvision(name, layer):
    net = build(f"torchvision/{name}")
    assert last_feature_map(net, torch.zeros(1, 3, 64, 64).double()) == layer


def test_as_many_channels_as_classes_are_not_taken_for_logits():
    net = build("timm/resnet18", num_classes=512)
    assert last_feature_map(net, torch.zeros(1, 3, 64, 64).double()) == "layer4"
    own = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net = nn.Sequential(own, nn.Linear(4, 4))
    assert last_feature_map(net, torch.zeros(1, 3, 8, 8)) == "0.1"
