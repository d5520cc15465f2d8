"""What is measured of a network beyond its accuracy."""

from gpe.metrics.consistency import Consistency, ShiftConsistency, shift_consistency
from gpe.metrics.region_iou import RegionIoU, class_iou, mean_iou, resolve_regions

__all__ = [
    "Consistency",
    "RegionIoU",
    "ShiftConsistency",
    "class_iou",
    "mean_iou",
    "resolve_regions",
    "shift_consistency",
]
