"""What is measured of a network beyond its accuracy."""

from gpe.metrics.consistency import Consistency, ShiftConsistency, shift_consistency

__all__ = ["Consistency", "ShiftConsistency", "shift_consistency"]
