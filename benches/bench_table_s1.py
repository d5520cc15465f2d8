"""A whole row set of Table S1 for an image, per detector: what is removed from one latent.

Nothing removed; at the table's count, 1 targeted and 10 random orders; along the curve, 8 counts of
the targeted order: 20 detections of an image. The rivals run the whole network for each, with
channels zeroed by a hook; and keep the latent, but run the whole heads. They would take minutes:
some of the points are timed, as many as each name says, and scaled to all.

Ours is with the image's latent; the ranking, two passes of the backbone, is no part of either.
"""

from collections.abc import Iterator
from functools import partial
from itertools import islice

import torch
from torch import Tensor

from benches.harness import OURS, Race, copy_bandwidth, milliseconds, peak_memory
from gpe.ablation import random_orders
from gpe.ablation.detection import detections_without
from gpe.models.detection import Detector, csp
from gpe.models.detection.detector import Found
from gpe.models.detection.two_stage import cascade_rcnn, faster_rcnn
from gpe.ops.mask_channels import mask_channels

DETECTORS = {"CSP": csp, "Faster R-CNN": faster_rcnn, "Cascade R-CNN": cascade_rcnn}
COUNT, RANDOM, CURVE = 100, 10, 8  # removed in the table; its random orders; counts of the curve
ROUNDS, TIMED = 3, 2


def races(device: str) -> Iterator[partial[Race]]:
    """On the CPU 512×1024 pixels, on a GPU 1024×2048; networks of full width in float32."""
    for name in DETECTORS:
        yield partial(race_of, name, device, (1024, 2048) if device == "cuda" else (512, 1024))


def race_of(name: str, device: str, size: tuple[int, int], **widths: int) -> Race:
    """Of one detector; ``widths`` make a narrower one, of which the same share is removed."""
    torch.manual_seed(0)
    model: Detector = DETECTORS[name](**widths).to(device).eval()
    image = torch.randn(1, 3, *size, device=device)
    channels = model.first()[0][0].in_channels
    count = round(COUNT * channels / (768 if name == "CSP" else 256))
    orders = random_orders(channels, 1 + RANDOM)
    curve = [channels * part // (CURVE + 1) for part in range(1, CURVE + 1)]
    targeted, *random = orders
    points = [("", 0), *((order, count) for order in orders), *((targeted, n) for n in curve)]
    # One of the table, and one from the middle of the curve.
    timed = [points[1], points[len(orders) + CURVE // 2]][:TIMED]

    @torch.no_grad()
    def ours() -> dict[tuple[str, int], Found]:
        latent = model.latent(image)
        found = {
            (order, n): boxes
            for order, n, boxes in detections_without(
                model, latent, size, {targeted: orders[targeted]}, sorted({count, *curve})
            )
        }
        others = {order: orders[order] for order in random}
        rest = detections_without(model, latent, size, others, [count])
        return found | {(order, n): boxes for order, n, boxes in islice(rest, 1, None)}

    @torch.no_grad()
    def whole() -> list[Found]:
        found = []
        for order, n in timed:
            removed = orders[order][:n].to(device)
            hook = model.get_submodule("neck").register_forward_hook(
                lambda _, __, output, removed=removed: _masked(output, removed)
            )
            found.append(model.detect(model.latent(image), size))
            hook.remove()
        return found

    with torch.no_grad():
        latent = model.latent(image)

    @torch.no_grad()
    def kept() -> list[Found]:
        return [
            model.detect(_masked(latent, orders[order][:n].to(device)), size) for order, n in timed
        ]

    found = ours()
    for (order, n), one, other in zip(timed, whole(), kept(), strict=True):
        for boxes in (one[0], other[0]):
            torch.testing.assert_close(found[order, n][0]["scores"], boxes["scores"], rtol=1e-3,
                                       atol=1e-4)  # fmt: skip
    scale = len(points) / len(timed)
    contestants = {
        OURS: (ours, 1.0),
        f"the whole network, {len(timed)} of {len(points)}": (whole, scale),
        f"latent kept, {len(timed)} of {len(points)}": (kept, scale),
    }
    times = {label: [] for label in contestants}
    for _ in range(ROUNDS):
        for label, (step, factor) in contestants.items():
            times[label].append(milliseconds(step, device) * factor)
    shape = "×".join(map(str, size))
    return Race(
        f"Table S1, {device}, {name} with {channels} channels, an image of {shape}",
        sum(parameter.nbytes for parameter in model.parameters()) + image.nbytes,
        times,
        copy_bandwidth(device),
        {label: peak_memory(step, device) for label, (step, _) in contestants.items()},
    )


def _masked(output: Tensor | list[Tensor], channels: Tensor) -> Tensor | list[Tensor]:
    if isinstance(output, Tensor):
        return mask_channels(output, channels)
    return [mask_channels(maps, channels) for maps in output]
