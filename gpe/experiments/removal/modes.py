"""Rankings of channels by name, as the report calls and draws them."""

from gpe.experiments.removal.config import MODES, RANDOM, Mode


def mode_of(name: str) -> Mode:
    """Also of one that this version does not know."""
    if is_random(name):
        return MODES[RANDOM]._replace(label=name.capitalize())
    return MODES.get(name, Mode(name, "", f"“{name}”", "ink"))


def is_random(name: str) -> bool:
    """Whether it is a random order: ``random``, or one with its number, ``random/3``."""
    return name.replace(":", "/").partition("/")[0] == RANDOM


def in_order(names: set[str]) -> list[str]:
    """Known rankings in the order of the paper's figures, then the others."""
    return [name for name in MODES if name in names] + sorted(names - MODES.keys())
