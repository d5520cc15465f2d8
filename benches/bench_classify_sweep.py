"""A classifier's sweep over 20 counts: products of cached latents beside running again.

One race is the whole job, six rankings from the images on: ours runs the trunk once and goes on
with products of latents. The other is the sweep of one ranking alone, where ours begins with the
cached latents. The rivals zero channels before the pooling and run (a) the whole network for each
count, as one does by hand, or (b) only the pooling and the linear layer, on features that were
kept; (b)'s one run of the trunk is left out, so that it races the sweep alone. They would take
minutes: some counts of one ranking are timed, as many as the name says, and scaled to all.
"""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

import gpe
from benches.harness import OURS, Race, copy_bandwidth, milliseconds
from gpe.ablation import classifier_sweep, random_orders
from gpe.models import Classifier, resnet18
from gpe.models.head import split_classifier

COUNTS, CLASSES, IMAGES, BATCH, TIMED, ROUNDS = 20, 10, 1000, 250, 2, 5


def races(device: str) -> Iterator[partial[Race]]:
    """On the CPU a network of a quarter of the width, on a GPU a whole one."""
    width = 64 if device == "cuda" else 16
    yield partial(_race, device, width, orders=6, cached=False)
    yield partial(_race, device, width, orders=1, cached=True)


def _race(device: str, width: int, *, orders: int, cached: bool) -> Race:
    torch.manual_seed(0)
    images = torch.randn(IMAGES, 3, 32, 32, device=device)
    net = Classifier(resnet18(width=width, stem="cifar"), CLASSES).to(device)
    nn.init.normal_(net.head.weight)
    with torch.no_grad():
        for _ in range(10):  # batch norms that fit, or all images would get the same answer
            net(images[:BATCH])
        labels = net.eval()(images[:BATCH]).argmax(1).repeat(IMAGES // BATCH)
    channels = net.head.in_features
    counts = [channels * number // COUNTS for number in range(COUNTS)]
    rankings = random_orders(channels, orders)
    order = rankings["random/0"].to(device)
    timed = counts[COUNTS // 2 :: COUNTS // 2 - 1][:TIMED]

    @torch.no_grad()
    def ours() -> Tensor:
        trunk, head, _ = split_classifier(net, images[:2])
        latents = torch.cat([trunk(batch) for batch in images.split(BATCH)])
        return classifier_sweep(latents, labels, head, rankings, counts=counts).right

    with torch.no_grad():
        latents = net.forward_features(images).mean((2, 3))

    def sweep_alone() -> Tensor:
        return classifier_sweep(latents, labels, net.head, rankings, counts=counts).right

    @torch.no_grad()
    def rerun() -> Tensor:
        return torch.stack([_answers(net, images, order[:count]) == labels for count in timed])

    with torch.no_grad():
        features = [net.forward_features(batch) for batch in images.split(BATCH)]

    @torch.no_grad()
    def kept() -> Tensor:
        found = []
        for count in timed:
            masked = [gpe.mask_channels(batch, order[:count]) for batch in features]
            logits = torch.cat([net.head(batch.mean((2, 3))) for batch in masked])
            found.append(logits.argmax(1) == labels)
        return torch.stack(found)

    at = [counts.index(count) for count in timed]
    rows = ours()[at]
    for label, found in (("(a)", rerun()), ("(b)", kept()), ("sweep alone", sweep_alone()[at])):
        moved = int((found.cpu() != rows).sum())  # where two logits are alike
        assert moved <= rows.numel() // 500, f"{label}: {moved} of {rows.numel()} answers moved"
    points = len(rankings) * COUNTS
    contestants = {
        OURS: (sweep_alone if cached else ours, 1),
        f"(a) run again, {TIMED} of {points}": (rerun, points / TIMED),
    }
    if cached:
        contestants[f"(b) features kept, {TIMED} of {points}"] = (kept, points / TIMED)
    times = {name: [] for name in contestants}
    for _ in range(ROUNDS):
        for name, (step, scale) in contestants.items():
            times[name].append(milliseconds(step, device) * scale)
    return Race(
        f"Top-1 {'sweep alone' if cached else 'from images on'}, {device}, ResNet-18 of width "
        f"{width}, {IMAGES} images, {points} points",
        (latents if cached else images).nbytes,
        times,
        copy_bandwidth(device),
        {},
    )


def _answers(net: Classifier, images: Tensor, channels: Tensor) -> Tensor:
    with gpe.ablated(net, "backbone", channels):
        return torch.cat([net(batch) for batch in images.split(BATCH)]).argmax(1)
