"""Rankings of channels by name: what they are called, and how they are drawn."""

from typing import NamedTuple


class Ranking(NamedTuple):
    """One way to order channels.

    Attributes:
        note: what it is, in the paper's terms.
        kind: of its first channels, in a sentence.
        colour: name of the page's colour.
        dashes: of its line, as in SVG; lines that may lie upon one another differ.
    """

    label: str
    note: str
    kind: str
    colour: str
    dashes: str = ""


RANDOM = "random"
RANKINGS = {
    "overall": Ranking(
        "Overall", "Normal in Figure 4 (Equation 2)", "position-specific", "overall"
    ),
    "kernel_flip_mirror": Ranking(
        *("Kernel-Flip*", "image and mirror, kernels mirrored", "position-specific"),
        *("kernel-flip-mirror", "7 3"),
    ),
    "kernel_flip_pair": Ranking(
        *("Kernel-Flip**", "image, kernels as they are and mirrored", "position-specific"),
        *("kernel-flip-pair", "2.5 2.5"),
    ),
    "left": Ranking("Left", "people on the left alone (Equation 3)", "left-specific", "left"),
    "right": Ranking("Right", "people on the right alone (Equation 3)", "right-specific", "right"),
    RANDOM: Ranking("Random", "", "random", "random"),
}


def ranking_of(name: str) -> Ranking:
    """Also of one that the report has not heard of."""
    if is_random(name):
        return RANKINGS[RANDOM]._replace(label=name.capitalize())
    return RANKINGS.get(name, Ranking(name, "", f"“{name}”", "ink"))


def is_random(name: str) -> bool:
    """Whether it is a random order: ``random``, or one with its number, ``random/3``."""
    return name.replace(":", "/").partition("/")[0] == RANDOM


def in_order(names: set[str]) -> list[str]:
    """Known rankings in the order of the paper's figures, then the others."""
    return [name for name in RANKINGS if name in names] + sorted(names - RANKINGS.keys())
