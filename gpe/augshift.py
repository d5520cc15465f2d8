"""The AugShift loss: two crops of an image must pool to the same vector (paper, Equation 1)."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from gpe.errors import InputError, expect_bool, expect_number, shown
from gpe.ops.checks import FLOATS, asserted, expect_device, expect_tensor, has_values
from gpe.ops.gap_mse import pool_both


class AugShiftTerms(NamedTuple):
    """What :func:`fused_augshift_loss` returns: scalars, float32 or wider, and logits."""

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
    all_processes: bool = False,
) -> AugShiftTerms:
    """``ℓ1 + ℓ2 + λ·MSE``: both crops name the class, and pool to the same latents.

    ``ℓ1`` and ``ℓ2`` are the cross entropies of the two crops, and the MSE is the mean over N
    and C of the squared difference between their latents. The features are read once, and
    their gradient is one number an image and channel, expanded: nothing of the features' size
    is written for the loss, but right after a batch norm on the CPU (:func:`gpe.gap_mse`).

    Under ``DistributedDataParallel`` call this in the forward of the wrapped module: a ``head``
    that is called outside may have gradients that are not averaged over the processes.

    Args:
        features_a: of the first crops, floating ``[N,C,H,W]``; or latents ``[N,C]``, where
            the network pools by itself.
        features_b: of the second crops, likewise. None where ``features_a`` holds both,
            the first crops and then the second, ``[2N,…]``. Where both went through the
            network as one batch this is the way: taking halves makes autograd put them
            together again, and so costs two copies.
        head: from latents ``[2N,C]`` to logits ``[2N,K]``, a module or a function. Called once,
            on the latents of both crops.
        target: of the images, int64 ``[N]``, or probabilities, floating ``[N,K]``.
        weight: λ, at least 0 and finite.
        label_smoothing: of both cross entropies, in [0, 1].
        relative: divide the MSE of the loss by the variance of the latents over the batch, as a
            mean over C. Then λ means the same whatever their scale, and nothing is gained by
            making all latents smaller, which is the cheapest way to a small MSE. Not in the
            paper.
        all_processes: take that variance over the batches of all processes of
            :mod:`torch.distributed`, which then all have to call this.

    Returns:
        :class:`AugShiftTerms`; the logits of both crops, for a tally of hits, among them.

    Raises:
        InputError: features of different shapes, not of floating point or, where that can be
            seen at no cost (eager, on the CPU), with NaN; a ``head`` that yields something
            else; a target of another shape, dtype or device or, eager on the CPU, outside the
            classes (else that is an assertion of the device; no index is left out, not even
            the -100 that torch ignores); a ``weight`` or a ``label_smoothing`` out of range.

    Source:
        Equation 1.

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
    weight, label_smoothing = _check_numbers(weight, label_smoothing)
    relative = expect_bool("relative", relative)
    all_processes = expect_bool("all_processes", all_processes)
    if not callable(head):
        raise InputError(f"head: expected a module or a function, got {shown(head)}")
    # Latents are feature maps of one place.
    pooled, mse = pool_both(_maps(features_a), None if features_b is None else _maps(features_b))
    latents = pooled.flatten(0, 1)
    logits = head(latents)
    target = _checked_target(logits, target, pooled.shape[1])
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    # By default the index -100 would count as no image; now none does.
    nothing = torch.iinfo(torch.int64).min
    cross_entropy_a, cross_entropy_b = (
        F.cross_entropy(half, target, ignore_index=nothing, label_smoothing=label_smoothing)
        for half in wide.tensor_split(2)
    )
    distance = mse / _variance(latents, all_processes) if relative else mse
    loss = cross_entropy_a + cross_entropy_b + weight * distance  # Equation 1
    logits_a, logits_b = logits.tensor_split(2)
    return AugShiftTerms(loss, logits_a, logits_b, cross_entropy_a, cross_entropy_b, mse)


