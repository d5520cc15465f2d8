"""Networks that tell where an image patch lies (paper, section 3 and Table 1)."""

from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from gpe.errors import InputError, expect_at_least_one, expect_one_of
from gpe.models.backbone import as_backbone, feature_map
from gpe.models.checkpoints import first_dimension, fit, printable, read_checkpoint, ready
from gpe.models.resnet import PaddingMode, resnet18

Permutation = Literal["random", "fixed", "sorted", "mean"]


class GAPNet(nn.Module):
    """Backbone, 3×3 convolution to one map a class, global average pooling; no linear layer.

    Whatever the logits tell about the location went through the pooling: it stands in
    the order of the channels.

    Args:
        backbone: yields a feature map ``[N,channels,H,W]``, or a list or dict of them, of which
            that named ``"out"`` or the last is used. A network of timm may be created in any form;
            where it has ``forward_features``, that is called in place of the network itself. A
            classifier of torchvision is cut before the pooling of its head.
        num_classes: number of logits.
        channels: of the feature map. Where None, the backbone tells them by ``num_features`` or
            timm's ``feature_info``, or is run once on black images to see them.
        padding_mode: of the 3×3 convolution, as in :class:`torch.nn.Conv2d`.

    Raises:
        InputError: unknown padding mode, no classes, or channels that are not given and cannot be
            inferred; in ``forward``, a backbone that yields no such feature map.

    Example:
        >>> net = GAPNet(resnet18(width=8), num_classes=9)
        >>> net(torch.zeros(2, 3, 96, 96)).shape
        torch.Size([2, 9])
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        *,
        channels: int | None = None,
        padding_mode: PaddingMode = "zeros",
    ):
        super().__init__()
        expect_one_of("padding_mode", padding_mode, get_args(PaddingMode))
        expect_at_least_one("num_classes", num_classes)
        self.backbone, self.channels = as_backbone(backbone, channels)
        self.classifier = nn.Conv2d(
            self.channels, num_classes, 3, padding=1, padding_mode=padding_mode
        )

    def forward(self, images: Tensor) -> Tensor:
        """Images ``[N,3,H,W]`` to logits ``[N,num_classes]``."""
        features = feature_map(self.backbone, images, self.channels)
        return self.classifier(features).mean((2, 3))


class PermuteNet(nn.Module):
    """Backbone, global average pooling, a permutation of the channels, linear layer.

    A random permutation takes from the linear layer which number came from which channel.
    All that is left is what is the same in every order, such as the sum of the numbers, so
    that one scalar has to carry the whole answer. A fixed permutation takes nothing: the
    linear layer learns it like any other order. Two more controls put a number on that: sorted by
    value, the numbers are all there, but none tells which channel it is of; and their mean is one
    number. Before the linear layer these two are normalised over the batch.

    Args:
        backbone: as in :class:`GAPNet`.
        num_classes: number of logits.
        channels: as in :class:`GAPNet`.
        permutation: ``"random"``, drawn anew in every forward pass, in evaluation too, and
            shared by the batch; ``"fixed"``, drawn once, here, and kept as a buffer; ``"sorted"``,
            by the values of each image; or ``"mean"``, one number in place of all.
        generator: on the CPU; permutations are drawn from it. None: a new one with seed 0,
            whatever the seed of ``torch.manual_seed``. Its state is part of
            ``state_dict()``, so that a resumed training draws what an uninterrupted one
            would have drawn.

    Raises:
        InputError: unknown permutation, no classes, a generator that is not on the CPU, or
            channels that are not given and cannot be inferred; in ``forward``, a backbone
            that yields no such feature map.

    Example:
        >>> net = PermuteNet(resnet18(width=8), num_classes=9).eval()
        >>> images = torch.rand(2, 3, 96, 96)
        >>> net(images).shape
        torch.Size([2, 9])
        >>> torch.equal(net(images), net(images))
        False
    """

    permutation: Tensor | None

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        *,
        channels: int | None = None,
        permutation: Permutation = "random",
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        expect_one_of("permutation", permutation, get_args(Permutation))
        expect_at_least_one("num_classes", num_classes)
        if generator is None:
            generator = torch.Generator().manual_seed(0)
        if generator.device.type != "cpu":
            raise InputError(f"generator: expected one on the CPU, got {generator.device}")
        self.backbone, self.channels = as_backbone(backbone, channels)
        self.generator = generator
        self.order = permutation
        self.register_buffer("permutation", self._draw() if permutation == "fixed" else None)
        numbers = 1 if permutation == "mean" else self.channels
        plain = permutation in ("random", "fixed")
        self.norm = nn.Identity() if plain else nn.BatchNorm1d(numbers)
        self.classifier = nn.Linear(numbers, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images ``[N,3,H,W]`` to logits ``[N,num_classes]``."""
        pooled = feature_map(self.backbone, images, self.channels).mean((2, 3))
        if self.order == "sorted":
            return self.classifier(self.norm(pooled.sort(1).values))
        if self.order == "mean":
            return self.classifier(self.norm(pooled.mean(1, keepdim=True)))
        order = self._draw() if self.permutation is None else self.permutation
        return self.classifier(pooled[:, order.to(pooled.device, non_blocking=True)])

    # Kept out of torch.compile's graphs: each call has to advance the generator.
    @torch.compiler.disable
    def _draw(self) -> Tensor:
        return torch.randperm(self.channels, generator=self.generator, device="cpu")

    def get_extra_state(self) -> Tensor:
        """State of the generator, for ``state_dict()``."""
        return self.generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Set the generator to a state from ``state_dict()``, on any device."""
        self.generator.set_state(state.cpu())


def load_location_checkpoint(
    path: str | Path, *, padding_mode: PaddingMode = "zeros"
) -> GAPNet | PermuteNet:
    """A location network that the paper's authors trained, in evaluation mode.

    Args:
        path: their file, ``{"net": state_dict, "acc": float, "epoch": int}``. Kind of
            network, width and number of classes are read from the weights.
        padding_mode: that the network was trained with; weights do not tell it.

    Returns:
        The network, on the CPU, with the outputs of theirs. The permutations of a
        PermuteNet come from its ``generator``, with seed 0.

    Raises:
        InputError: no such file, no checkpoint of theirs, one of another network, or an
            unknown padding mode.

    Example:
        >>> load_location_checkpoint("no/such/file.pth")
        Traceback (most recent call last):
        gpe.errors.InputError: path: there is no no/such/file.pth
    """
    known = "conv1.weight", "layer1.0.conv1.weight", "linear_location.weight"
    net = fit(read_checkpoint(path).weights, known)
    head = "pre_classifier" if "pre_classifier.weight" in net else "linear_location"
    if head == "pre_classifier":
        # Their GAPNet has the linear layer of their PermuteNet too, but does not use it.
        net = {name: value for name, value in net.items() if "linear_location" not in name}

    # On the meta device a network costs neither memory nor random numbers.
    with torch.device("meta"):
        width = first_dimension(net, "conv1.weight", default=64)
        num_classes = first_dimension(net, f"{head}.weight", default=9)
        backbone = resnet18(width=width, padding_mode=padding_mode)
        model: GAPNet | PermuteNet
        if head == "pre_classifier":
            model = GAPNet(backbone, num_classes, padding_mode=padding_mode)
        else:
            model = PermuteNet(backbone, num_classes)

    expected = backbone.state_dict() | model.classifier.state_dict(prefix=f"{head}.")
    whose = f"path: expected {printable(path)} to hold the authors' GAPNet or PermuteNet"
    net = ready(whose, net, expected)
    classifier = {name: net.pop(f"{head}.{name}") for name in ("weight", "bias")}
    model.classifier.load_state_dict(classifier, assign=True)
    backbone.load_state_dict(net, assign=True)
    return model.eval()
