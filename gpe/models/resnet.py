"""ResNets (He et al. 2016) as the paper uses them, and their BlurPool rivals (Zhang 2019)."""

from collections.abc import Sequence
from typing import Literal, get_args

from torch import Tensor, nn

from gpe.errors import expect_at_least_one, expect_one_of, needs

Stem = Literal["grid", "cifar", "imagenet"]
PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]


class ResNet(nn.Module):
    """The convolutional part of a ResNet: images in, feature map out.

    With ``blur`` no step between maps takes every second pixel of an unblurred one (R. Zhang,
    "Making Convolutional Networks Shift-Invariant Again", ICML 2019): a 3×3 convolution of
    stride 2 becomes one of stride 1, and a blur of stride 2 follows its ReLU; the shortcut beside
    it is blurred before its 1×1 convolution; the max-pool takes stride 1, and a blur of stride 2
    follows it. The 7×7 convolution keeps its stride 2, as in Zhang's ImageNet networks. The
    weights have the same names and shapes with and without blur.

    Args:
        depths: blocks in each of the stages.
        width: channels of the first stage; each later stage has twice as many.
        stem: ``"grid"`` (7×7 stride 2, no max-pool: the paper's location networks),
            ``"cifar"`` (3×3 stride 1) or ``"imagenet"`` (7×7 stride 2, then max-pool).
        padding_mode: of every padded convolution, as in :class:`torch.nn.Conv2d`.
        bottleneck: blocks of 1×1, 3×3 and 1×1 convolutions that yield four times the channels,
            the stride in the 3×3 convolution as in torchvision; else basic blocks.
        blur: blur before every halving of a map, with the 3×3 binomial filter.

    Attributes:
        num_features: channels of the feature map.

    Raises:
        InputError: unknown stem or padding mode, or a width below 1.

    Example:
        >>> import torch
        >>> ResNet((2, 2, 2, 2), width=8)(torch.zeros(1, 3, 96, 96)).shape
        torch.Size([1, 64, 6, 6])
    """

    def __init__(
        self,
        depths: Sequence[int],
        *,
        width: int = 64,
        stem: Stem = "grid",
        padding_mode: PaddingMode = "zeros",
        bottleneck: bool = False,
        blur: bool = False,
    ):
        super().__init__()
        expect_one_of("stem", stem, get_args(Stem))
        expect_one_of("padding_mode", padding_mode, get_args(PaddingMode))
        expect_at_least_one("width", width)

        kernel, stride = (3, 1) if stem == "cifar" else (7, 2)
        self.conv1 = _conv(3, width, kernel, stride, padding_mode)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool: nn.Module = nn.Identity()
        if stem == "imagenet":
            stride, blur_pool = _halving(2, padding_mode, blur)
            self.maxpool = nn.Sequential(nn.MaxPool2d(3, stride, padding=1), blur_pool)

        self.num_features = width
        block_type = Bottleneck if bottleneck else BasicBlock
        for stage, depth in enumerate(depths):
            blocks, channels = [], width * 2**stage
            for block in range(depth):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(block_type(self.num_features, channels, stride, padding_mode, blur))
                self.num_features = channels * block_type.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.stages = [f"layer{stage + 1}" for stage in range(len(depths))]

    def forward(self, images: Tensor) -> Tensor:
        """Images ``[N,3,H,W]`` to features ``[N,num_features,H',W']``."""
        features = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for stage in self.stages:
            features = self.get_submodule(stage)(features)
        return features


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut."""

    expansion = 1

    def __init__(
        self, in_channels: int, channels: int, stride: int, padding_mode: PaddingMode, blur: bool
    ):
        super().__init__()
        stride, self.blur = _halving(stride, padding_mode, blur)
        self.conv1 = _conv(in_channels, channels, 3, stride, padding_mode)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv(channels, channels, 3, 1, padding_mode)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = _shortcut(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.blur(self.relu(self.bn1(self.conv1(x))))
        return self.relu(self.bn2(self.conv2(y)) + self.shortcut(self.blur(x)))


class Bottleneck(nn.Module):
    """A 3×3 convolution between two of 1×1, and a shortcut."""

    expansion = 4

    def __init__(
        self, in_channels: int, channels: int, stride: int, padding_mode: PaddingMode, blur: bool
    ):
        super().__init__()
        stride, self.blur = _halving(stride, padding_mode, blur)
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv(channels, channels, 3, stride, padding_mode)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, channels * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = _shortcut(in_channels, channels * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.blur(self.relu(self.bn2(self.conv2(y))))
        return self.relu(self.bn3(self.conv3(y)) + self.shortcut(self.blur(x)))


def resnet18(
    *,
    width: int = 64,
    stem: Stem = "grid",
    padding_mode: PaddingMode = "zeros",
    blur: bool = False,
) -> ResNet:
    """:class:`ResNet` with two basic blocks in each of four stages."""
    return ResNet((2, 2, 2, 2), width=width, stem=stem, padding_mode=padding_mode, blur=blur)


def resnet50(
    *,
    width: int = 64,
    stem: Stem = "grid",
    padding_mode: PaddingMode = "zeros",
    blur: bool = False,
) -> ResNet:
    """:class:`ResNet` with 3, 4, 6 and 3 bottleneck blocks in its four stages."""
    return ResNet(
        (3, 4, 6, 3),
        width=width,
        stem=stem,
        padding_mode=padding_mode,
        bottleneck=True,
        blur=blur,
    )


def _halving(stride: int, padding_mode: PaddingMode, blur: bool) -> tuple[int, nn.Module]:
    """The stride that is left to a convolution or pool, and the blur of the stride taken off it."""
    if stride == 1 or not blur:
        return stride, nn.Identity()
    with needs("blur=True"):
        from timm.layers import BlurPool2d  # slow to import, and only blurring networks need it

    # Zhang reflects where the convolutions pad zeros. A map of one pixel has nothing to reflect,
    # and torch has no deterministic gradient of reflection on a GPU; repetition has neither fault.
    pad_mode = "replicate" if padding_mode == "zeros" else padding_mode
    return 1, BlurPool2d(filt_size=3, stride=stride, pad_mode=pad_mode)


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """Projects where a block changes the channels; only such blocks have a stride."""
    if in_channels == out_channels:
        return nn.Sequential()
    projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
    return nn.Sequential(projection, nn.BatchNorm2d(out_channels))


def _conv(
    in_channels: int, channels: int, kernel: int, stride: int, padding_mode: PaddingMode
) -> nn.Conv2d:
    return nn.Conv2d(
        in_channels,
        channels,
        kernel,
        stride,
        padding=kernel // 2,
        bias=False,
        padding_mode=padding_mode,
    )
