"""``gpe decode``."""

from pathlib import Path
from typing import Annotated

from gpe.cli import common
from gpe.cli.options import combinations, divide, option, print_runs, telling, values


def command(
    model: Annotated[str, option(common.NETWORKS)] = "resnet18",
    grid: common.Grid = "3,5,7",
    weights: common.Weights = "pretrained",
    layer: Annotated[
        str, option("depth: every stage; last: the last feature map; or names of layers.")
    ] = "depth",
    readout: Annotated[
        str, option("gapnet, permutenet, or fixed: one permutation for all, a control.")
    ] = "gapnet,permutenet,fixed",
    data: common.CellData = "digits",
    image_size: common.CellSize = 32,
    train_images: Annotated[int, option("At most so many to train readouts on.")] = 1600,
    test_images: Annotated[int, option("At most so many that readouts never see.")] = 400,
    epochs: Annotated[int, option("Passes of a readout over its latents.")] = 60,
    batch_size: Annotated[int, option("Latents a step.")] = 48,
    learning_rate: Annotated[float, option("Of AdamW, the cycle's largest.")] = 0.01,
    weight_decay: Annotated[float, option("Of AdamW.")] = 0.01,
    canvases: common.Canvases = 32,
    seed: Annotated[str, option("Of images, cells, random weights and readouts.")] = "0",
    device: common.Device = "auto",
    root: common.CellRoot = Path("data"),
    download: common.Download = False,
    out: common.Out = Path("runs"),
    force: common.Force = False,
    as_json: common.AsJson = False,
) -> None:
    """Read from a frozen network where on a canvas an image lies (Figure S1).

    --model, --weights, --grid and --seed take several values, separated by commas: every
    combination is read. --layer and --readout take several for each.
    """
    options, places = divide(locals(), "grid", "layer", "readout")
    from gpe.experiments.decode import run
    from gpe.experiments.decode_config import DecodeConfig

    options |= {"layers": values("layer", layer), "readouts": values("readout", readout)}
    # Grids change fastest: a network is opened once for all of them.
    several = {
        "seed": values("seed", seed, int),
        "model": values("model", model),
        "weights": values("weights", weights),
        "grid_size": values("grid", grid, int),
    }
    configs = dict.fromkeys(DecodeConfig(**options | each) for each in combinations(several))
    with telling(model) as tell:
        directories = run(list(configs), tell=tell, **places)
    print_runs(directories, out, as_json)
