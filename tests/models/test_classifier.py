"""Classifier: pooling and a linear layer on any backbone's feature map."""

import pytest
import timm
import torch
from torch import nn

from gpe.errors import InputError
from gpe.models import Classifier, ResNet

IMAGES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def net() -> Classifier:
    torch.manual_seed(0)
    return Classifier(ResNet((1, 1), width=8, stem="cifar"), 5)


def test_is_mean_and_linear(net: Classifier):
    features = net.eval().backbone(IMAGES)
    assert torch.equal(net.forward_features(IMAGES), features)
    pooled = features.sum((2, 3)) / features[0, 0].numel()
    expected = pooled @ net.head.weight.T + net.head.bias
    torch.testing.assert_close(net(IMAGES), expected)


def test_every_parameter_learns(net: Classifier):
    net(IMAGES).square().sum().backward()
    assert all(parameter.grad.any() for parameter in net.parameters())


def test_compiles_into_one_graph(net: Classifier):
    compiled = torch.compile(net.eval(), fullgraph=True, backend="eager")
    assert torch.equal(compiled(IMAGES), net(IMAGES))


def test_equals_timm_classifier():
    """On its trunk, with its head."""
    theirs = timm.create_model("test_resnet", num_classes=7).eval()
    net = Classifier(timm.create_model("test_resnet", num_classes=0), 7).eval()
    net.backbone.load_state_dict(theirs.state_dict(), strict=False)
    net.head.load_state_dict(theirs.get_classifier().state_dict())
    torch.testing.assert_close(net(IMAGES), theirs(IMAGES))


def test_channels_may_be_given():
    trunk = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU())
    assert Classifier(trunk, 4, channels=6)(IMAGES).shape == (3, 4)
    with pytest.raises(InputError, match=r"channels: expected .* Sequential does not tell"):
        Classifier(trunk, 4)
    with pytest.raises(InputError, match=r"map \[N,5,H,W\], got \[3, 6, 30, 30\]"):
        Classifier(trunk, 4, channels=5)(IMAGES)


def test_no_classes():
    with pytest.raises(InputError, match="num_classes: expected at least 1, got 0"):
        Classifier(ResNet((1, 1), width=8), 0)
