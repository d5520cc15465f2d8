"""ResNet: shapes, padding, and that it is torchvision's network where the two overlap."""

from typing import get_args

import pytest
import torch
from torch import nn
from torchvision.models import resnet18 as torchvision_resnet18

from gpe.errors import InputError
from gpe.models import ResNet, resnet18
from gpe.models.resnet import PaddingMode

PADDING_MODES = get_args(PaddingMode)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize(("stem", "side"), [("grid", 6), ("cifar", 12), ("imagenet", 3)])
def test_shape(stem: str, side: int, padding_mode: str):
    """96 pixels are divided by 16, 8 and 32."""
    net = resnet18(width=4, stem=stem, padding_mode=padding_mode)
    assert net(torch.rand(2, 3, 96, 96)).shape == (2, 32, side, side)


def test_standard_width_is_the_papers():
    """512 channels, and the 11,176,512 weights of a ResNet-18 without its linear layer."""
    net = resnet18()
    assert net.num_features == 512
    linear = 512 * 1000 + 1000
    expected = sum(p.numel() for p in torchvision_resnet18().parameters()) - linear
    assert sum(p.numel() for p in net.parameters()) == expected == 11_176_512


@pytest.mark.parametrize(("width", "channels"), [(1, 8), (6, 48)])
def test_width(width: int, channels: int):
    net = resnet18(width=width)
    assert net.num_features == channels
    assert net(torch.rand(1, 3, 32, 32)).shape[1] == channels


def test_depths():
    net = ResNet((1, 3), width=4)
    assert [len(net.layer1), len(net.layer2)] == [1, 3]
    assert net.num_features == 8
    assert net(torch.rand(1, 3, 32, 32)).shape == (1, 8, 8, 8)


def test_max_pool_only_in_the_imagenet_stem():
    pools = {
        stem: sum(isinstance(module, nn.MaxPool2d) for module in resnet18(stem=stem).modules())
        for stem in ("grid", "cifar", "imagenet")
    }
    assert pools == {"grid": 0, "cifar": 0, "imagenet": 1}


def test_imagenet_stem_equals_torchvision():
    theirs = torchvision_resnet18().eval()
    ours = resnet18(stem="imagenet").eval()
    weights = {
        name.replace("downsample", "shortcut"): value
        for name, value in theirs.state_dict().items()
        if not name.startswith("fc.")
    }
    ours.load_state_dict(weights)
    trunk = nn.Sequential(*list(theirs.children())[:-2])
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(ours(images), trunk(images))


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("stem", ["grid", "cifar", "imagenet"])
def test_every_padded_convolution_has_the_padding_mode(stem: str, padding_mode: str):
    net = resnet18(width=2, stem=stem, padding_mode=padding_mode)
    padded = [m for m in net.modules() if isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1)]
    assert len(padded) == 17
    assert all(conv.padding[0] == conv.kernel_size[0] // 2 for conv in padded)
    assert {conv.padding_mode for conv in padded} == {padding_mode}


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
def test_only_zeros_let_a_constant_image_see_the_border(padding_mode: str):
    """Of a constant image the other modes make constant maps, whatever the weights."""
    net = resnet18(width=4, stem="cifar", padding_mode=padding_mode).double().eval()
    features = net(torch.ones(1, 3, 32, 32, dtype=torch.float64))
    spread = (features.amax((2, 3)) - features.amin((2, 3))).max()
    assert (spread > 1e-3) == (padding_mode == "zeros")


def test_compiles_into_one_graph():
    net = resnet18(width=2).eval()
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(torch.compile(net, fullgraph=True, backend="eager")(images), net(images))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stem": "vgg"}, "stem: expected one of grid, cifar, imagenet, got 'vgg'"),
        ({"padding_mode": "same"}, "padding_mode: expected one of zeros, .* got 'same'"),
        ({"width": 0}, "width: expected at least 1, got 0"),
    ],
)
def test_bad_arguments(options: dict, message: str):
    with pytest.raises(InputError, match=message):
        resnet18(**options)
