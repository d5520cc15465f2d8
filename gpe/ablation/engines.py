"""Three ways to the logits of every variant of a batch: the same numbers, at different speed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from gpe.ablation.masking import ablated
from gpe.ablation.plan import Plan
from gpe.ablation.tracing import Cut, expanded, pick_logits, record
from gpe.errors import InputError
from gpe.ops.mask_channels import mask_channels

Logits = Iterator[tuple[int, Tensor]]


class Engine(Protocol):
    """Yields the number of each wanted variant and its logits, ``[N,K,...]``, in any order."""

    name: str

    def run(self, images: Tensor, plan: Plan, wanted: Sequence[int]) -> Logits: ...


@dataclass(frozen=True)
class Rerun:
    """The whole network for each variant. It serves where the others cannot."""

    model: nn.Module
    layer: str
    name: str = "rerun"

    def run(self, images: Tensor, plan: Plan, wanted: Sequence[int]) -> Logits:
        for variant in wanted:
            with ablated(self.model, self.layer, plan.channels(variant)):
                yield variant, pick_logits(self.model(images))


class General:
    """The network up to the layer once, then batches of masked variants through the rest."""

    name = "general"

    def __init__(self, cut: Cut, images: Tensor, memory: int):
        self.cut, self.memory = cut, memory
        inputs = cut.before(images[:1])
        recording = record(cut.after, *inputs)
        self.shapes_only = recording.shapes_only
        self.bytes_each = recording.peak_bytes + inputs[0].nbytes

    def run(self, images: Tensor, plan: Plan, wanted: Sequence[int]) -> Logits:
        inputs = self.cut.before(images)
        expect_finite(inputs[0])
        room = max(1, self.memory // (self.bytes_each * len(images)))
        for first in range(0, len(wanted), room):
            numbers = wanted[first : first + room]
            features, *others = expanded(inputs, len(numbers), self.shapes_only)
            for masked, variant in zip(features.chunk(len(numbers)), numbers, strict=True):
                mask_channels(masked, plan.channels(variant), inplace=True)
            logits = self.cut.after(features, *others)
            yield from zip(numbers, logits.chunk(len(numbers)), strict=True)


def expect_finite(features: Tensor) -> None:
    """An InputError where the layer yields anything else: it would spread to every variant."""
    if not features.isfinite().all():
        raise InputError("images: expected finite features at the layer, got NaN or infinity")
