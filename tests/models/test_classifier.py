"""Classifier: pooling and a linear layer on any backbone's feature map."""

import pytest
import timm
import torch
from torch import nn
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor

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
    with pytest.raises(InputError, match=r"channels: expected .* Identity does not tell"):
        Classifier(nn.Identity(), 4)
    with pytest.raises(InputError, match=r"map \[N,5,H,W\], got \[3, 6, 30, 30\]"):
        Classifier(trunk, 4, channels=5)(IMAGES)


@pytest.mark.parametrize(
    ("build", "layer", "channels"),
    [
        (models.resnet18, "layer4", 512),
        (models.squeezenet1_1, "features", 512),
        (models.mobilenet_v3_small, "features", 576),
        (lambda: models.swin_t(), "permute", 768),
    ],
)
def test_classifiers_of_torchvision_are_cut_before_their_pooling(build, layer, channels):
    theirs = build().eval()
    found = []
    theirs.get_submodule(layer).register_forward_hook(lambda *call: found.append(call[2]))
    images = torch.rand(2, 3, 64, 64)
    net = Classifier(theirs, 5).eval()
    found.clear()
    theirs(images)
    assert net.channels == channels
    torch.testing.assert_close(net.forward_features(images), found[0])
    net(images).sum().backward()
    assert next(theirs.parameters()).grad is not None


def test_an_activation_without_a_module_stays_before_the_pooling():
    theirs = models.densenet121().eval()
    net, images = Classifier(theirs, 5).eval(), torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(net.forward_features(images), theirs.features(images).relu())


def test_what_yields_maps_in_a_dict_or_by_itself():
    net = models.segmentation.deeplabv3_resnet50(weights=None, weights_backbone=None, aux_loss=True)
    several = create_feature_extractor(models.resnet18(), ["layer2", "layer4"])
    plain = nn.Sequential(*list(models.resnet18().children())[:-2])
    for backbone, channels in ((net.backbone, 2048), (several, 512), (plain, 512)):
        built = Classifier(backbone, 5)
        assert built.channels == channels and built(IMAGES[:2]).shape == (2, 5)
        assert built.training and backbone.training


def test_a_network_without_maps_is_refused():
    with pytest.raises(InputError, match="VisionTransformer"):
        Classifier(models.vit_b_32(), 5)


def test_no_classes():
    with pytest.raises(InputError, match="num_classes: expected at least 1, got 0"):
        Classifier(ResNet((1, 1), width=8), 0)
