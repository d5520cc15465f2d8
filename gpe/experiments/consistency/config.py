"""Every option of ``gpe consistency``."""

from dataclasses import dataclass
from pathlib import Path

from gpe.choices import SMALL_SETS, Precision, ShiftProtocol
from gpe.errors import InputError
from gpe.experiments.options import (
    MODEL_HELP,
    Command,
    Config,
    batch_size_option,
    device_option,
    option,
    precision_option,
    short_names,
)
from gpe.experiments.shifts import PROTOCOL_HELP


@dataclass(frozen=True, kw_only=True)
class ConsistencyConfig(Config):
    """What is scored, and how."""

    model: str = option(MODEL_HELP, argument=True)
    network: str = option("Its name", "", hidden=True)
    weights_digest: str = option("Of its weights", "", hidden=True)
    weights: str | None = option("A file of weights, or random", None, unset="the library's")
    data: str = option(f"{SMALL_SETS}, imagenet, or a folder of images, by class or without")
    protocol: ShiftProtocol = option(PROTOCOL_HELP, "zeros")
    shifts: tuple[int, ...] = option("Maximum shifts (px)", (8, 16), at_least=1)
    passes: int = option("Pairs of shifts for each image and maximum", 1, at_least=1)
    images: int | None = option("Number of images, drawn by seed 0", None, unset="all", at_least=1)
    image_size: int | None = option(
        "What the network sees (px)", None, unset="the model's", at_least=1
    )
    resize_size: int | None = option(
        "Shorter side before (px)", None, unset="the model's", at_least=1
    )
    batch_size: int = batch_size_option(64)
    device: str = device_option()
    precision: Precision = precision_option()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.shifts:
            raise InputError("shifts: expected one or more, got none")

    @property
    def title(self) -> tuple[str, ...]:
        return ("consistency", *short_names(self.model), Path(self.data).name)


COMMANDS = (
    Command(
        "consistency",
        ConsistencyConfig,
        run="run",
        help="Score any classifier: how often does the answer stay when the image moves?",
        places=("workers", "root", "download", "max_pixels", "out", "resume", "force"),
    ),
)
