"""What a detector finds without some channels of its latent, from the latent alone."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import product

import torch
from torch import Tensor

from gpe.ablation.incremental import without_spans
from gpe.ablation.linear import LinearMap
from gpe.ablation.masking import removed
from gpe.models.detection.detector import Detector, Found
from gpe.models.layout import Layout
from gpe.ops.mask_channels import mask_channels


@torch.no_grad()
def detections_without(
    detector: Detector,
    latent: list[Tensor],
    size: tuple[int, int],
    orders: Mapping[str, Tensor],
    counts: Iterable[int],
    *,
    level: int | None = None,
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
        level: the map of the latent that they are removed from; all of them where None.
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
    convolutions = [
        LinearMap("", place, partial(conv._conv_forward, bias=None), conv.weight, conv.bias)
        for conv, place in detector.first()
    ]
    whole = [conv.whole(latent[conv.source]) for conv in convolutions]
    yield "", 0, detector.detect(latent, size, whole, least_score=least_score)
    places = range(len(latent)) if level is None else (level,)
    changed = {n: conv for n, conv in enumerate(convolutions) if conv.source in places}
    inputs = [(conv, latent[conv.source]) for conv in changed.values()]
    before = [whole[n] for n in changed]
    for name, order in orders.items():
        order = order.to(latent[0].device)
        width = len(order)
        # As ranges at the end of the order turned round, of which no more than they hold is read.
        spans = {count: (width - count, width) for count in counts}
        for count, parts in without_spans(inputs, before, order.flip(0), spans):
            masked, mixed = list(latent), list(whole)
            for place in places:
                masked[place] = mask_channels(latent[place], order[:count])
            for n, part in zip(changed, parts, strict=True):
                mixed[n] = part.to(whole[n].dtype)
            yield name, count, detector.detect(masked, size, mixed, least_score=least_score)


@torch.no_grad()
def detections_without_inside(
    detector: Detector,
    images: Tensor,
    layout: Layout,
    orders: Mapping[str, Tensor],
    counts: Iterable[int],
    *,
    least_score: float | None = None,
) -> Iterator[tuple[str, int, Found]]:
    """As :func:`detections_without`, of any layer of the backbone or the neck.

    The whole network runs for each order and count.

    Args:
        detector, orders, counts, least_score: as there.
        images: a batch, normalised ``[N,3,H,W]``.
        layout: of the layer, of :func:`gpe.models.inside.layout_of`.
    """
    size = (images.shape[2], images.shape[3])
    yield "", 0, detector.detect(detector.latent(images), size, least_score=least_score)
    for name, count in product(orders, counts):
        with removed(detector, layout, orders[name][:count]):
            latent = detector.latent(images)
        yield name, count, detector.detect(latent, size, least_score=least_score)
