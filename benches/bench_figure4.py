"""The whole of Figure 4 for an image: 4 rankings × 4 regions × 21 counts and 20 ranges.

The rivals are the paper's procedure, (a), one run of the network for each point and region; (b) a
sensible eager script, one run for each point, all regions from it; and (c) a careful one that also
keeps the backbone's features. They would take minutes for an image: some of the points are timed,
as many as each name says, and scaled to all. That of (c) leaves out its one run of the backbone.

Ours is the whole call, divided by its images: with tracing the network and with holding the engine
to the plain way, both of which a sweep does once, whatever the number of images.

Another race is of the rankings alone: the paper's three, from four forward passes, beside these and
the controls, magnitude, deviation, relative and matched, from the same passes, and beside Taylor,
whose passes lead to the loss and back to the layer.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gpe
from benches.harness import OURS, Race, copy_bandwidth, milliseconds, peak_memory
from gpe.ablation import random_orders
from gpe.metrics.region_iou import NAMES, resolve_regions
from gpe.models import deeplabv3, low_resolution_logits

CLASSES, CHANNELS, STEP = 19, 2048, 100
RANKINGS = random_orders(CHANNELS, 4)
SPANS = [(0, stop) for stop in range(0, 2001, STEP)]
SPANS += [(start, start + STEP) for start in range(0, 2000, STEP)]
POINTS = len(RANKINGS) * len(SPANS)
IMAGES, ROUNDS, TIMED = 3, 5, 4


def races(device: str) -> Iterator[partial[Race]]:
    """On the CPU 256×512 pixels in float32, on a GPU 1024×2048 in bfloat16."""
    size, dtype = ((1024, 2048), torch.bfloat16) if device == "cuda" else ((256, 512), None)
    yield partial(_race, device, size, dtype or torch.float32)
    yield partial(_rankings, device, size, dtype or torch.float32)


def _race(device: str, size: tuple[int, int], dtype: torch.dtype) -> Race:
    torch.manual_seed(0)
    net = _network(size).to(device, dtype)
    image = torch.randn(1, 3, *size, device=device, dtype=dtype)
    labels = torch.randint(CLASSES, (1, *size), device=device)
    rectangles = list(resolve_regions(NAMES, *size).values())
    order = next(iter(RANKINGS.values())).to(device)
    # Spread over the curve, the untouched network among them.
    timed = SPANS[: 21 : 21 // TIMED][:TIMED]

    def ours(images: int = IMAGES) -> Tensor:
        return gpe.ablation_sweep(
            net,
            [(image, labels)] * images,
            RANKINGS,
            layer="backbone.layer4",
            counts=STEP,
            ranges=STEP,
            regions=NAMES,
            num_classes=CLASSES,
        ).confusion

    def whole_network(span: tuple[int, int]) -> Tensor:
        with gpe.ablated(net, "backbone.layer4", order[slice(*span)]):
            return net(image)["out"].argmax(1)

    @torch.inference_mode()
    def paper() -> list[Tensor]:
        of_region = [_masked(whole_network(timed[1]), labels, r) for r in rectangles]
        return [_numpy_confusion(*pair) for pair in of_region]

    @torch.inference_mode()
    def eager() -> list[list[Tensor]]:
        return [_confusions(whole_network(span), labels, rectangles) for span in timed]

    with torch.inference_mode():
        features = net.backbone(image)["out"]

    @torch.inference_mode()
    def cached() -> list[list[Tensor]]:
        found = []
        for span in timed:
            masked = features.clone()
            masked[:, order[slice(*span)]] = 0
            logits = F.interpolate(net.classifier(masked), size, mode="bilinear")
            found.append(_confusions(logits.argmax(1), labels, rectangles))
        return found

    _check(ours(1), paper(), eager(), cached(), timed, dtype)
    runs = POINTS * len(rectangles)
    contestants = {
        OURS: (ours, 1 / IMAGES),
        f"(a) the paper's, {len(rectangles)} of {runs}": (paper, POINTS),
        f"(b) eager, {TIMED} of {POINTS}": (eager, POINTS / TIMED),
        f"(c) backbone kept, {TIMED} of {POINTS}": (cached, POINTS / TIMED),
    }
    one_image = {name: step for name, (step, _) in contestants.items()} | {OURS: lambda: ours(1)}
    times = {name: [] for name in contestants}
    for _ in range(ROUNDS):
        for name, (step, scale) in contestants.items():
            times[name].append(milliseconds(step, device) * scale)
    parameters = sum(parameter.nbytes for parameter in net.parameters())
    shape = "×".join(map(str, size))
    return Race(
        f"Figure 4, {device}, DeepLabv3-ResNet-50, an image of {shape}, {dtype}",
        parameters + image.nbytes + labels.nbytes,
        times,
        copy_bandwidth(device),
        {name: peak_memory(step, device) for name, step in one_image.items()},
    )


def _rankings(device: str, size: tuple[int, int], dtype: torch.dtype) -> Race:
    torch.manual_seed(0)
    net = _network(size).to(device, dtype)
    batch = (
        torch.randn(1, 3, *size, device=device, dtype=dtype),
        torch.randint(CLASSES, (1, *size), device=device),
    )
    paper = ("overall", "kernel_flip_mirror", "kernel_flip_pair")
    controls = (*paper, "magnitude", "deviation", "relative", "matched")

    def ranked(modes: tuple[str, ...]) -> dict[str, gpe.ChannelRanking]:
        batches = [batch] * IMAGES
        return gpe.rank_channels(net, batches, layer="backbone.layer4", modes=modes)

    for mode, ranking in ranked(paper).items():
        assert torch.equal(ranking.order, ranked(controls)[mode].order), mode
    contestants = {
        OURS: paper,
        "with controls": controls,
        "with Taylor too": (*controls, "taylor"),
    }
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(ROUNDS):
        for name, modes in contestants.items():
            times[name].append(milliseconds(lambda modes=modes: ranked(modes), device) / IMAGES)
    parameters = sum(parameter.nbytes for parameter in net.parameters())
    return Race(
        f"Figure 4's rankings, {device}, DeepLabv3-ResNet-50, an image of "
        f"{'×'.join(map(str, size))}, {dtype}",
        4 * parameters + batch[0].nbytes,
        times,
        copy_bandwidth(device),
        {},
    )


def _network(size: tuple[int, int]) -> nn.Module:
    """Random weights, and batch norms that fit them: else features grow from block to block."""
    net = deeplabv3("resnet50", CLASSES)
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
    with torch.no_grad():
        low_resolution_logits(net.train(), torch.randn(2, 3, *(side // 4 for side in size)))
    return net.eval()


def _masked(predictions: Tensor, labels: Tensor, rectangle: tuple) -> tuple[Tensor, Tensor]:
    """Outside the region there is nothing to be scored."""
    top, left, bottom, right = rectangle
    outside = torch.ones_like(labels, dtype=torch.bool)
    outside[:, top:bottom, left:right] = False
    return predictions, labels.masked_fill(outside, 255)


def _numpy_confusion(predictions: Tensor, labels: Tensor) -> Tensor:
    predicted, labelled = predictions.cpu().numpy(), labels.cpu().numpy()
    kept = labelled != 255
    pairs = CLASSES * labelled[kept] + predicted[kept]
    counts = np.bincount(pairs, minlength=CLASSES**2).reshape(CLASSES, CLASSES)
    return torch.from_numpy(counts)


def _confusions(predictions: Tensor, labels: Tensor, rectangles: list[tuple]) -> list[Tensor]:
    pairs = torch.where(labels == 255, CLASSES**2, CLASSES * labels + predictions)
    return [
        pairs[:, top:bottom, left:right]
        .flatten()
        .bincount(minlength=CLASSES**2 + 1)[:-1]
        .view(CLASSES, CLASSES)
        for top, left, bottom, right in rectangles
    ]


def _check(
    ours: Tensor,
    paper: list[Tensor],
    eager: list[list[Tensor]],
    cached: list[list[Tensor]],
    timed: list[tuple[int, int]],
    dtype: torch.dtype,
) -> None:
    """All count the same pixels; in float32 one in a million may move, and at most one of a few."""
    rows = torch.stack([ours[SPANS.index(span)] for span in timed])
    pixels = int(rows[:, 0].sum())
    for label, found in (
        ("(a)", torch.stack(paper)[None]),
        ("(b)", torch.stack([torch.stack(f) for f in eager])),
        ("(c)", torch.stack([torch.stack(f) for f in cached])),
    ):
        expected = rows[1:2] if label == "(a)" else rows
        moved = int((found[:, 0].cpu() - expected[:, 0]).abs().sum()) // 2
        allowed = 1 + pixels // 10**6 if dtype == torch.float32 else pixels // 50
        assert moved <= allowed, f"{label}: {moved} of {pixels} pixels moved"
