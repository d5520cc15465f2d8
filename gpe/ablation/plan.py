"""Which channels are removed together: the points of all curves, each set of channels once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import index
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gpe.errors import InputError, expect_integer
from gpe.ops.checks import INTEGERS

Ranges = int | Sequence[tuple[int, int]]


class Point(NamedTuple):
    """A point of a curve: channels ``[start, stop)`` in the order of a ranking are removed."""

    ranking: str
    removal: str  # "top" or "range"
    start: int
    stop: int


@dataclass(frozen=True)
class Plan:
    """The points of all curves, and the different sets of channels that they remove.

    Attributes:
        orders: name of a ranking to its channels, int64 ``[C]``, the first removed first.
        points: of all curves.
        variants: one point for each set of channels; no two have the same set.
        variant_of: the number of the variant of each point.
    """

    orders: dict[str, Tensor]
    points: list[Point]
    variants: list[Point]
    variant_of: list[int]

    def channels(self, variant: int) -> Tensor:
        """That a variant removes."""
        point = self.variants[variant]
        return self.orders[point.ranking][point.start : point.stop]


def make_plan(
    rankings: Mapping[str, Any], counts: int | Iterable[int], ranges: Ranges, width: int
) -> Plan:
    """The plan for a layer of ``width`` channels; arguments as of ``ablation_sweep``."""
    if not isinstance(rankings, Mapping) or not rankings:
        raise InputError(f"rankings: expected a mapping of one or more, got {rankings!r:.80}")
    orders = {str(name): _order(name, ranking, width) for name, ranking in rankings.items()}
    removals = [("top", 0, stop) for stop in _counts(counts, width)]
    removals += [("range", start, stop) for start, stop in _ranges(ranges, width)]
    if not removals:
        raise InputError("counts: expected one or more where there are no ranges, got none")
    points = [Point(name, *removal) for name in orders for removal in removals]

    seen: dict[bytes, int] = {}
    variants: list[Point] = []
    variant_of: list[int] = []
    for point in points:
        channels = orders[point.ranking][point.start : point.stop]
        number = seen.setdefault(channels.sort().values.numpy().tobytes(), len(seen))
        if number == len(variants):
            variants.append(point)
        variant_of.append(number)
    return Plan(orders, points, variants, variant_of)


def random_orders(width: int, seeds: int | Iterable[int] = 5) -> dict[str, Tensor]:
    """Random orders of channels, ``"random/0"`` and so on, for ``ablation_sweep``.

    Args:
        width: how many channels there are.
        seeds: the seeds, or how many from 0.

    Returns:
        Name to int64 ``[width]`` on the CPU, the same for the same seed everywhere.
        :func:`gpe.ablation.bands` makes one curve with a band of them.

    Example:
        >>> random_orders(4, seeds=2)["random/1"].tolist()
        [1, 3, 2, 0]
    """
    width, count = integer("width", width, 1), _one(seeds)
    chosen = range(count) if count is not None else _many("seeds", seeds)
    return {
        f"random/{seed}": torch.randperm(width, generator=torch.Generator().manual_seed(seed))
        for seed in (integer("seeds", seed) for seed in chosen)
    }


def indices(argument: str, values: Any) -> Tensor:
    """Integers of any kind (a sequence, an array of any strides, a tensor): int64 ``[k]``, a copy.

    Raises:
        InputError: anything else.
    """
    if not isinstance(values, Tensor):
        try:
            values = torch.tensor([index(value) for value in values], dtype=torch.int64)
        except (TypeError, ValueError, OverflowError, RuntimeError):
            raise InputError(f"{argument}: expected integers, got {values!r:.80}") from None
    if values.dim() != 1 or values.dtype not in INTEGERS:
        raise InputError(
            f"{argument}: expected integers [k], got {values.dtype} {list(values.shape)}"
        )
    return values.detach().to("cpu", torch.int64, copy=True)


def integer(argument: str, value: Any, least: int | None = None) -> int:
    """One of any kind, NumPy's too, as an int.

    Raises:
        InputError: no integer, or one below the least.
    """
    try:
        value = index(value)
    except TypeError:
        raise InputError(f"{argument}: expected integers, got {value!r}") from None
    if least is not None:
        expect_integer(argument, value, least)
    return value


def _order(name: str, ranking: Any, width: int) -> Tensor:
    """The order of a ChannelRanking, or of channels that stand in it."""
    what = f"rankings: expected {name} to be a ChannelRanking or channels in order"
    try:
        order = indices("", getattr(ranking, "order", ranking))
    except InputError as error:
        raise InputError(f"{what}, got {str(error).partition(', got ')[2]}") from None
    if len(order) != width:
        raise InputError(
            f"rankings: expected {name} to rank the {width} channels of the layer, got {len(order)}"
        )
    outside = order[(order < 0) | (order >= width)]
    if len(outside):
        raise InputError(
            f"rankings: expected {name} to hold channels from 0 to {width - 1}, "
            f"got {outside[0].item()}"
        )
    repeated = (order.bincount(minlength=width) > 1).nonzero()
    if len(repeated):
        raise InputError(
            f"rankings: expected {name} to hold each channel once, got {repeated[0].item()} again"
        )
    return order


def _counts(counts: int | Iterable[int], width: int) -> list[int]:
    if (step := _one(counts)) is not None:
        return list(range(0, width + 1, integer("counts", step, 1)))
    found = [integer("counts", count) for count in _many("counts", counts)]
    for number, count in enumerate(found):
        if not 0 <= count <= width or count in found[:number]:
            raise InputError(f"counts: expected each once, from 0 to {width}, got {count}")
    return found


def _ranges(ranges: Ranges, width: int) -> list[tuple[int, int]]:
    if (step := _one(ranges)) is not None:
        return list(pairwise(range(0, width + 1, integer("ranges", step, 1))))
    found: list[tuple[int, int]] = []
    for pair in _many("ranges", ranges):
        try:
            start, stop = (index(bound) for bound in pair)
        except (TypeError, ValueError):
            raise InputError(f"ranges: expected pairs (start, stop), got {pair!r}") from None
        if not 0 <= start < stop <= width or (start, stop) in found:
            raise InputError(
                f"ranges: expected each once, with 0 ≤ start < stop ≤ {width}, got {(start, stop)}"
            )
        found.append((start, stop))
    return found


def _one(value: Any) -> int | None:
    """An integer of any kind; None for several, also where it is an array of one."""
    try:
        return None if getattr(value, "ndim", 0) else index(value)
    except TypeError:
        return None


def _many(argument: str, values: Any) -> list:
    try:
        return list(values)
    except TypeError:
        raise InputError(f"{argument}: expected integers, got {values!r:.80}") from None
