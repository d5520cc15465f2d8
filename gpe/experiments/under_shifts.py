"""What a classifier says of images that move (paper, section 4.1, Table 2, Figure S2)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gpe.choices import ShiftProtocol
from gpe.data.listing import spread
from gpe.experiments.images import Images
from gpe.experiments.processes import share
from gpe.experiments.runs import Partial
from gpe.metrics import ShiftConsistency
from gpe.ops.dual_crop import dual_crop

Model = Callable[[Tensor], Tensor]

SHIFT_SEED = 0  # all networks are tested under the same shifts
SAMPLES = 16  # images whose probabilities are kept, shift by shift, for pictures
SAMPLE_SHIFT = 8  # pixels to either side


def consistency_rows(
    model: Model,
    images: Images,
    *,
    shifts: Sequence[int],
    passes: int,
    batch_size: int,
    labels: Callable[[Tensor], Tensor | None] = lambda labels: labels,
    partial: Partial | None = None,
    **views: Any,
) -> list[dict[str, float | None]]:
    """Shift consistency up to each of ``shifts``, in percent: the rows of a record.

    Args:
        model: from normalised images ``[N,3,h,w]`` to logits, in evaluation mode.
        images: read once for all shifts.
        shifts: in pixels.
        passes: pairs of views of each image, for each shift.
        batch_size: images at a time.
        labels: from labels of ``images`` to the model's outputs; where it yields None, accuracies
            are None.
        partial: where to continue, and to keep what is counted.
        views: the other options of :class:`gpe.ShiftConsistency`.
    """
    metrics = [
        ShiftConsistency(max_shift=shift, passes=passes, seed=SHIFT_SEED, **views)
        for shift in shifts
    ]
    done = 0
    if partial is not None and (kept := partial.load()) is not None:
        done, tensors = kept
        for place, metric in enumerate(metrics):
            metric.counts += tensors[f"counts{place}"]
    own = torch.as_tensor(share(range(len(images)))[done:], dtype=torch.int64)
    for batch in images.batches(own, batch_size):
        for metric in metrics:
            target = labels(batch.labels)
            metric.update(model, batch.images, target, indices=batch.indices)
        done += len(batch.images)
        if partial is not None:
            partial.save(done, {f"counts{n}": metric.counts for n, metric in enumerate(metrics)})
    results = [metric.compute() for metric in metrics]
    return [
        {
            "shift": shift,
            "consistency": 100 * result.consistency,
            "low": 100 * result.interval[0],
            "high": 100 * result.interval[1],
            "pairs": result.pairs,
            "accuracy": None if result.accuracy is None else 100 * result.accuracy,
        }
        for shift, result in zip(shifts, results, strict=True)
    ]


@torch.no_grad()
def probabilities_under_shifts(
    model: Model,
    images: Images,
    *,
    size: int,
    protocol: ShiftProtocol,
    batch_size: int,
    **options: Any,
) -> dict[str, Tensor]:
    """A few images, and what ``model`` says of each while it moves from left to right.

    Returns:
        ``images`` uint8 ``[K,3,h,w]``; ``labels`` int64 ``[K]``; ``shifts`` int64 ``[S]``, in
        pixels to the right; ``probabilities`` float32 ``[K,S,classes]``.
    """
    chosen = torch.tensor(spread(len(images), SAMPLES))
    batch = next(images.batches(chosen, SAMPLES))
    border = (batch.images.shape[3] - size) // 2
    reach = min(SAMPLE_SHIFT, border) if protocol == "crop" else min(SAMPLE_SHIFT, size - 1)
    shifts = torch.arange(-reach, reach + 1)
    centre = torch.tensor([(batch.images.shape[2] - size) // 2, border]) + reach
    offsets = centre - torch.stack([torch.zeros_like(shifts), shifts], 1)
    moved = dual_crop(
        batch.images,
        size,
        offsets[:, None].expand(-1, len(chosen), 2).to(batch.images.device),
        torch.zeros(len(shifts), len(chosen), dtype=torch.bool, device=batch.images.device),
        padding=reach,
        padding_mode="zeros" if protocol == "crop" else protocol,
        **options,
    )
    logits = [model(views) for views in moved.flatten(0, 1).split(batch_size)]
    probabilities = torch.cat(logits).float().softmax(1).view(*moved.shape[:2], -1)
    arrays = {
        "images": batch.images,
        "labels": batch.labels,
        "shifts": shifts,
        "probabilities": probabilities.transpose(0, 1),
    }
    return {name: array.cpu() for name, array in arrays.items()}
