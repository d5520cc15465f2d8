"""What is measured of a network beyond its accuracy."""

from gpe.metrics.consistency import Consistency, ShiftConsistency, shift_consistency
from gpe.metrics.detections import read_detections, write_detections
from gpe.metrics.miss_rate import LogAverageMissRate, log_average_miss_rate
from gpe.metrics.region_iou import RegionIoU, class_iou, mean_iou, resolve_regions

__all__ = [
    "Consistency",
    "LogAverageMissRate",
    "RegionIoU",
    "ShiftConsistency",
    "class_iou",
    "log_average_miss_rate",
    "mean_iou",
    "read_detections",
    "resolve_regions",
    "shift_consistency",
    "write_detections",
]
