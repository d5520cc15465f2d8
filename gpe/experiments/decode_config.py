"""Every option of ``gpe decode``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpe.errors import InputError, expect_at_least_one, expect_one_of
from gpe.experiments.networks import short_names
from gpe.experiments.runs import expect_device, expect_seed
from gpe.readout import READOUTS, Kind
from gpe.readout.training import expect_enough
from gpe.records import directory_name

DEPTH, LAST = "depth", "last"


@dataclass(frozen=True)
class DecodeConfig:
    """What is read from what.

    Attributes:
        model, weights: as for :func:`gpe.experiments.networks.open_frozen`.
        grid_size: cells along each side of the canvas.
        layers: names of layers; or ``("depth",)`` for the stages of the network and ``("last",)``
            for its last feature map.
        readouts: which are trained on each layer.
        data: as for :func:`gpe.data.load`.
        image_size: height and width of a cell in pixels.
        train_images: that readouts are trained on, at most; each lies in one cell.
        test_images: that they never see, at most; each lies in one cell.
        epochs, batch_size, learning_rate, weight_decay: of :func:`gpe.readout.train_readout`.
        canvases: that go through the network at a time.
        seed: of the draw of images, of cells, of random weights and of the readouts.

    Raises:
        InputError: an option outside what it may be.
    """

    model: str
    weights: str
    grid_size: int
    layers: tuple[str, ...]
    readouts: tuple[Kind, ...]
    data: str
    image_size: int
    train_images: int
    test_images: int
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    canvases: int
    device: str
    seed: int

    def __post_init__(self):
        if self.grid_size < 2:
            raise InputError(f"grid: expected at least 2 cells a side, got {self.grid_size}")
        for name in ("image_size", "train_images", "test_images", "epochs", "batch_size"):
            expect_at_least_one(name, getattr(self, name))
        expect_at_least_one("canvases", self.canvases)
        expect_enough(self.train_images, self.grid_size**2)
        for name, known in (("layers", None), ("readouts", READOUTS)):
            chosen = getattr(self, name)
            if not chosen or "" in chosen or len(set(chosen)) < len(chosen):
                raise InputError(f"{name}: expected one or more, each once, got {chosen}")
            for one in chosen if known else ():
                expect_one_of(name, one, known)
        if len(self.layers) > 1 and {DEPTH, LAST} & set(self.layers):
            raise InputError(f"layers: expected {DEPTH}, {LAST} or names, got {self.layers}")
        if not self.learning_rate > 0:
            raise InputError(f"learning_rate: expected above 0, got {self.learning_rate}")
        if not self.weight_decay >= 0:
            raise InputError(f"weight_decay: expected at least 0, got {self.weight_decay}")
        expect_device(self.device)
        expect_seed(self.seed)

    @property
    def name(self) -> str:
        """A directory name that tells what was read; no two configurations share one."""
        grid = f"{self.grid_size}x{self.grid_size}"
        parts = ("decode", *short_names(self.model, self.weights), grid, Path(self.data).name)
        return directory_name(self, *parts)

    @property
    def paper(self) -> dict[str, Any] | None:
        """Nothing: Figure S1 is drawn without a number."""
        return None
