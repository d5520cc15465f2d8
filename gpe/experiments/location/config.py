"""Every option of ``gpe location``, its recipes, and what the paper has in Table 1."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from gpe.choices import SMALL_SETS, PaddingMode, Permutation, Precision
from gpe.errors import InputError, expect_one_of
from gpe.experiments.options import (
    TORCHRUN_HELP,
    Command,
    TrainingConfig,
    device_option,
    option,
    precision_option,
    preset_option,
    seed_option,
)

Network = Literal["gapnet", "permutenet"]
Task = Literal["location", "object"]

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

# What the report calls them, in the order of Table 1. "fixed" is PermuteNet with one permutation.
TASKS = {"location": "Location: where is it?", "object": "Object: what is it?"}
# The controls are PermuteNet with one permutation, with sorted channels, or with their mean alone.
CONTROLS = ("fixed", "sorted", "mean")
NETWORKS = {
    "gapnet": "GAPNet",
    "permutenet": "PermuteNet",
    "fixed": "PermuteNet, fixed shuffle",
    "sorted": "PermuteNet, sorted",
    "mean": "PermuteNet, mean",
}
COLOURS = {
    "gapnet": "blue",
    "permutenet": "red",
    "fixed": "grey",
    "sorted": "teal",
    "mean": "amber",
}
DASHES = {"zeros": "", "reflect": "7 3", "replicate": "2.5 2.5", "circular": "8 3 2 3"}

_COMMON: dict[str, Any] = {
    "batch_size": 48,
    "test_batch_size": 100,
    "betas": (0.5, 0.999),
    "weight_decay": 0.0,
    "flip": True,
}

STRIDE = 16  # pixels of the canvas to one place of the last feature map


@dataclass(frozen=True, kw_only=True)
class LocationConfig(TrainingConfig):
    """Every option of one run."""

    SWEPT = (
        *("seed", "task", "padding_mode", "network", "permutation", "grid_size"),
        *("width", "train_images"),
    )
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # Two CPU cores finish it in a minute.
        "quick": _COMMON
        | {
            "width": 8,
            "epochs": {"location": 3, "object": 5},
            "train_images": 4000,
            "test_images": 1000,
            "learning_rate": 0.002,
            "schedule": "one-cycle",
            "bn_batches": 20,
        },
        # The authors' recipe (section 3.2 and their code).
        "paper": _COMMON
        | {
            "width": 64,
            "epochs": {"location": 20, "object": 100},
            "train_images": None,
            "test_images": None,
            "learning_rate": {"location": 0.001, "object": 0.01},
            "schedule": "constant",
            "bn_batches": 0,
        },
    }

    network: Network = option("gapnet or permutenet", "gapnet")
    task: Task = option("location (where is it?) or object (what is it?)", "location")
    grid_size: int = option("Cells along each side of the canvas", 3, flag="--grid", at_least=1)
    padding_mode: PaddingMode = option(
        "Padding of convolutions: zeros, reflect, replicate or circular", "zeros", flag="--padding"
    )
    permutation: Permutation | None = option(
        "PermuteNet's: random, drawn for each batch; or a control: fixed, sorted (by value), mean",
        None,
        unset="random",
    )
    data: str = option(f"{SMALL_SETS}, or a folder of images", "digits")
    image_size: int = option("Height and width of a cell (px)", 32, at_least=1)
    preset: str = option("quick, or paper: the authors' recipe")
    width: int = preset_option("Channels of the first stage", at_least=1)
    epochs: int = preset_option("Passes over the training images, by task", at_least=1)
    train_images: int | None = preset_option(
        "Images in an epoch; a smaller set is gone through repeatedly", at_least=1
    )
    test_images: int | None = preset_option("Number of test images", at_least=1)
    batch_size: int = preset_option("Training images in a batch", at_least=1)
    test_batch_size: int = preset_option("Test images in a batch", at_least=1)
    learning_rate: float = preset_option("Adam learning rate", above=0)
    betas: tuple[float, float] = preset_option("Adam betas", at_least=0)
    weight_decay: float = preset_option("Adam weight decay", at_least=0)
    schedule: Literal["constant", "one-cycle"] = preset_option("constant or one-cycle")
    flip: bool = preset_option("Mirror half of the training images")
    bn_batches: int = preset_option(
        "Batches from which batch norm's averages are estimated; 0: running averages", at_least=0
    )
    device: str = device_option()
    precision: Precision = precision_option()
    compile: bool = option("Compile the network", False)
    seed: int = seed_option("Seed of weights, batches and cells")

    @classmethod
    def preset_values(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        values = super().preset_values(given)
        task = given.get("task", "location")
        values = {
            name: value.get(task) if isinstance(value, dict) else value
            for name, value in values.items()
        }
        return values if given.get("network") == "gapnet" else {**values, "permutation": "random"}

    @classmethod
    def of(cls, **given: Any) -> "LocationConfig":
        """GAPNet has no permutation."""
        given["network"] = given.get("network") or "gapnet"
        if given["network"] == "gapnet" and given.get("permutation") is not None:
            expect_one_of("permutation", given["permutation"], get_args(Permutation))
            given["permutation"] = None
        return super().of(**given)

    @classmethod
    def several(cls, **given: Any) -> "list[LocationConfig]":
        if given.get("permutation") and "permutenet" not in given.get("network", ()):
            raise InputError("permutation: expected none without --network permutenet, got one")
        return super().several(**given)

    def __post_init__(self) -> None:
        super().__post_init__()
        if max(self.betas) >= 1:
            raise InputError(f"betas: expected two numbers in [0, 1), got {self.betas}")
        side = self.grid_size * self.image_size
        if side <= STRIDE:
            raise InputError(
                f"image_size: expected canvases of more than {STRIDE} pixels a side, so that there "
                f"are places to pool over, got {self.grid_size} × {self.image_size} = {side}"
            )

    @property
    def title(self) -> tuple[str, ...]:
        control = self.permutation if self.permutation in CONTROLS else None
        network = "-".join(filter(None, (self.network, control)))
        grid = f"{self.grid_size}x{self.grid_size}"
        data = Path(self.data).name
        return (self.task, network, grid, self.padding_mode, data, self.preset)

    @property
    def paper(self) -> dict[str, Any] | None:
        """The paper's value for this cell of Table 1."""
        row = TABLE_1.get((self.task, self.padding_mode, self.network))
        if row is None or self.grid_size not in TABLE_1_GRIDS or self.permutation in CONTROLS:
            return None
        value = float(row[TABLE_1_GRIDS.index(self.grid_size)])
        return {"source": "Table 1", "value": value, "protocol": "best epoch"}


COMMANDS = (
    Command(
        "location",
        LocationConfig,
        run="run",
        help="Train and test networks that say where an image patch lies (Table 1).\n\n"
        "--network, --task, --grid, --padding, --permutation, --width, --train-images and --seed "
        f"take several values, separated by commas: every combination is run.\n\n{TORCHRUN_HELP}",
        places=("root", "download", "sync_batch_norm", "out", "resume", "force"),
    ),
)
