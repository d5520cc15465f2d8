"""Rankings made of others: importance taken out, the mirror's own part taken out, matched ones."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gpe.errors import InputError
from gpe.ranking.modes import DEVIATION, SUBSETS
from gpe.ranking.result import ChannelRanking

WITHIN = 0.05  # of each other lie the deviations of matched channels
_ROUNDS = 100  # of exchanges


class _Derived(NamedTuple):
    """The two modes whose scores make a third, and how: given the seed as well."""

    modes: tuple[str, str]
    score: Callable[[Tensor, Tensor, int], Tensor]
    seeded: bool = False


def needed(modes: Sequence[str]) -> tuple[str, ...]:
    """The modes to rank images by, of whose rankings :func:`derive` makes those by ``modes``.

    Example:
        >>> needed(("overall", "relative", "matched:3", "left"))
        ('overall', 'deviation', 'left')
    """
    parts = (_DERIVED[name].modes if (name := _name(mode)) else (mode,) for mode in modes)
    return tuple(dict.fromkeys(part for of_one in parts for part in of_one))


def derive(
    modes: Sequence[str], rankings: Mapping[str, ChannelRanking]
) -> dict[str, ChannelRanking]:
    """The rankings by ``modes``, made of those by the modes that they need.

    What is made has scores alone, which do not merge: merge what it is made of.

    Args:
        modes: as of :func:`gpe.rank_channels`, and any that ``rankings`` has.
        rankings: by all of ``needed(modes)``, of one layer of one network.

    Raises:
        InputError: a ranking that is missing.

    Example:
        >>> scores = {"left": torch.tensor([3.0, 1.0]), "right": torch.tensor([3.0, -1.0])}
        >>> sides = {mode: ChannelRanking(mode, values.double()) for mode, values in scores.items()}
        >>> derive(["left_right"], sides)["left_right"].scores.tolist()
        [0.0, 2.0]
    """
    for mode in needed(modes):
        if mode not in rankings:
            raise InputError(f"rankings: expected one by {mode!r}, got none")
    return {mode: _derived(mode, rankings) if _name(mode) else rankings[mode] for mode in modes}


def matched_order(order: Tensor, deviation: Tensor, seed: int) -> Tensor:  # [C], [C] -> [C]
    """A random order whose channels deviate, rank by rank, as those of ``order`` do, within 5 %.

    Pairs of channels that fit in each other's place change it, or not, by chance, many times: any
    order that fits is as likely as any other. Where few channels deviate alike, few orders
    fit, and these share most of their first channels with ``order``.

    Args:
        order: of channels, int64.
        deviation: by channel, at least 0.
        seed: of the exchanges.

    Example:
        >>> deviation = torch.tensor([1.0, 8.0, 1.01, 8.1])
        >>> found = matched_order(torch.tensor([0, 1, 2, 3]), deviation, 1)
        >>> sorted(found[::2].tolist()), sorted(found[1::2].tolist())
        ([0, 2], [1, 3])
    """
    wanted, order = deviation[order], order.clone()
    generator = torch.Generator().manual_seed(seed)
    half = len(order) // 2
    for _ in range(_ROUNDS):
        # Ranks beside one another when they are sorted roughly: they are likely to fit.
        ranks = torch.randperm(len(order), generator=generator)
        chance = torch.rand(2, len(order), generator=generator)
        ranks = ranks[(wanted[ranks] * (1 + 2 * WITHIN * chance[0])).argsort(stable=True)]
        one, other = ranks[: 2 * half].view(half, 2).T
        fits = _alike(deviation[order[one]], wanted[other])
        fits &= _alike(deviation[order[other]], wanted[one]) & (chance[1, :half] < 0.5)
        one, other = one[fits], other[fits]
        order[one], order[other] = order[other], order[one]
    return order


def _alike(found: Tensor, wanted: Tensor) -> Tensor:
    return (found - wanted).abs() <= WITHIN * wanted


def _relative(overall: Tensor, deviation: Tensor, seed: int) -> Tensor:
    # A channel that is the same in all images has nothing to hold its difference against.
    return torch.where(deviation > 0, overall / deviation, 0.0)


def _matched(overall: Tensor, deviation: Tensor, seed: int) -> Tensor:
    order = matched_order(overall.argsort(descending=True, stable=True), deviation, seed)
    scores = torch.empty(len(order), dtype=torch.float64)
    scores[order] = torch.arange(len(order), 0, -1, dtype=torch.float64)
    return scores


_DERIVED = {
    "relative": _Derived(("overall", DEVIATION), _relative),
    "matched": _Derived(("overall", DEVIATION), _matched, seeded=True),
    "left_right": _Derived(SUBSETS, lambda left, right, _: left - right),
    "right_left": _Derived(SUBSETS, lambda left, right, _: right - left),
}
DERIVED = tuple(_DERIVED)


def seed_of(mode: str, name: str) -> int | None:
    """That of ``"name:3"``, 0 of ``"name"``; None of any other mode."""
    found, _, seed = mode.partition(":")
    return int(seed or 0) if mode == name or (found == name and seed.isdecimal()) else None


def _name(mode: str) -> str:
    """The kind of derived mode that it is; empty for others."""
    name = mode.partition(":")[0]
    seeded = name in _DERIVED and _DERIVED[name].seeded and seed_of(mode, name) is not None
    return name if mode in _DERIVED or seeded else ""


def _derived(mode: str, rankings: Mapping[str, ChannelRanking]) -> ChannelRanking:
    modes, score, _ = _DERIVED[_name(mode)]
    one, other = (rankings[part] for part in modes)
    other.expect_width(len(one.scores))
    scores = score(one.scores, other.scores, seed_of(mode, mode.partition(":")[0]) or 0)
    ids = tuple(sorted({*one.image_ids, *other.image_ids}))
    return ChannelRanking(mode, scores, one.layer, one.weights, ids)
