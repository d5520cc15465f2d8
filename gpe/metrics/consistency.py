"""Shift consistency: is the predicted class the same wherever the image moves (Table 2)?

Two views of an image are cut by windows that are displaced independently of each other, each
uniformly by up to m pixels in each axis. The consistency is the share of such pairs for which a
network predicts the same class (Zhang, "Making convolutional networks shift-invariant again",
ICML 2019).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from gpe.errors import InputError, expect_integer
from gpe.metrics.collection import add_settings, next_indices
from gpe.metrics.evaluating import evaluating
from gpe.metrics.views import ShiftProtocol, Views
from gpe.statistics import wilson_interval


class Consistency(NamedTuple):
    """What :func:`shift_consistency` finds.

    Attributes:
        consistency: share in [0, 1] of pairs of views with the same predicted class.
        interval: its 95 % confidence interval, (low, high), for other images like these.
        pairs: images times passes.
        accuracy: share in [0, 1] of right predictions, over both views of all pairs; None where
            no target was given.
    """

    consistency: float
    interval: tuple[float, float]
    pairs: int
    accuracy: float | None


def shift_consistency(
    model: Callable[[Tensor], Tensor],
    images: Tensor,  # [N,C,H,W]
    target: Tensor | None = None,  # [N]
    *,
    max_shift: int,
    protocol: ShiftProtocol,
    passes: int = 1,
    seed: int = 0,
    batch_size: int = 256,
    size: int | tuple[int, int] | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format = torch.contiguous_format,
    indices: Tensor | None = None,  # [N]
) -> Consistency:
    """The share of images whose predicted class is the same under two random shifts.

    A view is a window of ``size`` around the image's centre, displaced in each axis by a shift
    uniform over the integers from ``-max_shift`` to ``max_shift``. The shifts of an image are a
    function of ``seed``, the pass and its index alone: the batch size, the order and the number
    of processes change nothing but the rounding of the logits. The model runs in evaluation
    mode, both views in one batch, and is left in the mode it was in.

    Args:
        model: maps ``[n,C,h,w]`` to logits ``[n,K]``; on the device of ``images``.
        images: uint8.
        target: int64, class indices; None leaves the accuracy out.
        max_shift: in pixels, 0 or more.
        protocol: what a view shows beyond the image. ``"crop"``: nothing, all views lie within
            the image, which has a border of ``max_shift`` or more around the window (Zhang's);
            ``"zeros"``: black pixels, as :func:`gpe.dual_crop` pads; ``"reflect"``: the mirrored
            image; ``"circular"``: its opposite side.
        passes: pairs of views of each image.
        seed: of the shifts, 0 or more.
        batch_size: images at a time; the model gets twice as many views.
        size: of the views, in pixels, one number or (height, width). If None, that of the images,
            less ``max_shift`` on each side for ``"crop"``; then the views of another
            ``max_shift`` have another size: to compare shifts, give one size for all.
        mean, std, dtype, memory_format: as in :func:`gpe.dual_crop`.
        indices: int64, the index of each image in the set that it is a part of; 0 to N-1 if None.

    Returns:
        A :class:`Consistency`.

    Raises:
        InputError: an unknown protocol; a number out of range; a shift larger than the border
            (``"crop"``) or than what can be mirrored or wrapped around; tensors of another dtype,
            shape or device; no images; a model that yields no logits, or NaN.

    Example:
        >>> images = torch.arange(2 * 3 * 16 * 16).view(2, 3, 16, 16).to(torch.uint8)
        >>> brightest = lambda views: views.amax((2, 3))  # does not change as the image wraps
        >>> wrapped = {"max_shift": 4, "protocol": "circular"}
        >>> result = shift_consistency(brightest, images, passes=5, **wrapped)
        >>> result.consistency, result.pairs
        (1.0, 10)
    """
    views = Views(max_shift, protocol, passes, seed, size, mean, std, dtype, memory_format)
    batch_size = expect_integer("batch_size", batch_size, 1)
    _check(images, target, indices)
    if indices is None:
        indices = torch.arange(len(images))
    counts = torch.zeros(len(_Counts._fields), dtype=torch.int64)
    for start in range(0, len(images), batch_size):
        cut = slice(start, start + batch_size)
        labels = None if target is None else target[cut]
        counts += _count(model, images[cut], labels, indices[cut], views)
    return _consistency(counts, passes)


class ShiftConsistency(Metric):
    """:func:`shift_consistency` over batches and processes, exact on any number of them.

    ``update(model, images, target=None, *, indices=None)`` takes a batch, which goes through the
    model whole; ``compute()`` returns a :class:`Consistency`. The states are integer sums.

    ``indices`` are the images' in their set, and are needed where there are several processes:
    only with them does every image get the shifts that it gets in one process. Where they are
    None, images are numbered in the order in which they come. A sampler that repeats images to
    fill up the last batches, as torch's DistributedSampler does, counts them twice.

    Args:
        max_shift: this and all others as in :func:`shift_consistency`.

    Raises:
        InputError: as :func:`shift_consistency`; in ``update``, no indices among several
            processes; in ``compute``, no images.

    Example:
        >>> import gpe
        >>> metric = gpe.ShiftConsistency(max_shift=2, protocol="crop", passes=3)
        >>> images = torch.arange(8 * 3 * 8 * 8).view(8, 3, 8, 8).to(torch.uint8)
        >>> for batch in images.split(4):
        ...     metric.update(lambda views: views[:, :, 0, 0], batch, torch.zeros(4).long())
        >>> metric.compute().pairs
        24
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    counts: Tensor

    def __init__(
        self,
        *,
        max_shift: int,
        protocol: ShiftProtocol,
        passes: int = 1,
        seed: int = 0,
        size: int | tuple[int, int] | None = None,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        dtype: torch.dtype | None = None,
        memory_format: torch.memory_format = torch.contiguous_format,
    ):
        super().__init__()
        self._views = Views(
            max_shift, protocol, passes, seed, size, mean, std, dtype, memory_format
        )
        zeros = torch.zeros(len(_Counts._fields), dtype=torch.int64)
        self.add_state("counts", zeros, dist_reduce_fx="sum")
        add_settings(self, self._views)

    def forward(
        self,
        model: Callable[[Tensor], Tensor],
        images: Tensor,
        target: Tensor | None = None,
        *,
        indices: Tensor | None = None,
    ) -> Consistency:
        """Adds a batch, and returns the consistency of this batch alone."""
        # torchmetrics sets the states back before this batch: the images are numbered here.
        indices = self._next_indices(images) if indices is None else indices
        return super().forward(model, images, target, indices=indices)

    def update(
        self,
        model: Callable[[Tensor], Tensor],
        images: Tensor,  # [N,C,H,W]
        target: Tensor | None = None,  # [N]
        *,
        indices: Tensor | None = None,  # [N]
    ) -> None:
        """Adds a batch."""
        _check(images, target, indices)
        indices = self._next_indices(images) if indices is None else indices
        counts = _count(model, images, target, indices, self._views)
        self.counts += counts.to(self.counts.device)

    def compute(self) -> Consistency:
        """The consistency of all batches, of all processes."""
        return _consistency(self.counts, self._views.passes)

    def _next_indices(self, images: Tensor) -> Tensor:
        seen = int(self.counts[_Counts._fields.index("images")])
        return next_indices(seen, len(images), "the shifts")


class _Counts(NamedTuple):
    """What is added up over images; ``a`` is the number of passes in which a pair agrees."""

    images: int
    agreements: int  # sum of a
    squares: int  # sum of a²
    labelled: int  # images that came with a target
    hits: int  # right predictions in all views of these


def _count(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    target: Tensor | None,
    indices: Tensor,
    views: Views,
) -> Tensor:  # [5]
    """The :class:`_Counts` of one batch, on the CPU."""
    agreements = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    hits = torch.zeros((), dtype=torch.int64, device=images.device)
    with evaluating(model):
        for number in range(views.passes):
            pairs = views.cut(images, indices, number)
            classes = _classes(model(pairs.flatten(0, 1)), 2 * len(images), target).view(2, -1)
            agreements += classes[0] == classes[1]
            if target is not None:
                hits += (classes == target).sum()
    return torch.tensor(
        _Counts(
            images=len(images),
            agreements=int(agreements.sum()),
            squares=int(agreements.square().sum()),
            labelled=0 if target is None else len(images),
            hits=int(hits),
        )
    )


def _classes(logits: Tensor, count: int, target: Tensor | None) -> Tensor:
    """The predicted class of each view, ``[count]``."""
    shape = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != count:
        raise InputError(f"model: expected logits [{count},K], got {shape}")
    if logits.shape[1] < 2:
        raise InputError(f"model: expected logits of 2 or more classes, got {shape}")
    # NaN counts as the largest: a network that yields nothing else would be called consistent.
    if logits.isnan().any():
        raise InputError(f"model: expected numbers, got NaN among the logits {shape}")
    last = logits.shape[1] - 1
    if target is not None and not 0 <= target.min() <= target.max() <= last:
        raise InputError(
            f"target: expected classes from 0 to {last}, got {target.min()} to {target.max()}"
        )
    return logits.argmax(1)


def _consistency(counts: Tensor, passes: int) -> Consistency:
    n, agreements, squares, labelled, hits = counts.tolist()
    if n == 0:
        raise InputError("images: expected one or more, got none")
    pairs = n * passes
    accuracy = hits / (2 * passes * labelled) if labelled else None

    # The passes of one image are not independent of each other. The effective sample size is
    # p(1-p) / (s²/n), s² the variance over images of the share a / passes (Korn & Graubard,
    # "Confidence intervals for proportions with small expected number of positive counts
    # estimated from survey data", Survey Methodology 24, 1998); for one pass that is n.
    binomial = agreements * (pairs - agreements)  # p(1-p), times pairs²
    variance = n * squares - agreements**2  # s², times pairs²
    effective = n  # of no use to the formula where no pair agrees, or all do
    if binomial:
        effective = min(pairs, n * binomial / variance) if variance else pairs
    share = agreements / pairs
    return Consistency(share, wilson_interval(share, effective), pairs, accuracy)


def _check(images: Tensor, target: Tensor | None, indices: Tensor | None) -> None:
    if images.dtype != torch.uint8 or images.dim() != 4 or images.numel() == 0:
        raise InputError(
            f"images: expected {torch.uint8} [N,C,H,W] with pixels, "
            f"got {images.dtype} {list(images.shape)}"
        )
    for name, tensor in (("target", target), ("indices", indices)):
        if tensor is not None and (tensor.dtype != torch.int64 or tensor.shape != images.shape[:1]):
            raise InputError(
                f"{name}: expected {torch.int64} [{len(images)}], one for each image, "
                f"got {tensor.dtype} {list(tensor.shape)}"
            )
    if target is not None and target.device != images.device:
        raise InputError(
            f"target: expected the device of images, {images.device}, got {target.device}"
        )
