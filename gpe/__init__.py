"""Find, measure, use and remove the position information that CNNs keep in their channels."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpe.errors import InputError
    from gpe.metrics import ShiftConsistency
    from gpe.models import GAPNet, PermuteNet, load_location_checkpoint, resnet18
    from gpe.ops.backend import doctor
    from gpe.ops.dual_crop import dual_crop
    from gpe.ops.place_on_grid import place_on_grid

# The public names and where they live. Imported when first used: torch takes seconds, which
# `gpe --help` should not.
_HOMES = {
    "GAPNet": "gpe.models",
    "InputError": "gpe.errors",
    "PermuteNet": "gpe.models",
    "ShiftConsistency": "gpe.metrics",
    "doctor": "gpe.ops.backend",
    "dual_crop": "gpe.ops.dual_crop",
    "load_location_checkpoint": "gpe.models",
    "place_on_grid": "gpe.ops.place_on_grid",
    "resnet18": "gpe.models",
}

__all__ = [
    "GAPNet",
    "InputError",
    "PermuteNet",
    "ShiftConsistency",
    "doctor",
    "dual_crop",
    "load_location_checkpoint",
    "place_on_grid",
    "resnet18",
]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'gpe' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
