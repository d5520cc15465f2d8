"""``gpe atlas``."""

from pathlib import Path
from typing import Annotated

import typer

from gpe.cli import common
from gpe.cli.options import combinations, divide, option, print_runs, telling, values


def command(
    models: Annotated[list[str], typer.Argument(help=common.NETWORKS)],
    grid: common.Grid = "3",
    weights: common.Weights = "pretrained",
    layer: Annotated[str, option("last: the last feature map; or the name of a layer.")] = "last",
    regions: Annotated[
        str,
        option("Rank for left, right, top, bottom, centre, or cells from 0 as 0+3; several."),
    ] = "left,right,top,bottom",
    data: common.CellData = "digits",
    image_size: common.CellSize = 32,
    images: Annotated[int, option("At most so many; each lies once in each cell.")] = 200,
    canvases: common.Canvases = 32,
    seed: Annotated[int, option("Of images, mirrored cells and random weights.")] = 0,
    device: common.Device = "auto",
    root: common.CellRoot = Path("data"),
    download: common.Download = False,
    out: common.Out = Path("runs"),
    force: common.Force = False,
    as_json: common.AsJson = False,
) -> None:
    """Map where each channel responds, and rank channels by what they tell of the cell.

    The rankings, by information, by mirroring and for each region, lie beside the record and
    go into gpe ablate --rankings.
    """
    options, places = divide(locals(), "models", "grid")
    from gpe.experiments.atlas import run
    from gpe.experiments.atlas_config import AtlasConfig

    options["regions"] = values("regions", regions)
    several = {"model": models, "grid_size": values("grid", grid, int)}
    configs = dict.fromkeys(AtlasConfig(**options | each) for each in combinations(several))
    with telling(models[0]) as tell:
        directories = run(list(configs), tell=tell, **places)
    print_runs(directories, out, as_json)
