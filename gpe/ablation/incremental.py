"""Every variant of a batch from one convolution: removing channels before it is linear."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from gpe.ablation.engines import Logits, expect_finite
from gpe.ablation.linear import LinearMap, LinearStart, spread
from gpe.ablation.plan import Plan
from gpe.ablation.tracing import Cut, expanded, record, run

# A variant, and what the linear maps yield for it.
Outputs = tuple[int, list[Tensor]]


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

    def __init__(self, cut: Cut, start: LinearStart, images: Tensor, memory: int):
        self.cut, self.start, self.memory = cut, start, memory
        inputs = run(cut.before, images[:1])
        sources = run(start.front, inputs[0])
        outputs = [linear.whole(sources[linear.source]) for linear in start.maps]
        recording = record(start.rest, *outputs, *inputs)
        self.shapes_only = [inner for inner in recording.shapes_only if inner >= len(outputs)]
        self.bytes_each = recording.peak_bytes + sum(output.nbytes for output in outputs)

    def run(self, images: Tensor, plan: Plan, wanted: Sequence[int]) -> Logits:
        inputs = run(self.cut.before, images)
        expect_finite(inputs[0])
        room = max(1, self.memory // (self.bytes_each * len(images)))
        waiting: list[Outputs] = []
        for outputs in self._outputs(inputs[0], plan, wanted):
            waiting.append(outputs)
            if len(waiting) == room:
                yield from self._rest(waiting, inputs)
                waiting = []
        if waiting:
            yield from self._rest(waiting, inputs)

    def _rest(self, waiting: list[Outputs], inputs: Sequence[Tensor]) -> Logits:
        """The logits of some variants, of which the maps' outputs are there."""
        numbers = [variant for variant, _ in waiting]
        outputs = [torch.cat(of_map) for of_map in zip(*(o for _, o in waiting), strict=True)]
        inner = {number - len(outputs) for number in self.shapes_only}
        logits = run(self.start.rest, *outputs, *expanded(inputs, len(numbers), inner))
        yield from zip(numbers, logits.chunk(len(numbers)), strict=True)

    def _outputs(self, features: Tensor, plan: Plan, wanted: Sequence[int]) -> Iterator[Outputs]:
        sources = run(self.start.front, features)
        inputs = [(linear, sources[linear.source]) for linear in self.start.maps]
        whole = [_wide(linear.whole(source)) for linear, source in inputs]
        for ranking, order in plan.orders.items():
            of_ranking = [number for number in wanted if plan.variants[number].ranking == ranking]
            spans = {number: plan.variants[number][2:] for number in of_ranking}
            for number, outputs in without_spans(inputs, whole, order.to(features.device), spans):
                yield number, [output.to(features.dtype) for output in outputs]


def without_spans(
    inputs: list[tuple[LinearMap, Tensor]],
    whole: list[Tensor],
    order: Tensor,
    spans: dict[int, tuple[int, int]],
) -> Iterator[Outputs]:
    """The outputs of the maps without the channels of each span ``[start, stop)`` of an order.

    Args:
        inputs: the maps, and what each of them reads, ``[N,C,...]``.
        whole: their outputs with all channels.
        order: of the channels, int64 ``[C]``.
        spans: by the number of a variant.
    """
    width = len(order)
    tops = {stop: number for number, (start, stop) in spans.items() if start == 0}
    ranges = {number: span for number, span in spans.items() if span[0] > 0}
    if 0 in tops:
        yield tops.pop(0), whole
    bounds = {bound for span in ranges.values() for bound in span} | set(tops)
    bounds |= {width} if tops else set()
    # To take almost everything from the whole would leave rounding errors: what is left of the
    # wide ranges is added up.
    wide = {number for number, (start, stop) in ranges.items() if stop - start > width // 2}
    bounds |= {0, width} if wide else set()

    nothing = [bias.expand_as(output) for bias, output in _biases(inputs, whole)]
    after = nothing  # what the channels from here to the last one yield
    sums: dict[int, list[Tensor]] = {number: nothing for number in wide}
    if width in tops:
        yield tops.pop(width), nothing
    for start, stop in reversed(list(pairwise(sorted(bounds)))):
        inside = {n for n, (first, last) in ranges.items() if first <= start and stop <= last}
        adds = (inside - wide) | (wide - inside)
        counts = bool(tops) and start >= min(tops)
        if not (adds or counts):
            continue
        group = order[start:stop]
        parts = [
            _wide(linear.apply(source.index_select(1, group), linear.weight.index_select(1, group)))
            for linear, source in inputs
        ]
        if counts:
            after = _sums(after, parts)
        for number in adds:
            sums[number] = _sums(sums[number], parts) if number in sums else parts
        if start in tops:
            yield tops.pop(start), after
        for number in inside - wide:
            if ranges[number][0] == start:
                removed = sums.pop(number)
                yield number, [all_ - part for all_, part in zip(whole, removed, strict=True)]
    yield from sums.items()


def _sums(one: list[Tensor], other: list[Tensor]) -> list[Tensor]:
    return [a + b for a, b in zip(one, other, strict=True)]


def _biases(
    inputs: list[tuple[LinearMap, Tensor]], whole: list[Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    for (linear, _), output in zip(inputs, whole, strict=True):
        bias = linear.weight.new_zeros(len(linear.weight)) if linear.bias is None else linear.bias
        yield spread(_wide(bias), output), output


def _wide(tensor: Tensor) -> Tensor:
    """In float32 or wider: sums of many parts stand in no narrower type."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
