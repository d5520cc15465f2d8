"""Every option of ``gpe atlas``."""

from collections.abc import Callable
from dataclasses import dataclass

from gpe.errors import InputError
from gpe.experiments.canvases import DEPTH, LAST, CanvasConfig
from gpe.experiments.options import MODEL_HELP, Command, option

# Of a grid of so many rows and columns, whether a cell in this row and this column belongs.
REGIONS: dict[str, Callable[[int, int, int], bool]] = {
    "left": lambda row, column, size: column == 0,
    "right": lambda row, column, size: column == size - 1,
    "top": lambda row, column, size: row == 0,
    "bottom": lambda row, column, size: row == size - 1,
    "centre": lambda row, column, size: max(abs(2 * x - size + 1) for x in (row, column)) < 2,
}


LEAST_IMAGES = 4  # fewer say nothing of information


@dataclass(frozen=True, kw_only=True)
class AtlasConfig(CanvasConfig):
    """What is mapped of what."""

    SWEPT = ("model", "grid_size")

    model: str = option(MODEL_HELP, argument=True, flag="models")
    grid_size: int = option(
        "Cells along each side of the canvas", flag="--grid", at_least=2, several="3"
    )
    layer: str = option("last: the last feature map; or the name of a layer", LAST)
    regions: tuple[str, ...] = option(
        "Rank for left, right, top, bottom, centre, or cells counted from 0, as 0+3",
        ("left", "right", "top", "bottom"),
    )
    images: int = option(
        "Number of images; each lies once in each cell", 200, at_least=LEAST_IMAGES
    )

    def __post_init__(self) -> None:
        super().__post_init__()
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

    @property
    def layers_read(self) -> tuple[str, ...]:
        return (self.layer,)

    @property
    def images_read(self) -> tuple[int, int]:
        """Training images give the mean and std for a network that brings none, no more."""
        return self.images, self.images

    @property
    def title(self) -> tuple[str, ...]:
        return ("atlas", *super().title)


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


COMMANDS = (
    Command(
        "atlas",
        AtlasConfig,
        run="run",
        help="Map where each channel responds, and rank channels by the information that they "
        "carry about the cell.\n\n"
        "The rankings, by information, by mirroring and for each region, lie beside the record "
        "and go into gpe ablate --rankings.",
        places=("root", "download", "out", "resume", "force"),
    ),
)