class AugShiftLoss(nn.Module):
    """:func:`fused_augshift_loss` as a module, which keeps its options and has no parameters.

    Args:
        weight: λ, at least 0 and finite.
        label_smoothing: of both cross entropies, in [0, 1].
        relative: divide the MSE of the loss by the variance of the latents.
        all_processes: take that variance over the batches of all processes.

    Raises:
        InputError: a ``weight`` or ``label_smoothing`` out of range; when called, as the function.

    Example:
        >>> import torch, gpe
        >>> criterion = gpe.AugShiftLoss(weight=2.0)
        >>> features, head = torch.rand(2 * 4, 64, 7, 7), torch.nn.Linear(64, 10)
        >>> terms = criterion(features, None, head, torch.arange(4))
        >>> torch.equal(terms.loss, terms.cross_entropy_a + terms.cross_entropy_b + 2 * terms.mse)
        True
        >>> criterion
        AugShiftLoss(weight=2.0, label_smoothing=0.0, relative=False, all_processes=False)
    """

    def __init__(
        self,
        *,
        weight: float = 1.0,
        label_smoothing: float = 0.0,
        relative: bool = False,
        all_processes: bool = False,
    ) -> None:
        super().__init__()
        self.weight, self.label_smoothing = _check_numbers(weight, label_smoothing)
        self.relative = expect_bool("relative", relative)
        self.all_processes = expect_bool("all_processes", all_processes)

    def forward(
        self,
        features_a: Tensor,  # [N,C,H,W] or [N,C]; both crops, [2N,…], where features_b is None
        features_b: Tensor | None,
        head: Callable[[Tensor], Tensor],
        target: Tensor,  # [N] or [N,K]
    ) -> AugShiftTerms:
        """The loss and its terms, of :func:`fused_augshift_loss`."""
        return fused_augshift_loss(
            features_a,
            features_b,
            head,
            target,
            weight=self.weight,
            label_smoothing=self.label_smoothing,
            relative=self.relative,
            all_processes=self.all_processes,
        )

    def extra_repr(self) -> str:
        options = ("weight", "label_smoothing", "relative", "all_processes")
        return ", ".join(f"{name}={getattr(self, name)}" for name in options)


def _maps(features: Tensor) -> Tensor:
    pooled = isinstance(features, Tensor) and not features.is_nested
    pooled = pooled and features.layout == torch.strided and features.dim() == 2
    return features[:, :, None, None] if pooled else features


def _check_numbers(weight: float, label_smoothing: float) -> tuple[float, float]:
    smoothing = expect_number("label_smoothing", label_smoothing)
    if not 0 <= smoothing <= 1:
        raise InputError(f"label_smoothing: expected 0 to 1, got {label_smoothing}")
    return expect_number("weight", weight, least=0), smoothing


def _variance(latents: Tensor, all_processes: bool) -> Tensor:
    """Over the latents of all crops, as a mean over channels; never 0."""
    wide = latents.to(torch.promote_types(latents.dtype, torch.float32))
    several = all_processes and distributed.is_available() and distributed.is_initialized()
    variance = _variance_of_all(wide) if several else wide.var(0, correction=0)
    return variance.mean() + torch.finfo(wide.dtype).eps ** 2


def _variance_of_all(latents: Tensor) -> Tensor:
    """Over the latents of all processes, for each channel."""
    from torch.distributed.nn.functional import all_reduce

    count = all_reduce(latents.new_tensor(float(len(latents))))
    centred = latents - all_reduce(latents.sum(0)) / count
    return all_reduce(centred.square().sum(0)) / count


def _checked_target(logits: Tensor, target: Tensor, count: int) -> Tensor:
    """``target``, after what would otherwise be an error from within."""
    shape = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != 2 * count:
        raise InputError(f"head: expected to yield logits [{2 * count},K], got {shape}")
    classes = logits.shape[1]
    expected = f"{torch.int64} [{count}], or probabilities [{count},{classes}]"
    expect_tensor("target", target, (torch.int64, *FLOATS), expected)
    is_index = target.dtype == torch.int64 and target.shape == (count,)
    is_probability = target.is_floating_point() and target.shape == (count, classes)
    if not (is_index or is_probability):
        raise InputError(f"target: expected {expected}, got {target.dtype} {list(target.shape)}")
    expect_device("target", target, "the logits", logits)
    if not is_index:
        return target
    inside = (target >= 0) & (target < classes)
    within = f"target: expected classes from 0 to {classes - 1}"
    if torch.compiler.is_compiling():
        return asserted(target, inside, within)
    if has_values(target) and not inside.all():
        where = int(inside.logical_not().nonzero()[0])
        raise InputError(f"{within}, got {int(target[where])} at index {where}")
    return target
