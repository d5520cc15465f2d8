"""Rankings of channels by name, as the report calls and draws them."""

from gpe.experiments.removal.config import MATCHED, MODES, RANDOM, Mode

_BANDS = (MATCHED, RANDOM)


def mode_of(name: str) -> Mode:
    """Also of one that this version does not know."""
    if (band := band_of(name)) and name != band:
        return MODES[band]._replace(label=name.capitalize())
    return MODES.get(name, Mode(name, "", f"“{name}”", "ink"))


def band_of(name: str) -> str:
    """What an order is one of many of: ``random``, or ``matched``, of ``matched/3``; or empty."""
    kind = name.replace(":", "/").partition("/")[0]
    return kind if kind in _BANDS else ""


def in_order(names: set[str]) -> list[str]:
    """Known rankings in the order of the paper's figures, then the others."""
    return [name for name in MODES if name in names] + sorted(names - MODES.keys())
