"""Three ways to the logits of every variant of a batch: the same numbers, at different speed."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from gpe.ablation.linear import LinearStart, fold_batch_norms, linear_start
from gpe.ablation.masking import ablated
from gpe.ablation.plan import Plan
from gpe.ablation.tracing import Cut, expanded, pick_logits, read_for_shape, record
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
        inputs = self.cut.before(images[:1])
        recording = record(self.cut.after, *inputs)
        self.bytes_each = recording.peak_bytes + sum(tensor.nbytes for tensor in inputs)
        self.shapes_only = read_for_shape(self.cut.after, recording.values)

    def run(self, images: Tensor, plan: Plan, wanted: Sequence[int]) -> Logits:
        inputs = self.cut.before(images)
        _expect_finite(inputs[0])
        for numbers in _chunks(wanted, self.memory // (self.bytes_each * len(images))):
            features, *others = expanded(self.cut.after, inputs, len(numbers), self.shapes_only)
            for masked, variant in zip(features.chunk(len(numbers)), numbers, strict=True):
                mask_channels(masked, plan.channels(variant), inplace=True)
            logits = self.cut.after(features, *others)
            yield from zip(numbers, logits.chunk(len(numbers)), strict=True)


class Incremental:
    """Linear maps split by groups of channels: sums of the parts are the output of each variant.

    Removing channels R from the input x of a linear map L with weight W and bias b leaves

        b + Σ_{c ∉ R} W_c x_c  =  L(x) − Σ_{c ∈ R} W_c x_c

    A ranking's counts and ranges bound groups of channels; the part of each group is computed
    once. Going through them from the last to the first, the sum of the parts so far is the output
    with the top N removed; a range's parts are added up apart and taken from the whole. Only
    these sums are kept, not the parts.
    """

    name = "incremental"

    def __init__(self, cut: Cut, images: Tensor, memory: int):
        inputs = cut.before(images[:1])
        after = fold_batch_norms(cut.after)
        found = linear_start(after, record(after, *inputs))
        if isinstance(found, str):
            raise NotLinearError(found)
        self.cut, self.memory, self.start = cut, memory, found
        outputs = [
            linear.whole(source)
            for linear, source in zip(found.maps, _sources(found, inputs[0]), strict=True)
        ]
        recording = record(found.rest, *outputs, *inputs)
        self.bytes_each = recording.peak_bytes + sum(tensor.nbytes for tensor in outputs)
        self.shapes_only = read_for_shape(found.rest, recording.values)

    def run(self, images: Tensor, plan: Plan, wanted: Sequence[int]) -> Logits:
        inputs = self.cut.before(images)
        _expect_finite(inputs[0])
        room = max(1, self.memory // (self.bytes_each * len(images)))
        waiting: list[tuple[int, list[Tensor]]] = []
        for variant_and_outputs in self._outputs(inputs[0], plan, wanted):
            waiting.append(variant_and_outputs)
            if len(waiting) == room:
                yield from self._rest(waiting, inputs)
                waiting = []
        if waiting:
            yield from self._rest(waiting, inputs)

    def _rest(self, waiting: list[tuple[int, list[Tensor]]], inputs: Sequence[Tensor]) -> Logits:
        """The logits of some variants, of which the maps' outputs are there."""
        numbers = [variant for variant, _ in waiting]
        outputs = [torch.cat(of_map) for of_map in zip(*(o for _, o in waiting), strict=True)]
        names = [linear.name for linear in self.start.maps]
        others = expanded(self.start.rest, inputs, len(numbers), self.shapes_only, skip=len(names))
        logits = self.start.rest(*outputs, *others)
        yield from zip(numbers, logits.chunk(len(numbers)), strict=True)

    def _outputs(
        self, features: Tensor, plan: Plan, wanted: Sequence[int]
    ) -> Iterator[tuple[int, list[Tensor]]]:
        """Each variant's number and the maps' outputs for it."""
        sources = _sources(self.start, features)
        parts = Parts(self.start, sources)
        for ranking, order in plan.orders.items():
            own = [number for number in wanted if plan.variants[number].ranking == ranking]
            yield from parts.of_ranking(order.to(features.device), plan, own)
