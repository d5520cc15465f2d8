"""Pedestrian detectors under the names and shapes of the published checkpoints (Table S1)."""

from gpe.models.detection.csp import CSP, csp, load_csp

__all__ = ["CSP", "csp", "load_csp"]
