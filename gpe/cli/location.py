"""``gpe location``."""

from pathlib import Path
from typing import Annotated

from rich.console import Console

from gpe.cli import common
from gpe.cli.options import combinations, divide, option, preset_option, print_runs, values


def command(
    network: Annotated[str, option("gapnet or permutenet.")] = "gapnet",
    task: Annotated[str, option("location (where is it?) or object (what is it?).")] = "location",
    grid: common.Grid = "3",
    padding: Annotated[str, option("zeros, reflect, replicate or circular.")] = "zeros",
    permutation: Annotated[str, option("PermuteNet's: random, or fixed as a control.")] = "random",
    data: common.CellData = "digits",
    preset: Annotated[str, option("quick, or paper: the authors' recipe.")] = "quick",
    seed: Annotated[str, option("Of weights, batches and cells.")] = "0",
    width: common.Width = None,
    epochs: Annotated[int | None, preset_option("Passes over the training images.")] = None,
    train_images: Annotated[
        int | None, preset_option("Images an epoch; a smaller set is gone through repeatedly.")
    ] = None,
    test_images: common.TestImages = None,
    batch_size: Annotated[int | None, preset_option("Training images a step.")] = None,
    test_batch_size: common.TestBatchSize = None,
    learning_rate: Annotated[float | None, preset_option("Of Adam.")] = None,
    betas: Annotated[str | None, preset_option("Of Adam, two numbers.")] = None,
    weight_decay: Annotated[float | None, preset_option("Of Adam.")] = None,
    schedule: Annotated[str | None, preset_option("constant or one-cycle.")] = None,
    flip: Annotated[bool | None, preset_option("Mirror half of the training images.")] = None,
    bn_batches: Annotated[
        int | None, preset_option("Batches to estimate batch norm's averages from; 0: running.")
    ] = None,
    image_size: common.CellSize = 32,
    device: common.Device = "auto",
    precision: common.Precision = "fp32",
    compile: common.Compile = False,
    root: common.CellRoot = Path("data"),
    download: common.Download = False,
    out: common.Out = Path("runs"),
    resume: common.Resume = False,
    force: common.Force = False,
    as_json: common.AsJson = False,
) -> None:
    """Train and test networks that tell where an image patch lies (Table 1).

    --network, --task, --grid, --padding, --permutation and --seed take several values,
    separated by commas: every combination is run.
    """
    options, places = divide(locals(), "grid", "padding")
    from gpe.experiments.location import LocationConfig, run
    from gpe.experiments.progress import Progress

    options["betas"] = betas and values("betas", betas, float)
    # Seeds change slowest: each may draw its own images, which are loaded once that way.
    several = {
        "seed": values("seed", seed, int),
        "task": values("task", task),
        "padding_mode": values("padding", padding),
        "network": values("network", network),
        "permutation": values("permutation", permutation),
        "grid_size": values("grid", grid, int),
    }
    configs = [LocationConfig.of_preset(**options | each) for each in combinations(several)]
    configs = list(dict.fromkeys(configs))  # GAPNet has no permutation to vary

    progress = Progress(Console(stderr=True), runs=len(configs))
    print_runs(run(configs, progress=progress, **places), out, as_json)
