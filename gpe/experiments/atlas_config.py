"""Every option of ``gpe atlas``."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpe.errors import InputError, expect_at_least_one
from gpe.experiments.decode_config import DEPTH
from gpe.experiments.networks import short_names
from gpe.experiments.runs import expect_device, expect_seed
from gpe.ranking.information import LEAST_PAIRS
from gpe.records import directory_name

# Of a grid of so many rows and columns, whether a cell in this row and this column belongs.
REGIONS: dict[str, Callable[[int, int, int], bool]] = {
    "left": lambda row, column, size: column == 0,
    "right": lambda row, column, size: column == size - 1,
    "top": lambda row, column, size: row == 0,
    "bottom": lambda row, column, size: row == size - 1,
    "centre": lambda row, column, size: max(abs(2 * x - size + 1) for x in (row, column)) < 2,
}


@dataclass(frozen=True)
class AtlasConfig:
    """What is mapped of what.

    Attributes:
        model, weights: as for :func:`gpe.experiments.networks.open_frozen`.
        grid_size: cells along each side of the canvas.
        layer: name of the layer whose channels are mapped, or ``"last"``.
        regions: that channels are ranked for: names in ``REGIONS`` or cells, ``"0+3"``.
        data: as for :func:`gpe.data.load`.
        image_size: height and width of a cell in pixels.
        images: at most so many test images; each lies once in each cell.
        canvases: that go through the network at a time.
        seed: of the draw of images, of the cells that are mirrored and of random weights.

    Raises:
        InputError: an option outside what it may be.
    """

    model: str
    weights: str
    grid_size: int
    layer: str
    regions: tuple[str, ...]
    data: str
    image_size: int
    images: int
    canvases: int
    device: str
    seed: int

    def __post_init__(self):
        if self.grid_size < 2:
            raise InputError(f"grid: expected at least 2 cells a side, got {self.grid_size}")
        for name in ("image_size", "images", "canvases"):
            expect_at_least_one(name, getattr(self, name))
        expect_enough_images(self.images)
        if self.layer in ("", DEPTH):
            raise InputError(f"layer: expected last or the name of one, got {self.layer!r}")
        named: dict[tuple[int, ...], str] = {}
        for region in self.regions:
            cells = cells_of(region, self.grid_size)
            if cells in named:
                raise InputError(
                    f"regions: expected each once, got {named[cells]!r} and {region!r}"
                )
            named[cells] = region
        expect_device(self.device)
        expect_seed(self.seed)

    @property
    def name(self) -> str:
        """A directory name that tells what was mapped; no two configurations share one."""
        grid = f"{self.grid_size}x{self.grid_size}"
        parts = ("atlas", *short_names(self.model, self.weights), grid, Path(self.data).name)
        return directory_name(self, *parts)

    @property
    def layers(self) -> tuple[str]:
        return (self.layer,)

    @property
    def test_images(self) -> int:
        return self.images

    @property
    def train_images(self) -> int:
        """They give the mean and std for a network that brings none, and nothing else."""
        return self.images

    @property
    def paper(self) -> dict[str, Any] | None:
        """Nothing: the paper has no such thing."""
        return None


def cells_of(region: str, grid_size: int) -> tuple[int, ...]:
    """The cells of a region, row by row.

    Raises:
        InputError: neither a name nor cells of the grid, or all of them.

    Example:
        >>> cells_of("left", 3), cells_of("centre", 4), cells_of("2+0", 3)
        ((0, 3, 6), (5, 6, 9, 10), (0, 2))
    """
    count = grid_size**2
    if region in REGIONS:
        inside = REGIONS[region]
        found = [cell for cell in range(count) if inside(*divmod(cell, grid_size), grid_size)]
    else:
        words = region.split("+")
        found = [int(word) for word in words if word.isdecimal() and int(word) < count]
        found = sorted(found) if len(found) == len(set(found)) == len(words) else []
    if not 0 < len(found) < count:
        raise InputError(
            f"regions: expected {', '.join(REGIONS)} or some cells of 0 to {count - 1} as 0+3, "
            f"not all, got {region!r}"
        )
    return tuple(found)


def expect_enough_images(images: int) -> None:
    """Raise an InputError unless so many images tell anything of information."""
    if images < LEAST_PAIRS:
        raise InputError(f"images: expected at least {LEAST_PAIRS}, got {images}")
