"""Three ways to the logits of every variant of a batch: the same numbers, at different speed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from gpe.ablation.masking import removed
from gpe.ablation.plan import Plan
from gpe.ablation.tracing import Cut, expanded, record, run
from gpe.errors import InputError
from gpe.models.inside import find_layer
from gpe.models.layout import Layout
from gpe.models.running import forward, pick_logits, tensors_of

Logits = Iterator[tuple[int, Tensor]]


class Engine(Protocol):
    """Yields the number of each wanted variant and its logits, ``[N,K,...]``, in any order."""

    @property
    def name(self) -> str: ...

    def run(self, images: Tensor, plan: Plan, wanted: Sequence[int]) -> Logits: ...


@dataclass(frozen=True)
class Rerun:
    """The whole network for each variant. It serves where the others cannot."""

    model: nn.Module
    layout: Layout
    name: str = "rerun"

    def run(self, images: Tensor, plan: Plan, wanted: Sequence[int]) -> Logits:
        for variant in wanted:
            with removed(self.model, self.layout, plan.channels(variant)):
                logits = pick_logits(forward(self.model, images))
            yield variant, logits


@contextmanager
def zeroed_by_hand(model: nn.Module, layout: Layout, channels: Tensor) -> Iterator[None]:
    """Zeroes channels without what engines do it by: no hooks, no kernels of gpe.

    Within the block the layer's ``forward`` is one that fills a copy of what it yields.
    """
    module = find_layer(model, layout.layer)
    own, original = vars(module).get("forward"), module.forward

    def zeroing(*arguments: object, **options: object) -> object:
        output = tree_map_only(Tensor, Tensor.clone, original(*arguments, **options))
        for tensor, dim in zip(tensors_of(output), layout.dims, strict=True):
            tensor.index_fill_(dim, channels.to(tensor.device), 0)
        return output

    vars(module)["forward"] = zeroing
    try:
        yield
    finally:
        del vars(module)["forward"]
        if own is not None:
            vars(module)["forward"] = own


class General:
    """The network up to the layer once, then batches of masked variants through the rest."""

    name = "general"

    def __init__(self, cut: Cut, layout: Layout, images: Tensor, memory: int):
        self.cut, self.layout, self.memory = cut, layout, memory
        inputs = run(cut.before, images[:1])
        recording = record(cut.after, *inputs)
        self.shapes_only = recording.shapes_only
        self.bytes_each = recording.peak_bytes + inputs[0].nbytes

    def run(self, images: Tensor, plan: Plan, wanted: Sequence[int]) -> Logits:
        inputs = run(self.cut.before, images)
        expect_finite(inputs[0])
        room = max(1, self.memory // (self.bytes_each * len(images)))
        for first in range(0, len(wanted), room):
            numbers = wanted[first : first + room]
            features, *others = expanded(inputs, len(numbers), self.shapes_only)
            for masked, variant in zip(features.chunk(len(numbers)), numbers, strict=True):
                self.layout.mask(masked, plan.channels(variant), inplace=True)
            logits = run(self.cut.after, features, *others)
            yield from zip(numbers, logits.chunk(len(numbers)), strict=True)


def expect_finite(features: Tensor) -> None:
    """An InputError where the layer yields anything else: it would spread to every variant."""
    if not features.isfinite().all():
        raise InputError("images: expected finite features at the layer, got NaN or infinity")
