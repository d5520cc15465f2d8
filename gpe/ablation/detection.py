"""What a detector finds without some channels of its latent, from the latent alone."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor

from gpe.ablation.incremental import without_spans
from gpe.ablation.linear import LinearMap
from gpe.models.detection.detector import Detector, Found
from gpe.ops.mask_channels import mask_channels


@torch.no_grad()
def detections_without(
    detector: Detector,
    latent: list[Tensor],
    size: tuple[int, int],
    orders: Mapping[str, Tensor],
    counts: Iterable[int],
    *,
    least_score: float | None = None,
) -> Iterator[tuple[str, int, Found]]:
    """Boxes without the first channels of each order; neither backbone nor neck runs.

    The convolutions that read the latent are linear in its channels: of each order only those
    removed are convolved, once for all counts, and taken from the whole
    (:func:`gpe.ablation.incremental.without_spans`).

    Args:
        detector: in evaluation mode.
        latent: of :meth:`Detector.latent`, of a batch of images.
        size: height and width of the images, in pixels.
        orders: name to the channels, int64 ``[C]``, the first removed first.
        counts: how many to remove, 1 or more; nothing removed comes with the name ``""`` and 0.
        least_score: as of :meth:`Detector.detect`.

    Yields:
        Name of the order, count, and the boxes of the batch.

    Source:
        Table S1.

    Example:
        >>> from gpe.models.detection import csp
        >>> net = csp("resnet18", width=8, neck_width=4, head_width=8).eval()
        >>> latent = net.latent(torch.zeros(2, 3, 128, 128))
        >>> orders = {"as they come": torch.arange(12)}
        >>> found = detections_without(net, latent, (128, 128), orders, [2, 5])
        >>> sorted((count, len(boxes)) for _, count, boxes in found)
        [(0, 2), (2, 2), (5, 2)]
    """
    inputs = [
        (LinearMap("", place, partial(conv._conv_forward, bias=None), conv.weight, conv.bias), maps)
        for conv, place in detector.first()
        for maps in [latent[place]]
    ]
    whole = [linear.whole(maps) for linear, maps in inputs]
    yield "", 0, detector.detect(latent, size, whole, least_score=least_score)
    for name, order in orders.items():
        order = order.to(latent[0].device)
        width = len(order)
        # As ranges at the end of the order turned round, of which no more than they hold is read.
        spans = {count: (width - count, width) for count in counts}
        for count, mixed in without_spans(inputs, whole, order.flip(0), spans):
            masked = [mask_channels(maps, order[:count]) for maps in latent]
            mixed = [part.to(maps.dtype) for part, maps in zip(mixed, whole, strict=True)]
            yield name, count, detector.detect(masked, size, mixed, least_score=least_score)
