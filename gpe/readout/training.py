"""Readouts trained and asked."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpe.data import epoch_order
from gpe.errors import InputError, expect_at_least_one
from gpe.models import PermuteNet
from gpe.readout.readouts import Readout
from gpe.statistics import wilson_interval

Features = Tensor | Callable[[Tensor], Tensor]


def train_readout(
    readout: Readout,
    features: Features,
    cells: Tensor,  # int64 [P]
    *,
    epochs: int = 60,
    batch_size: int = 48,
    learning_rate: float = 0.01,
    weight_decay: float = 0.01,
    seed: int = 0,
) -> Readout:
    """Trains a readout by cross entropy, with AdamW and one learning-rate cycle.

    Args:
        readout: trained in place.
        features: pooled latents ``[P,C]``, or what yields the features of a batch, maps or
            pooled, from its indices int64 ``[n]``.
        cells: the right answers.
        epochs, batch_size: how often all pairs are gone through, and how many at a time. The last
            batch of an epoch may have fewer.
        learning_rate: the cycle's largest.
        weight_decay: AdamW's.
        seed: of the order of the pairs.

    Returns:
        ``readout``, in evaluation mode.

    Raises:
        InputError: fewer pairs than there are cells to tell apart, or numbers below 1.

    Example:
        >>> from gpe.readout import build_readout
        >>> latents, cells = torch.eye(4).repeat(20, 1), torch.arange(4).repeat(20)
        >>> readout = build_readout("gapnet", latents, 4)
        >>> answer(train_readout(readout, latents, cells), latents, cells).accuracy
        1.0
    """
    expect_at_least_one("epochs", epochs)
    expect_at_least_one("batch_size", batch_size)
    classes = _classes(readout)
    expect_enough(len(cells), classes)
    take = features.__getitem__ if isinstance(features, Tensor) else features
    optimizer = torch.optim.AdamW(
        readout.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=True
    )
    steps = epochs * -(-len(cells) // batch_size)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=steps, cycle_momentum=False
    )
    readout.train()
    for epoch in range(epochs):
        for chosen in epoch_order(len(cells), seed=seed, epoch=epoch).split(batch_size):
            loss = F.cross_entropy(readout(take(chosen)), cells[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
    return readout.eval()


class Answers(NamedTuple):
    """What a readout says of pairs that it never saw.

    Attributes:
        accuracy: share in [0, 1].
        interval: its 95 % confidence interval, for other images like these.
        predictions: int64 ``[P]``.
    """

    accuracy: float
    interval: tuple[float, float]
    predictions: Tensor


@torch.no_grad()
def answer(readout: Readout, latents: Tensor, cells: Tensor) -> Answers:
    """Asks a readout for the cells of ``latents``.

    One that permutes is asked for each vector by itself, with a permutation of its own: answers
    that share one are not independent of each other, as the interval wants them.

    Args:
        readout: trained.
        latents: pooled ``[P,C]`` of one or more pairs.
        cells: the right answers, int64 ``[P]``.

    Raises:
        InputError: no latents, or not as many as cells.
    """
    if len(latents) != len(cells) or len(cells) == 0:
        raise InputError(
            f"cells: expected one for each of one or more latents, got {len(cells)} "
            f"for {len(latents)}"
        )
    permutes = isinstance(readout.head, PermuteNet) and readout.head.permutation is None
    parts = latents.split(1 if permutes else len(latents))
    predictions = torch.cat([readout(part).argmax(1) for part in parts])
    accuracy = (predictions == cells).double().mean().item()
    return Answers(accuracy, wilson_interval(accuracy, len(cells)), predictions)


def expect_enough(pairs: int, cells: int) -> None:
    """Raise an InputError unless there are as many pairs as cells to tell apart."""
    if pairs < cells:
        raise InputError(
            f"images: expected at least {cells} to train a readout of {cells} cells, got {pairs}"
        )


def _classes(readout: Readout) -> int:
    head = readout.head
    if isinstance(head, PermuteNet):
        return head.classifier.out_features
    assert isinstance(head, nn.Conv2d)
    return head.out_channels
