"""Pedestrian detectors under the names and shapes of the published checkpoints (Table S1)."""

from gpe.models.detection.csp import CSP, csp
from gpe.models.detection.detector import Detector
from gpe.models.detection.files import load_detector

__all__ = ["CSP", "Detector", "csp", "load_detector"]
