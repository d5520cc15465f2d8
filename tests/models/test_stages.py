"""Which layers stand for a network's depth."""

import pytest
import timm
import torch
from torch import nn
from torchvision import models

from gpe.errors import InputError
from gpe.models import GAPNet, deeplabv3, resnet18
from gpe.models.inside import pooled_at
from gpe.models.stages import layers_by_depth

CANVAS = torch.zeros(1, 3, 64, 64)
RESNET = ["conv1", "layer1", "layer2", "layer3", "layer4"]


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (models.resnet18, RESNET),
        (lambda: timm.create_model("resnet18"), RESNET),
        (
            lambda: timm.create_model("convnext_atto"),
            ["stem", *(f"stages.{stage}" for stage in range(4))],
        ),
        (
            models.vgg11,
            [f"features.{number}" for number in (0, 3, 6, 8, 11, 13, 16, 20)],
        ),
    ],
)
def test_the_stages_of_known_networks(build, expected):
    assert layers_by_depth(build(), CANVAS) == expected


def test_the_blocks_of_transformers():
    """Whose channels come last."""
    canvas = torch.zeros(1, 3, 224, 224)
    vit = timm.create_model("vit_tiny_patch16_224", depth=4)
    expected = ["patch_embed", *(f"blocks.{block}" for block in range(3)), "norm"]
    assert layers_by_depth(vit, canvas) == expected
    latents = pooled_at(vit.eval(), expected, canvas)
    assert {values.shape for values in latents.values()} == {(1, 192)}
    swin = timm.create_model("swin_tiny_patch4_window7_224")
    found = layers_by_depth(swin, canvas)
    assert found == ["patch_embed", *(f"layers.{stage}" for stage in range(3)), "norm"]
    widths = [values.shape[1] for values in pooled_at(swin.eval(), found, canvas).values()]
    assert widths == [96, 96, 192, 384, 768]


def test_more_stages_than_asked_for_are_thinned_between_first_and_last():
    found = layers_by_depth(models.mobilenet_v3_small(), CANVAS)
    assert len(found) == 8
    assert (found[0], found[-1]) == ("features.0", "features.12")


@pytest.mark.parametrize(
    "build", [lambda: GAPNet(resnet18(width=4), 9), lambda: deeplabv3(width=4)]
)
def test_a_head_is_not_looked_into(build):
    found = layers_by_depth(build(), CANVAS, inside="backbone")
    assert found[-1] == "backbone.layer4"
    assert all(name.startswith("backbone.") for name in found) and len(found) == 5


def test_the_network_is_left_as_it_was():
    net = models.resnet18().train()
    layers_by_depth(net, CANVAS)
    assert net.training
    assert not any(module._forward_hooks for module in net.modules())
    assert net.bn1.num_batches_tracked == 0


def test_a_network_without_feature_maps_is_told_so():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 2))
    with pytest.raises(InputError, match=r"feature maps \[N,C,H,W\], got Sequential without any"):
        layers_by_depth(net, CANVAS)
