"""Where a patch lies, read from a frozen network (supplement, S1)."""

from gpe.models.stages import layers_by_depth
from gpe.readout.latents import grid_latents
from gpe.readout.readouts import READOUTS, Kind, Readout, build_readout
from gpe.readout.training import Answers, answer, train_readout

__all__ = [
    "READOUTS",
    "Answers",
    "Kind",
    "Readout",
    "answer",
    "build_readout",
    "grid_latents",
    "layers_by_depth",
    "train_readout",
]
