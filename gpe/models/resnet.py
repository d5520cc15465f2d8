"""ResNet-18 as the paper's location networks use it (He et al. 2016; paper, section 3)."""

from collections.abc import Sequence
from typing import Literal, get_args

from torch import Tensor, nn

from gpe.errors import expect_at_least_one, expect_one_of

Stem = Literal["grid", "cifar", "imagenet"]
PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]


class ResNet(nn.Module):
    """The convolutional part of a ResNet of basic blocks: images in, feature map out.

    Args:
        depths: blocks in each of the stages.
        width: channels of the first stage; each later stage has twice as many.
        stem: ``"grid"`` (7×7 stride 2, no max-pool: the paper's location networks),
            ``"cifar"`` (3×3 stride 1) or ``"imagenet"`` (7×7 stride 2, then max-pool).
        padding_mode: of every padded convolution, as in :class:`torch.nn.Conv2d`.

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
    ):
        super().__init__()
        expect_one_of("stem", stem, get_args(Stem))
        expect_one_of("padding_mode", padding_mode, get_args(PaddingMode))
        expect_at_least_one("width", width)

        kernel, stride = (3, 1) if stem == "cifar" else (7, 2)
        self.conv1 = _conv(3, width, kernel, stride, padding_mode)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1) if stem == "imagenet" else nn.Identity()

        self.num_features = width
        for stage, depth in enumerate(depths):
            blocks, channels = [], width * 2**stage
            for block in range(depth):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(BasicBlock(self.num_features, channels, stride, padding_mode))
                self.num_features = channels
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

    def __init__(self, in_channels: int, channels: int, stride: int, padding_mode: PaddingMode):
        super().__init__()
        self.conv1 = _conv(in_channels, channels, 3, stride, padding_mode)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv(channels, channels, 3, 1, padding_mode)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False),
                nn.BatchNorm2d(channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def resnet18(
    *, width: int = 64, stem: Stem = "grid", padding_mode: PaddingMode = "zeros"
) -> ResNet:
    """:class:`ResNet` with two blocks in each of four stages."""
    return ResNet((2, 2, 2, 2), width=width, stem=stem, padding_mode=padding_mode)


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
