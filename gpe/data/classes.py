"""Whether the classes of a network and of a set of images are the same, and in which order."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpe.data.pixels import named
from gpe.errors import InputError

_WNID = re.compile("n[0-9]{8}")


@dataclass(frozen=True)
class ClassMatch:
    """Which output of a network is which class of a set.

    Attributes:
        outputs: the network's output for each class of the set, in its order; None where no such
            thing is known, and labels tell nothing of the network's answers.
        reason: how they were matched or why not: one sentence to be told.
    """

    outputs: tuple[int, ...] | None
    reason: str

    def labels(self, labels: Tensor) -> Tensor | None:
        """Labels of the set, int64 ``[N]``, as outputs of the network; None as above."""
        if self.outputs is None:
            return None
        return torch.tensor(self.outputs, device=labels.device)[labels]


def match_classes(
    network: Sequence[str] | None, images: Sequence[str], *, count: int
) -> ClassMatch:
    """Matches the classes of a set to a network's outputs, by name or else by number.

    Names are equal whatever their case and whether blanks, hyphens or underscores part their words;
    of synonyms with commas the first counts. WordNet ids (``n01440764``) and ImageNet's names are
    one. A set may have some of the network's classes only. Where a set's names are all numbers,
    class k is output k; where a network's are unknown, the order counts if there are as many.

    Args:
        network: the name of each output; None where they are unknown.
        images: the name of each class; empty where images have no labels.
        count: the network's outputs.

    Raises:
        InputError: another number of names than ``count``.

    Example:
        >>> match_classes(["cat", "dog", "fish"], ["Dog", "cat"], count=3).outputs
        (1, 0)
        >>> match_classes(None, ["cat", "dog"], count=2).reason
        "by position, since the names of the network's classes are unknown"
        >>> match_classes(["cat", "dog"], ["cat", "fish"], count=2)
        ClassMatch(outputs=None, reason='no labels: the network does not have the classes fish')
    """
    if network is not None and len(network) != count:
        raise InputError(f"classes: expected {count} names, one an output, got {len(network)}")
    if not images:
        return ClassMatch(None, "no labels: the images have none")
    if network is not None:
        theirs, ours = _names(network, images)
        if theirs == ours:
            return ClassMatch(tuple(range(count)), "by name")
        if not set(ours) - set(theirs) and not any(theirs.count(name) > 1 for name in set(ours)):
            order = tuple(theirs.index(name) for name in ours)
            part = f", {len(images)} of the network's {count}" if len(images) < count else ""
            return ClassMatch(order, f"by name{part}")
    if all(re.fullmatch("[0-9]+", name) for name in images):
        numbers = tuple(map(int, images))
        if max(numbers) < count and len(set(numbers)) == len(numbers):
            return ClassMatch(numbers, "by number: the images' class k is the network's output k")
    if network is None:
        if len(images) == count:
            reason = "by position, since the names of the network's classes are unknown"
            return ClassMatch(tuple(range(count)), reason)
        return ClassMatch(
            None, f"no labels: the network has {count} classes without names, the set {len(images)}"
        )
    odd = [name for name, known in zip(images, ours, strict=True) if theirs.count(known) != 1]
    return ClassMatch(None, f"no labels: the network does not have the classes {named(odd)}")


def expect_classes(classes: Sequence[str], what: str = "to train on") -> None:
    """Raise an InputError unless there are two classes or more."""
    if len(classes) < 2:
        got = f"1: {classes[0]}" if classes else "images without labels"
        raise InputError(f"data: expected two classes or more {what}, got {got}")


def _names(one: Sequence[str], other: Sequence[str]) -> tuple[list[str], list[str]]:
    """Both lists in a form that can be compared; ImageNet's names as WordNet ids."""
    plain = [[_plain(name) for name in names] for names in (one, other)]
    if not any(len(names) == 1000 or any(map(_WNID.fullmatch, names)) for names in plain):
        return plain[0], plain[1]
    from timm.data import ImageNetInfo  # takes a second, and only ImageNet needs it

    known = ImageNetInfo()
    ids = known.label_names()
    first = [_plain(known.index_to_description(index)) for index in range(len(ids))]
    id_of = {name: id for name, id in zip(first, ids, strict=True) if first.count(name) == 1}

    def as_ids(names: list[str]) -> list[str]:
        # Two names come twice in ImageNet, and lists of it name these as they like.
        if len(names) == 1000 and sum(map(str.__eq__, names, first)) > 990:
            return ids
        return [id_of.get(name, name) for name in names]

    return as_ids(plain[0]), as_ids(plain[1])


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name.partition(",")[0]).strip().casefold()
