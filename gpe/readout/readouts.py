"""What reads a cell from a layer's features: GAPNet's way, PermuteNet's, and the control."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpe.errors import InputError, expect_one_of
from gpe.models import PermuteNet

Kind = Literal["gapnet", "permutenet", "fixed"]
READOUTS: tuple[Kind, ...] = get_args(Kind)


class Readout(nn.Module):
    """Features to logits. It takes feature maps, or what is left of them after pooling.

    Features are shifted and scaled by constants before. For ``"gapnet"`` and ``"fixed"`` these
    are each channel's own, which changes nothing of what the readout can express, since a
    convolution absorbs them; Adam gets there sooner. For ``"permutenet"`` one pair of numbers is
    shared by all channels: their own would tell it apart from the paper's.

    Attributes:
        head: a 1×1 convolution, or a :class:`PermuteNet` without a backbone.
        shift, scale: ``[C]`` or ``[1]``.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, head: nn.Module, shift: Tensor, scale: Tensor):
        super().__init__()
        self.head = head
        self.register_buffer("shift", shift)
        self.register_buffer("scale", scale)

    def forward(self, features: Tensor) -> Tensor:
        """Features ``[N,C,H,W]``, or pooled ``[N,C]``, to logits ``[N,K]``."""
        if features.dim() == 2 and isinstance(self.head, nn.Conv2d):
            features = (features - self.shift) / self.scale
            return F.linear(features, self.head.weight.flatten(1), self.head.bias)
        if features.dim() == 2:
            features = features[:, :, None, None]
        features = (features - self.shift.view(1, -1, 1, 1)) / self.scale.view(1, -1, 1, 1)
        logits = self.head(features)
        # Equation S1: convolution, then pooling. PermuteNet pools by itself.
        return logits.mean((2, 3)) if logits.dim() == 4 else logits


def build_readout(kind: Kind, latents: Tensor, num_classes: int, *, seed: int = 0) -> Readout:
    """A readout that is to be trained on ``latents``.

    Args:
        kind: ``"gapnet"``: a 1×1 convolution, then global average pooling (Equation S1);
            ``"permutenet"``: pooling, a permutation of the channels that is drawn anew each time,
            in evaluation too, then a linear layer; ``"fixed"``: the same permutation every time,
            a control.
        latents: pooled ``[P,C]``, to be trained on: they tell shift and scale.
        num_classes: cells of the grid.
        seed: of weights and permutations.

    Raises:
        InputError: an unknown kind, or latents that are no such vectors or not finite.

    Example:
        >>> build_readout("permutenet", torch.rand(100, 16), 9)(torch.rand(2, 16)).shape
        torch.Size([2, 9])
    """
    expect_one_of("kind", kind, READOUTS)
    if latents.dim() != 2 or latents.numel() == 0 or not latents.is_floating_point():
        came = f"{latents.dtype} {list(latents.shape)}"
        raise InputError(f"latents: expected floating [P,C] of one or more, got {came}")
    if not latents.isfinite().all():
        raise InputError("latents: expected finite numbers, got NaN or infinity")
    channels = latents.shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head: nn.Module
        if kind == "gapnet":
            head = nn.Conv2d(channels, num_classes, 1)
        else:
            head = PermuteNet(
                nn.Identity(),
                num_classes,
                channels=channels,
                permutation="fixed" if kind == "fixed" else "random",
                generator=torch.Generator().manual_seed(seed),
            )
    values = latents.double()
    if kind == "permutenet":
        values = values.reshape(-1, 1)
    shift, scale = values.mean(0), values.std(0, correction=0)
    # Of a channel that never changes nothing can be read, but it may come back as rounding errors.
    scale = scale.where(scale > 1e-6 * values.abs().amax(0), 1.0)
    return Readout(head, shift.float(), scale.float())
