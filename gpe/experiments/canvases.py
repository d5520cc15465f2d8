"""Options of the experiments that look at frozen networks on canvases: decode and atlas."""

from dataclasses import dataclass
from pathlib import Path

from gpe.choices import SMALL_SETS
from gpe.experiments.options import (
    MODEL_HELP,
    PRETRAINED,
    WEIGHTS_HELP,
    Config,
    channel_dim_option,
    device_option,
    option,
    seed_option,
    short_names,
)

DEPTH, LAST = "depth", "last"  # every stage of a network, and its last feature map


@dataclass(frozen=True, kw_only=True)
class CanvasConfig(Config):
    """A frozen network, and images in the cells of a canvas."""

    model: str = option(MODEL_HELP)
    weights: str = option(WEIGHTS_HELP, PRETRAINED)
    weights_digest: str = option("Of the network's weights", "", hidden=True)
    grid_size: int = option("Cells along each side of the canvas", flag="--grid", at_least=2)
    data: str = option(f"{SMALL_SETS}, or a folder of images", "digits")
    image_size: int = option("Height and width of a cell (px)", 32, at_least=1)
    canvases: int = option("Canvases in a batch", 32, at_least=1)
    channel_dim: int | None = channel_dim_option()
    device: str = device_option()
    seed: int = seed_option("Seed of images, cells and random weights")

    @property
    def layers_read(self) -> tuple[str, ...]:
        """Names of layers, or ``DEPTH`` or ``LAST`` alone."""
        raise NotImplementedError

    @property
    def images_read(self) -> tuple[int, int]:
        """At most so many images to train on, and to test on."""
        raise NotImplementedError

    @property
    def title(self) -> tuple[str, ...]:
        grid = f"{self.grid_size}x{self.grid_size}"
        return (*short_names(self.model, self.weights), grid, Path(self.data).name)
