"""A detector from a file, whichever of them it holds."""

from pathlib import Path

from gpe.models.detection.csp import load_csp
from gpe.models.detection.detector import Detector


def load_detector(path: str | Path) -> tuple[str, Detector]:
    """A published detector, or one of the same form, in evaluation mode, and which it is.

    Returns:
        ``"csp"``, and the network.

    Raises:
        InputError: no such file, or weights of another network, with the names that differ.
    """
    return "csp", load_csp(path)
