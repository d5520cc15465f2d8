"""ResNet: shapes, padding, blurring, and that it is torchvision's where the two overlap."""

from collections.abc import Callable
from typing import get_args

import pytest
import torch
import torchvision
from torch import Tensor, nn

from gpe.errors import InputError
from gpe.models import ResNet, resnet18, resnet50
from gpe.models.resnet import PaddingMode

PADDING_MODES = get_args(PaddingMode)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize(("stem", "side"), [("grid", 6), ("cifar", 12), ("imagenet", 3)])
@pytest.mark.parametrize("blur", [False, True])
def test_shape(stem: str, side: int, padding_mode: str, blur: bool):
    """96 pixels are divided by 16, 8 and 32."""
    options = {"stem": stem, "padding_mode": padding_mode, "blur": blur}
    images = torch.rand(2, 3, 96, 96)
    assert resnet18(width=4, **options)(images).shape == (2, 32, side, side)
    assert resnet50(width=2, **options)(images).shape == (2, 64, side, side)


def test_standard_width_is_the_papers():
    """512 channels, and the 11,176,512 weights of a ResNet-18 without its linear layer."""
    net = resnet18()
    assert net.num_features == 512
    assert sum(p.numel() for p in net.parameters()) == 11_176_512


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


@pytest.mark.parametrize("build", [resnet18, resnet50])
def test_imagenet_stem_equals_torchvision(build: Callable[..., ResNet]):
    theirs = torchvision.models.get_model(build.__name__).eval()
    ours = build(stem="imagenet").eval()
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


class TestBlur:
    @pytest.mark.parametrize("build", [resnet18, resnet50])
    @pytest.mark.parametrize(("stem", "strided"), [("cifar", []), ("imagenet", ["conv1"])])
    def test_nothing_but_blur_has_a_stride(self, build: Callable, stem: str, strided: list[str]):
        """But for the 7×7 convolution, which Zhang leaves as it is."""
        halved = {}
        for blur in (False, True):
            modules = build(width=2, stem=stem, blur=blur).named_modules()
            strides = {name: module for name, module in modules if hasattr(module, "stride")}
            halved[blur] = {n: m for n, m in strides.items() if m.stride not in (1, (1, 1))}
        blurs = [n for n, m in halved[True].items() if type(m).__name__ == "BlurPool2d"]
        assert [n for n in halved[True] if n not in blurs] == strided
        pools = ["maxpool.1"] if stem == "imagenet" else []
        assert blurs == pools + [f"layer{stage}.0.blur" for stage in (2, 3, 4)]
        # Without blur: the same, and in each of three blocks a convolution and the shortcut.
        assert len(halved[False]) == len(strided) + len(pools) + 3 * 2

    @pytest.mark.parametrize("bottleneck", [False, True])
    def test_blur_stands_where_zhang_puts_it(self, bottleneck: bool):
        """After the ReLU of the 3×3 convolution, and before the 1×1 convolution of the shortcut."""
        net = ResNet((1, 1), width=4, stem="cifar", bottleneck=bottleneck, blur=True).eval()
        block, x = net.layer2[0], torch.rand(2, 4 * (4 if bottleneck else 1), 8, 8)
        y = block.bn1(block.conv1(x)).relu()
        if bottleneck:
            y = block.bn2(block.conv2(y)).relu()
            y = block.bn3(block.conv3(binomial(y)))
        else:
            y = block.bn2(block.conv2(binomial(y)))
        conv, norm = block.shortcut
        torch.testing.assert_close(block(x), (y + norm(conv(binomial(x)))).relu())

    def test_blur_follows_the_max_pool(self):
        net, x = resnet18(width=4, stem="imagenet", blur=True), torch.randn(2, 4, 8, 8)
        pooled = nn.functional.max_pool2d(x, 3, stride=1, padding=1)
        torch.testing.assert_close(net.maxpool(x), binomial(pooled))

    @pytest.mark.parametrize("build", [resnet18, resnet50])
    def test_same_weights_with_and_without(self, build: Callable):
        plain, blurred = build(width=2, stem="imagenet"), build(width=2, stem="imagenet", blur=True)
        blurred.load_state_dict(plain.state_dict())
        images = torch.rand(1, 3, 64, 64)
        assert not torch.allclose(plain.eval()(images), blurred.eval()(images))

    @pytest.mark.parametrize("build", [resnet18, resnet50])
    @pytest.mark.parametrize("side", [1, 4, 5, 8])
    def test_small_maps(self, build: Callable, side: int):
        """Down to one pixel, as without blur: 8 pixels are maps of 8, 4, 2 and 1."""
        images = torch.rand(1, 3, side, side)
        for padding_mode in ("zeros", "replicate", "circular"):
            options = {"width": 2, "stem": "cifar", "padding_mode": padding_mode}
            maps = [build(**options, blur=blur).eval()(images) for blur in (False, True)]
            assert maps[0].shape == maps[1].shape
            assert maps[1].isfinite().all()

    def test_reflection_needs_maps_of_two_pixels(self):
        """The least that the convolutions themselves can reflect."""
        net = resnet18(width=2, stem="cifar", padding_mode="reflect", blur=True).eval()
        assert net.layer4[0].blur(torch.rand(1, 8, 2, 2)).shape == (1, 8, 1, 1)

    @pytest.mark.parametrize("build", [resnet18, resnet50])
    def test_pooled_features_depend_less_on_shifts(self, build: Callable):
        """Under circular shifts: not at all by 8 pixels, with blur far less by fewer."""
        images = torch.rand(4, 3, 32, 32, dtype=torch.float64)
        errors = {}
        for blur in (False, True):
            torch.manual_seed(0)
            net = build(width=8, stem="cifar", padding_mode="circular", blur=blur).double()
            net(images)  # settles the running statistics of the batch norms
            net.eval()
            pooled = net(images).mean((2, 3))
            spread = (pooled - pooled.mean(0)).norm()
            shifted = {n: net(images.roll((n, n), (2, 3))).mean((2, 3)) for n in range(1, 9)}
            errors[blur] = [((shifted[n] - pooled).norm() / spread).item() for n in range(1, 8)]
            torch.testing.assert_close(shifted[8], pooled)
        assert all(blurred < 0.5 * plain for plain, blurred in zip(*errors.values(), strict=True))


@pytest.mark.parametrize("blur", [False, True])
def test_compiles_into_one_graph(blur: bool):
    net = resnet18(width=2, blur=blur).eval()
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


def binomial(x: Tensor) -> Tensor:
    """Every second pixel of the 3×3 binomial blur, a row and a column at a time."""
    for dim in (2, 3):
        last = x.shape[dim] - 1
        here = torch.arange(0, last + 1, 2)
        before, after = (here - 1).clamp(min=0), (here + 1).clamp(max=last)
        x = sum(w * x.index_select(dim, at) for w, at in ((1, before), (2, here), (1, after))) / 4
    return x
