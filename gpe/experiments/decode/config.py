"""Every option of ``gpe decode``, and what its readouts are called."""

from dataclasses import dataclass

from gpe.choices import Readout
from gpe.errors import InputError
from gpe.experiments.canvases import DEPTH, LAST, CanvasConfig
from gpe.experiments.options import MODEL_HELP, Command, option

# What a readout is called, how it goes about it, its colour, and its dashes, so that equal lines
# both show.
READOUTS = {
    "gapnet": ("GAPNet", "1×1 convolution, then pooling (Equation S1)", "blue", ""),
    "permutenet": ("PermuteNet", "channels in a new order each time", "red", "7 3"),
    "fixed": ("PermuteNet, fixed", "one other order for all: a control", "grey", "2.5 2.5"),
}


@dataclass(frozen=True, kw_only=True)
class DecodeConfig(CanvasConfig):
    """What is read from what."""

    # Grids change fastest: a network is opened once for all of them.
    SWEPT = ("seed", "model", "weights", "grid_size")

    model: str = option(MODEL_HELP, "resnet18")
    grid_size: int = option(
        "Cells along each side of the canvas", flag="--grid", at_least=2, several="3,5,7"
    )
    layers: tuple[str, ...] = option(
        "depth: every stage; last: the last feature map; or names of layers",
        (DEPTH,),
        flag="--layer",
    )
    readouts: tuple[Readout, ...] = option(
        "gapnet, permutenet, or fixed: one permutation for all, a control",
        tuple(READOUTS),
        flag="--readout",
    )
    train_images: int = option("Number of images to train readouts on", 1600, at_least=1)
    test_images: int = option("Number of test images, which readouts never see", 400, at_least=1)
    epochs: int = option("Passes of a readout over its latents", 60, at_least=1)
    batch_size: int = option("Latents in a batch", 48, at_least=1)
    learning_rate: float = option("AdamW learning rate, the cycle's largest", 0.01, above=0)
    weight_decay: float = option("AdamW weight decay", 0.01, at_least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, chosen in (("layers", self.layers), ("readouts", self.readouts)):
            if not chosen or "" in chosen or len(set(chosen)) < len(chosen):
                raise InputError(f"{name}: expected one or more, each once, got {chosen}")
        if len(self.layers) > 1 and {DEPTH, LAST} & set(self.layers):
            raise InputError(f"layers: expected {DEPTH}, {LAST} or names, got {self.layers}")
        if self.train_images < self.grid_size**2:
            raise InputError(
                f"train_images: expected at least {self.grid_size**2}, one for each cell, "
                f"got {self.train_images}"
            )

    @property
    def layers_read(self) -> tuple[str, ...]:
        return self.layers

    @property
    def images_read(self) -> tuple[int, int]:
        return self.train_images, self.test_images

    @property
    def title(self) -> tuple[str, ...]:
        return ("decode", *super().title)


COMMANDS = (
    Command(
        "decode",
        DecodeConfig,
        run="run",
        help="Read from a frozen network where on a canvas an image lies (Figure S1).\n\n"
        "--model, --weights, --grid and --seed take several values, separated by commas: every "
        "combination is read. --layer and --readout take several for each.",
        places=("root", "download", "out", "resume", "force"),
    ),
)
