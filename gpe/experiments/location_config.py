"""Every option of ``gpe location``, the recipes, and what the paper has in Table 1."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from gpe.errors import InputError, expect_at_least_one, expect_one_of
from gpe.experiments.runs import expect_device, expect_seed
from gpe.models.location import Permutation
from gpe.models.resnet import PaddingMode
from gpe.records import directory_name

Network = Literal["gapnet", "permutenet"]
Task = Literal["location", "object"]
Schedule = Literal["constant", "one-cycle"]
Precision = Literal["fp32", "bf16"]

# The authors' recipe (section 3.2 and their code), and one that two CPU cores finish in a minute.
PRESETS = {
    "paper": {
        "width": 64,
        "epochs": {"location": 20, "object": 100},
        "train_images": None,
        "test_images": None,
        "batch_size": 48,
        "test_batch_size": 100,
        "learning_rate": {"location": 0.001, "object": 0.01},
        "betas": (0.5, 0.999),
        "weight_decay": 0.0,
        "schedule": "constant",
        "flip": True,
        "bn_batches": 0,
    },
    "quick": {
        "width": 8,
        "epochs": {"location": 3, "object": 5},
        "train_images": 4000,
        "test_images": 1000,
        "batch_size": 48,
        "test_batch_size": 100,
        "learning_rate": 0.002,
        "betas": (0.5, 0.999),
        "weight_decay": 0.0,
        "schedule": "one-cycle",
        "flip": True,
        "bn_batches": 20,
    },
}

# Table 1 in percent: (task, padding, network) -> accuracy on 3×3, 5×5, 7×7.
TABLE_1 = {
    ("location", "zeros", "gapnet"): (100, 100, 100),
    ("location", "zeros", "permutenet"): (78.8, 37.8, 21.4),
    ("location", "reflect", "gapnet"): (100, 100, 100),
    ("location", "reflect", "permutenet"): (78.3, 36.3, 23.2),
    ("location", "replicate", "gapnet"): (100, 100, 100),
    ("location", "replicate", "permutenet"): (78.3, 40.1, 23.6),
    ("object", "zeros", "gapnet"): (82.6, 82.4, 82.1),
    ("object", "zeros", "permutenet"): (73.6, 72.2, 69.9),
    ("object", "reflect", "gapnet"): (83.8, 83.4, 82.9),
    ("object", "reflect", "permutenet"): (71.1, 71.4, 65.7),
    ("object", "replicate", "gapnet"): (83.1, 82.9, 82.8),
    ("object", "replicate", "permutenet"): (72.0, 71.5, 71.4),
}
TABLE_1_GRIDS = (3, 5, 7)

STRIDE = 16  # pixels of the canvas to one place of the last feature map


@dataclass(frozen=True)
class LocationConfig:
    """Every option of one run. :meth:`of_preset` fills in what a preset says.

    Attributes:
        permutation: PermuteNet's; None for GAPNet, which has none.
        bn_batches: to estimate batch norm's averages from before a test; 0 keeps the running ones.

    Raises:
        InputError: an option outside what it may be.
    """

    network: Network
    task: Task
    grid_size: int
    padding_mode: PaddingMode
    permutation: Permutation | None
    data: str
    image_size: int
    preset: str
    width: int
    epochs: int
    train_images: int | None
    test_images: int | None
    batch_size: int
    test_batch_size: int
    learning_rate: float
    betas: tuple[float, float]
    weight_decay: float
    schedule: Schedule
    flip: bool
    bn_batches: int
    device: str
    precision: Precision
    compile: bool
    seed: int

    @classmethod
    def of_preset(cls, preset: str, task: Task, **options: Any) -> "LocationConfig":
        """The preset for a task; options that are not None take the place of its values."""
        expect_one_of("preset", preset, PRESETS)
        expect_one_of("task", task, get_args(Task))
        values = {
            name: value[task] if isinstance(value, dict) else value
            for name, value in PRESETS[preset].items()
        }
        values |= {name: value for name, value in options.items() if value is not None}
        permutation = values.pop("permutation", "random")
        expect_one_of("permutation", permutation, get_args(Permutation))
        if values["network"] == "gapnet":
            permutation = None
        return cls(preset=preset, task=task, permutation=permutation, **values)

    def __post_init__(self):
        choices = {
            "network": Network,
            "task": Task,
            "padding_mode": PaddingMode,
            "schedule": Schedule,
            "precision": Precision,
        }
        for name, choice in choices.items():
            expect_one_of(name, getattr(self, name), get_args(choice))
        for name in ("grid_size", "image_size", "width", "epochs", "batch_size", "test_batch_size"):
            expect_at_least_one(name, getattr(self, name))
        for name in ("train_images", "test_images"):
            if getattr(self, name) is not None:
                expect_at_least_one(name, getattr(self, name))
        if self.bn_batches < 0:
            raise InputError(f"bn_batches: expected at least 0, got {self.bn_batches}")
        side = self.grid_size * self.image_size
        if side <= STRIDE:
            raise InputError(
                f"image_size: expected canvases of more than {STRIDE} pixels a side, so that there "
                f"are places to pool over, got {self.grid_size} × {self.image_size} = {side}"
            )
        expect_seed(self.seed)
        if not self.learning_rate > 0:
            raise InputError(f"learning_rate: expected above 0, got {self.learning_rate}")
        if not all(0 <= beta < 1 for beta in self.betas) or len(self.betas) != 2:
            raise InputError(f"betas: expected two numbers in [0, 1), got {self.betas}")
        if not self.weight_decay >= 0:
            raise InputError(f"weight_decay: expected at least 0, got {self.weight_decay}")
        expect_device(self.device)

    @property
    def name(self) -> str:
        """A directory name that tells what the run is; no two configurations share one."""
        network = self.network + ("-fixed" if self.permutation == "fixed" else "")
        grid = f"{self.grid_size}x{self.grid_size}"
        parts = (self.task, network, grid, self.padding_mode, Path(self.data).name, self.preset)
        return directory_name(self, *parts)

    @property
    def paper(self) -> dict[str, Any] | None:
        """The paper's value for this cell of Table 1, None where it has none."""
        row = TABLE_1.get((self.task, self.padding_mode, self.network))
        if row is None or self.grid_size not in TABLE_1_GRIDS or self.permutation == "fixed":
            return None
        value = float(row[TABLE_1_GRIDS.index(self.grid_size)])
        return {"source": "Table 1", "value": value, "protocol": "best epoch"}
