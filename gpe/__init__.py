"""Find, measure, use and remove the position information that CNNs keep in their channels."""

from importlib import import_module, metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    __version__: str
    from gpe.ablation import AblationResult, ablated, ablation_sweep
    from gpe.augshift import AugShiftLoss, fused_augshift_loss
    from gpe.errors import InputError
    from gpe.metrics import LogAverageMissRate, RegionIoU, ShiftConsistency
    from gpe.models import (
        Classifier,
        GAPNet,
        PermuteNet,
        load_location_checkpoint,
        resnet18,
        resnet50,
    )
    from gpe.ops.backend import doctor
    from gpe.ops.dual_crop import dual_crop
    from gpe.ops.flip_difference import flip_difference
    from gpe.ops.gap_mse import gap_mse
    from gpe.ops.mask_channels import mask_channels
    from gpe.ops.place_on_grid import place_on_grid
    from gpe.ops.region_confusion import region_confusion
    from gpe.ranking import ChannelRanking, rank_channels

# The public names and where they live. Imported when first used: torch takes seconds, which
# `gpe --help` should not.
_HOMES = {
    "AblationResult": "gpe.ablation",
    "AugShiftLoss": "gpe.augshift",
    "ChannelRanking": "gpe.ranking",
    "Classifier": "gpe.models",
    "GAPNet": "gpe.models",
    "InputError": "gpe.errors",
    "LogAverageMissRate": "gpe.metrics",
    "PermuteNet": "gpe.models",
    "RegionIoU": "gpe.metrics",
    "ShiftConsistency": "gpe.metrics",
    "ablated": "gpe.ablation",
    "ablation_sweep": "gpe.ablation",
    "doctor": "gpe.ops.backend",
    "dual_crop": "gpe.ops.dual_crop",
    "flip_difference": "gpe.ops.flip_difference",
    "fused_augshift_loss": "gpe.augshift",
    "gap_mse": "gpe.ops.gap_mse",
    "load_location_checkpoint": "gpe.models",
    "mask_channels": "gpe.ops.mask_channels",
    "place_on_grid": "gpe.ops.place_on_grid",
    "rank_channels": "gpe.ranking",
    "region_confusion": "gpe.ops.region_confusion",
    "resnet18": "gpe.models",
    "resnet50": "gpe.models",
}

__all__ = [
    "AblationResult",
    "AugShiftLoss",
    "ChannelRanking",
    "Classifier",
    "GAPNet",
    "InputError",
    "LogAverageMissRate",
    "PermuteNet",
    "RegionIoU",
    "ShiftConsistency",
    "ablated",
    "ablation_sweep",
    "doctor",
    "dual_crop",
    "flip_difference",
    "fused_augshift_loss",
    "gap_mse",
    "load_location_checkpoint",
    "mask_channels",
    "place_on_grid",
    "rank_channels",
    "region_confusion",
    "resnet18",
    "resnet50",
]


def __getattr__(name: str):
    if name == "__version__":
        return metadata.version("gpe")  # pyproject.toml says it
    if name not in _HOMES:
        raise AttributeError(f"module 'gpe' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
