"""A classifier's whole sweep, 20 counts of 6 rankings: products of latents beside running again.

Ours is all of it: the trunk on every image, then every count from running sums of products of the
latents. The rivals zero the channels before the pooling and run (a) the whole network for each
count and ranking, as one does by hand, or (b) only the pooling and the linear layer, on features
that were kept. They would take minutes: some counts of one ranking are timed, as many as the name
says, and scaled to all. That of (b) leaves out its one run of the trunk.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

import gpe
from benches.bench_figure4 import _milliseconds
from benches.harness import OURS, Race, copy_bandwidth
from gpe.ablation import classifier_sweep, random_orders
from gpe.models import Classifier, resnet18
from gpe.models.head import split_classifier

COUNTS, CLASSES, IMAGES, BATCH, TIMED, ROUNDS = 20, 10, 1000, 250, 2, 5


def races(device: str) -> Iterator[Race]:
    """On the CPU a network of a quarter of the width, on a GPU a whole one."""
    yield _race(device, width=64 if device == "cuda" else 16)


def _race(device: str, width: int) -> Race:
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
    rankings = random_orders(channels, 6)
    order = rankings["random/0"].to(device)
    timed = counts[COUNTS // 2 :: COUNTS // 2 - 1][:TIMED]

    @torch.no_grad()
    def ours() -> Tensor:
        trunk, head, _ = split_classifier(net, images[:2])
        latents = torch.cat([trunk(batch) for batch in images.split(BATCH)])
        return classifier_sweep(latents, labels, head, rankings, counts=counts).right

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

    rows = ours()[[counts.index(count) for count in timed]]
    for label, found in (("(a)", rerun()), ("(b)", kept())):
        moved = int((found.cpu() != rows).sum())  # where two logits are alike
        assert moved <= rows.numel() // 500, f"{label}: {moved} of {rows.numel()} answers moved"
    points = len(rankings) * COUNTS
    contestants = {
        OURS: (ours, 1),
        f"(a) run again, {TIMED} of {points}": (rerun, points / TIMED),
        f"(b) features kept, {TIMED} of {points}": (kept, points / TIMED),
    }
    times = {name: [] for name in contestants}
    for _ in range(ROUNDS):
        for name, (step, scale) in contestants.items():
            times[name].append(_milliseconds(step, device) * scale)
    return Race(
        f"Top-1 sweep, {device}, ResNet-18 of width {width}, {IMAGES} images, {points} points",
        images.nbytes + sum(parameter.nbytes for parameter in net.parameters()),
        times,
        copy_bandwidth(device),
        {},
    )


def _answers(net: Classifier, images: Tensor, channels: Tensor) -> Tensor:
    with gpe.ablated(net, "backbone", channels):
        return torch.cat([net(batch) for batch in images.split(BATCH)]).argmax(1)
