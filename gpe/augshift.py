"""The AugShift loss: two crops of an image must pool to the same vector (paper, Equation 1)."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from gpe.errors import InputError
from gpe.ops.gap_mse import gap_mse


class AugShiftLoss(NamedTuple):
    """What :func:`fused_augshift_loss` returns. All but the logits are scalars."""

    loss: Tensor
    logits_a: Tensor  # [N,K]
    logits_b: Tensor  # [N,K]
    cross_entropy_a: Tensor
    cross_entropy_b: Tensor
    mse: Tensor


def fused_augshift_loss(
    features_a: Tensor,  # [N,C,H,W] or [N,C]
    features_b: Tensor | None,
    head: Callable[[Tensor], Tensor],
    target: Tensor,  # [N] or [N,K]
    *,
    weight: float = 1.0,
    label_smoothing: float = 0.0,
    relative: bool = False,
) -> AugShiftLoss:
    """``ℓ1 + ℓ2 + λ·MSE``: both crops name the class, and pool to the same latents.

    ``ℓ1`` and ``ℓ2`` are the cross entropies of the two crops, and the MSE is the mean over N
    and C of the squared difference between their latents. The features are read once, and
    their gradient is one number an image and channel, expanded: nothing of the features' size
    is written for the loss.

    Args:
        features_a: of the first crops, floating ``[N,C,H,W]``; or latents ``[N,C]``, where
            the network pools by itself.
        features_b: of the second crops, likewise. None where ``features_a`` holds both,
            the first crops and then the second, ``[2N,…]``. Where both went through the
            network as one batch this is the way: taking halves makes autograd put them
            together again, and so costs two copies.
        head: from latents ``[M,C]`` to logits ``[M,K]``, a module or a function. Called once,
            on the latents of both crops, M = 2N.
        target: of the images, int64 ``[N]``, or probabilities, floating ``[N,K]``.
        weight: λ, at least 0.
        label_smoothing: of both cross entropies, in [0, 1].
        relative: divide the MSE of the loss by the variance of the latents over the batch, as a
            mean over C. Then λ means the same whatever their scale, and nothing is gained by
            making all latents smaller, which is the cheapest way to a small MSE. Not in the
            paper.

    Returns:
        :class:`AugShiftLoss`; the logits of both crops, for a tally of hits, among them.

    Raises:
        InputError: features of different shapes, not of floating point or, where that can be
            seen at no cost (eager, on the CPU), with NaN; a target of another shape or, on
            the CPU, outside the classes (on a GPU that is a device-side assertion); a
            ``weight`` below 0; a ``label_smoothing`` outside [0, 1].

    Example:
        >>> import torch, gpe
        >>> backbone, head = gpe.resnet18(width=8, stem="cifar"), torch.nn.Linear(64, 10)
        >>> crops = torch.rand(2 * 4, 3, 32, 32)  # the first of each image, then the second
        >>> target = torch.arange(4)
        >>> result = gpe.fused_augshift_loss(backbone(crops), None, head, target, weight=1.0)
        >>> result.loss.backward()
        >>> result.logits_a.shape
        torch.Size([4, 10])
    """
    if not weight >= 0:
        raise InputError(f"weight: expected at least 0, got {weight}")
    if not 0 <= label_smoothing <= 1:
        raise InputError(f"label_smoothing: expected 0 to 1, got {label_smoothing}")
    count = len(features_a) // (2 if features_b is None else 1)
    if target.dim() not in (1, 2) or len(target) != count:
        raise InputError(
            f"target: expected [{count}] classes or [{count},K] probabilities, "
            f"got {list(target.shape)}"
        )
    # Latents are feature maps of one place.
    maps = [
        features[:, :, None, None] if features is not None and features.dim() == 2 else features
        for features in (features_a, features_b)
    ]
    z_a, z_b, mse = gap_mse(*maps)
    logits_a, logits_b = head(torch.cat([z_a, z_b])).chunk(2)
    _check_classes(target, logits_a)
    cross_entropies = [
        F.cross_entropy(logits, target, label_smoothing=label_smoothing)
        for logits in (logits_a, logits_b)
    ]
    distance = mse / (_variance(z_a, z_b) + 1e-12) if relative else mse
    loss = sum(cross_entropies) + weight * distance  # Equation 1
    return AugShiftLoss(loss, logits_a, logits_b, *cross_entropies, mse)


def _variance(z_a: Tensor, z_b: Tensor) -> Tensor:
    """Over the latents of both crops, as a mean over channels."""
    dtype = torch.promote_types(z_a.dtype, torch.float32)
    return torch.cat([z_a, z_b]).to(dtype).var(0, correction=0).mean()


def _check_classes(target: Tensor, logits: Tensor) -> None:
    if logits.dim() != 2:
        raise InputError(f"head: expected logits [N,K], got {list(logits.shape)}")
    classes = logits.shape[1]
    if target.dim() == 2:
        if target.shape[1] != classes or not target.is_floating_point():
            raise InputError(
                f"target: expected probabilities of {classes} classes, "
                f"got {target.dtype} {list(target.shape)}"
            )
    elif target.dtype != torch.int64:
        raise InputError(f"target: expected torch.int64, got {target.dtype}")
    elif not (target.is_cuda or torch.compiler.is_compiling()):
        outside = (target < 0) | (target >= classes)
        if outside.any():
            where = int(outside.nonzero()[0])
            raise InputError(
                f"target: expected classes from 0 to {classes - 1}, "
                f"got {int(target[where])} at index {where}"
            )
