"""What a classifier answers without some of the channels before its linear layer."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpe.ablation.choice import Engines
from gpe.ablation.incremental import without_spans
from gpe.ablation.linear import LinearMap
from gpe.ablation.plan import Plan, Point, Ranges, make_plan
from gpe.ablation.result import EngineRecord
from gpe.errors import InputError
from gpe.metrics.evaluating import evaluating
from gpe.models.inside import layout_of
from gpe.models.running import eager, forward, pick_logits

AT_ONCE = 4096  # images: it bounds the memory, which is that of a few logits of each


@dataclass(frozen=True)
class ClassifierAblation:
    """Which images a classifier names rightly, for each ranking and removal.

    Attributes:
        orders: name of a ranking to its channels, int64 ``[C]``.
        points: which channels were removed: ``(ranking, removal, start, stop)``.
        right: bool ``[points,N]`` on the CPU, whether the first answer is the label.
        engine: which ran, and how near it was; None where it is the product with the head.
    """

    orders: dict[str, Tensor]
    points: list[Point]
    right: Tensor
    engine: EngineRecord | None = None

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A dict for each ranking and removal, as of ``ablation_sweep``, with ``accuracy``.

        The keys are ``ranking``, ``removal``, ``start``, ``stop`` and ``accuracy``, from 0 to 1.
        """
        accuracies = self.right.double().mean(1).tolist()
        return [
            point._asdict() | {"accuracy": accuracy}
            for point, accuracy in zip(self.points, accuracies, strict=True)
        ]


@torch.inference_mode()
def classifier_sweep(
    latents: Tensor,
    labels: Tensor,
    head: nn.Linear,
    rankings: Mapping[str, Any],
    *,
    counts: int | Iterable[int] = (),
    ranges: Ranges = (),
) -> ClassifierAblation:
    """What a classifier answers without channels of its latents, for all curves, without its trunk.

    The logits are linear in the latents z: without the channels R they are b + Σ_{c ∉ R} w_c z_c.
    Going through a ranking from its end, running sums of the products of a few channels yield the
    logits of every count for the cost of one product with all of them, and of every range for
    that of another.

    Args:
        latents: floating ``[N,C]``, of all images, such as the ``trunk`` of
            :func:`gpe.models.head.split_classifier` yields.
        labels: int64 ``[N]``.
        head: from latents to logits, on the device of the latents.
        rankings, counts, ranges: as of :func:`gpe.ablation_sweep`, which serves the other layers.

    Returns:
        A :class:`ClassifierAblation`.

    Raises:
        InputError: latents that are not finite or do not fit the head; labels that are no class
            or not one of each image; no images; rankings, counts or ranges that do not fit.

    Source:
        Section 4.2.2, for the recognition networks of section 5.

    Example:
        >>> head = nn.Linear(4, 4, bias=False)
        >>> _ = nn.init.eye_(head.weight)
        >>> images, labels = torch.eye(4), torch.arange(4)
        >>> result = classifier_sweep(images, labels, head, {"first": [3, 2, 1, 0]}, counts=2)
        >>> [(row["stop"], row["accuracy"]) for row in result.rows]  # what is left is class 0
        [(0, 1.0), (2, 0.5), (4, 0.25)]
    """
    _check(latents, labels, head)
    plan = make_plan(rankings, counts, ranges, head.in_features)
    right = torch.empty(len(plan.variants), len(latents), dtype=torch.bool)
    for start in range(0, len(latents), AT_ONCE):
        some = slice(start, start + AT_ONCE)
        for variant, logits in logits_without(latents[some], head, plan):
            right[variant, some] = (logits.argmax(1) == labels[some]).cpu()
    return ClassifierAblation(plan.orders, plan.points, right[plan.variant_of])


def answers_sweep(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor | None]],
    rankings: Mapping[str, Any],
    *,
    layer: str,
    counts: int | Iterable[int] = (),
    ranges: Ranges = (),
    channel_dim: int | None = None,
    memory: int = 2**28,
) -> ClassifierAblation:
    """What a classifier answers without channels of any of its layers, for all curves.

    Args:
        model: yields logits ``[N,K]``, as for :func:`gpe.ablation_sweep`.
        batches: images as the model takes them, and labels int64 ``[N]``; None where what the
            whole network answers is what it is to keep.
        rankings, layer, counts, ranges, channel_dim, memory: as of :func:`gpe.ablation_sweep`.

    Returns:
        A :class:`ClassifierAblation`, with the engine that ran.

    Raises:
        InputError: as :func:`gpe.ablation_sweep`, and labels of another shape.

    Example:
        >>> net = nn.Sequential(nn.Identity(), nn.Flatten())
        >>> batches = [(torch.eye(3)[..., None, None], None)]
        >>> result = answers_sweep(net, batches, {"first": range(3)}, layer="0", counts=[0, 1, 3])
        >>> [(row["stop"], round(row["accuracy"], 2)) for row in result.rows]
        [(0, 1.0), (1, 1.0), (3, 0.33)]
    """
    engines, right = None, []
    with eager(model) as network, evaluating(network), torch.inference_mode():
        for images, labels in batches:
            if engines is None:
                layout = layout_of(network, layer, images, channel_dim=channel_dim)
                plan = make_plan(rankings, counts, ranges, layout.channels)
                engines = Engines(network, layout, "auto", memory)
            engine = engines.engine(images, plan)
            if labels is None:
                labels = _answers(pick_logits(forward(network, images)))
            elif labels.shape != (len(images),):
                came = list(labels.shape)
                raise InputError(f"batches: expected labels [{len(images)}], got {came}")
            kept = torch.empty(len(plan.variants), len(images), dtype=torch.bool)
            for variant, logits in engine.run(images, plan, range(len(plan.variants))):
                kept[variant] = (_answers(logits) == labels).cpu()
            right.append(kept)
    if engines is None:
        raise InputError("batches: expected one or more images, got none")
    points = torch.cat(right, 1)[plan.variant_of]
    return ClassifierAblation(plan.orders, plan.points, points, engines.record)


def _answers(logits: object) -> Tensor:
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        came = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(f"model: expected logits [N,K], got {came}")
    return logits.argmax(1)


def logits_without(latents: Tensor, head: nn.Linear, plan: Plan) -> Iterator[tuple[int, Tensor]]:
    """The number of each variant of a plan and its logits ``[N,K]``, in any order."""
    inputs = [(LinearMap("head", 0, F.linear, head.weight, head.bias), latents)]
    whole = [F.linear(latents, head.weight, head.bias)]
    for ranking, order in plan.orders.items():
        spans = {n: point[2:] for n, point in enumerate(plan.variants) if point.ranking == ranking}
        for number, (logits,) in without_spans(inputs, whole, order.to(latents.device), spans):
            yield number, logits


def _check(latents: Tensor, labels: Tensor, head: nn.Linear) -> None:
    count, width = len(latents), head.in_features
    if latents.shape != (count, width) or not latents.is_floating_point() or count == 0:
        came = f"{latents.dtype} {list(latents.shape)}"
        raise InputError(f"latents: expected floating [N,{width}] of one image or more, got {came}")
    if not latents.isfinite().all():
        raise InputError("latents: expected finite numbers, got NaN or infinity")
    if labels.shape != (count,) or labels.dtype != torch.int64:
        came = f"{labels.dtype} {list(labels.shape)}"
        raise InputError(f"labels: expected {torch.int64} [{count}], got {came}")
    low, high = labels.min().item(), labels.max().item()
    if low < 0 or high >= head.out_features:
        raise InputError(
            f"labels: expected classes from 0 to {head.out_features - 1}, got {low} to {high}"
        )
