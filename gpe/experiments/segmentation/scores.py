"""What a segmentation network reaches on a set: mIoU of the whole image and of its parts."""

from collections.abc import Sequence
from math import isnan
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpe.data import SegmentationSet
from gpe.data.listing import spread
from gpe.errors import InputError
from gpe.experiments.processes import share, summed
from gpe.experiments.runs import Partial
from gpe.experiments.trained import autocast
from gpe.metrics import RegionIoU
from gpe.models.deeplab import low_resolution_logits

REGIONS = ("full", "left", "centre", "right")
SAMPLES = 6  # images kept for pictures
SAMPLE_SIDE = 512  # pixels, about: pictures need no more


@torch.no_grad()
def region_scores(
    model: nn.Module,
    images: SegmentationSet,
    *,
    batch_size: int,
    precision: str = "fp32",
    partial: Partial | None = None,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Scores a network in one pass, at the full size of the images.

    Args:
        model: a DeepLabv3 or alike, in evaluation mode, on the device of ``images``.
        images: whose classes are the network's.
        batch_size: images at a time.
        precision: ``"fp32"``, or ``"bf16"`` for autocast.
        partial: where to continue, and to keep what is counted.

    Returns:
        For the result of a record: ``miou``, by region, and ``pixel_accuracy``, in percent, None
        where no pixel is labelled; ``iou``, by region a list with a percentage for each class, None
        where neither labels nor predictions have it; ``classes``; ``images``, how many.

        For its arrays: ``confusion`` int64 ``[R,K,K]``, ``palette`` uint8 ``[K,3]``, and of each
        of a few images ``image0`` uint8 ``[3,h,w]``, ``labels0`` and ``predictions0`` uint8
        ``[h,w]``, reduced to about 512 pixels.

    Raises:
        InputError: a network with another number of classes, or images that cannot be read.
    """
    device = torch.device(images.device)

    def logits(batch: Tensor) -> Tensor:
        with autocast(device, precision):
            return low_resolution_logits(model, batch)

    metric = RegionIoU(len(images.classes), regions=REGIONS).to(device)
    done = 0
    if partial is not None and (kept := partial.load()) is not None:
        done, tensors = kept
        metric.confusion += tensors["confusion"].to(device)
    for batch in images.batches(batch_size, order=share(range(len(images)))[done:]):
        found = logits(batch.images)
        if found.shape[1] != len(images.classes):
            raise InputError(
                f"checkpoint: expected a network for the {len(images.classes)} classes of "
                f"{images.name}, got one for {found.shape[1]}"
            )
        metric.update(found, batch.labels)
        done += len(batch.labels)
        if partial is not None:
            partial.save(done, {"confusion": metric.confusion})

    confusions = summed(metric.confusion)
    confusion = confusions[0]
    result = {
        "miou": {region: percent(value) for region, value in metric.compute().items()},
        "pixel_accuracy": percent(float(confusion.trace() / confusion.sum())),
        "iou": {
            region: [percent(value) for value in values.tolist()]
            for region, values in metric.class_iou().items()
        },
        "classes": list(images.classes),
        "images": len(images),
    }
    arrays = {
        "confusion": confusions.cpu(),
        "palette": torch.tensor(images.palette, dtype=torch.uint8),
    }
    for sample, index in enumerate(spread(len(images), SAMPLES)):
        image, labels = images.samples[index]
        seen = images.normalise(image[None].to(device))
        answer = answer_of(logits(seen), labels.shape)
        step = -(-max(labels.shape) // SAMPLE_SIDE)
        arrays[f"image{sample}"] = image[:, ::step, ::step]
        arrays[f"labels{sample}"] = labels[::step, ::step]
        arrays[f"predictions{sample}"] = answer[::step, ::step]
    return result, arrays


def answer_of(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Of one image: from logits ``[1,K,h,w]`` to predictions uint8 ``[H,W]`` on the CPU."""
    full = F.interpolate(logits.float(), list(size), mode="bilinear")
    return full[0].argmax(0).byte().cpu()


def percent(share: float) -> float | None:
    """None where there is nothing to have a share of."""
    return None if isnan(share) else 100 * share
