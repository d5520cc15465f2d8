"""``gpe atlas``."""

from itertools import product
from pathlib import Path
from typing import Annotated

import typer

from gpe.cli.options import choose_device, option, print_runs, telling, values


def command(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Classifiers of torchvision or timm, resnet18 or timm/resnet50.a1_in1k; or "
            "directories that gpe location, augshift or segment train left."
        ),
    ],
    grid: Annotated[str, option("Cells along each side of the canvas; several.")] = "3",
    weights: Annotated[
        str, option("pretrained; random, the control; or a file of a library network's weights.")
    ] = "pretrained",
    layer: Annotated[str, option("last: the last feature map; or the name of a layer.")] = "last",
    regions: Annotated[
        str,
        option("Rank for left, right, top, bottom, centre, or cells from 0 as 0+3; several."),
    ] = "left,right,top,bottom",
    data: Annotated[str, option("digits, cifar10, cifar100, or a folder of images.")] = "digits",
    image_size: Annotated[int, option("Height and width of a cell in pixels.")] = 32,
    images: Annotated[int, option("At most so many; each lies once in each cell.")] = 200,
    canvases: Annotated[int, option("Canvases through the network at a time.")] = 32,
    seed: Annotated[int, option("Of images, mirrored cells and random weights.")] = 0,
    device: Annotated[str, option("auto, cpu, cuda or cuda:N.")] = "auto",
    root: Annotated[Path, option("Directory of CIFAR's files.")] = Path("data"),
    download: Annotated[bool, option("Fetch CIFAR into --root.", "--download")] = False,
    out: Annotated[Path, option("Directory of the records.")] = Path("runs"),
    force: Annotated[bool, option("Run finished ones again.", "--force")] = False,
    as_json: Annotated[
        bool, option("Print the record alone; a list of several.", "--json")
    ] = False,
) -> None:
    """Map where each channel responds, and rank channels by what they tell of the cell.

    The rankings, by information, by mirroring and for each region, lie beside the record and
    go into gpe ablate --rankings.
    """
    from gpe.experiments.atlas import run
    from gpe.experiments.atlas_config import AtlasConfig

    configs = [
        AtlasConfig(
            model=model,
            weights=weights,
            grid_size=cells,
            layer=layer,
            regions=values("regions", regions),
            data=data,
            image_size=image_size,
            images=images,
            canvases=canvases,
            device=choose_device(device),
            seed=seed,
        )
        for model, cells in product(models, values("grid", grid, int))
    ]
    with telling(models[0]) as tell:
        directories = run(
            list(dict.fromkeys(configs)),
            out,
            root=root,
            download=download,
            force=force,
            tell=tell,
        )
    print_runs(directories, out, as_json)
