"""``gpe augshift``."""

from pathlib import Path
from typing import Annotated

from rich.console import Console

from gpe.cli import common
from gpe.cli.options import combinations, divide, option, preset_option, print_runs, values

METHODS = "baseline,wide-crops,augshift,blurpool,blurpool-augshift"


def command(
    method: Annotated[str, option("Rows of the comparison.")] = METHODS,
    data: common.ClassData = "digits",
    preset: Annotated[
        str, option("quick, fast (one GPU), or paper: the usual long recipes.")
    ] = "quick",
    seeds: Annotated[int, option("So many seeds, for mean and spread.")] = 1,
    seed: Annotated[int, option("The first of them.")] = 0,
    network: Annotated[str, option("resnet18 or resnet50.")] = "resnet18",
    images: Annotated[
        str | None,
        option("small: held in memory; large: read as needed.", show_default="the data's"),
    ] = None,
    split: Annotated[
        str, option("Tested on: test, or validation, a part of the training images.")
    ] = "test",
    equal_compute: Annotated[
        bool, option("Half as many images where each has two crops; else as many, as in the paper.")
    ] = True,
    weight: Annotated[
        str | None, preset_option("λ of the loss; several values make a sweep.")
    ] = None,
    relative: Annotated[
        bool | None,
        option(
            "The loss relative to the latents' variance; --no-relative: the paper's.",
            show_default="relative",
            rich_help_panel="Hyperparameters",
        ),
    ] = None,
    crop_shift: Annotated[
        str | None, preset_option("Pixels that a training crop is off centre; several: a sweep.")
    ] = None,
    stem: Annotated[
        str | None, preset_option("grid (stride 2), cifar (stride 1) or imagenet (stride 4).")
    ] = None,
    width: common.Width = None,
    epochs: Annotated[int | None, preset_option("Of epoch-images crops each.")] = None,
    train_images: common.TrainImages = None,
    test_images: common.TestImages = None,
    epoch_images: Annotated[int | None, preset_option("Crops an epoch.")] = None,
    batch_size: Annotated[int | None, preset_option("Training crops a step.")] = None,
    test_batch_size: common.TestBatchSize = None,
    learning_rate: Annotated[float | None, preset_option("Of SGD.")] = None,
    momentum: Annotated[float | None, preset_option("Of SGD, Nesterov's.")] = None,
    weight_decay: Annotated[float | None, preset_option("Of SGD.")] = None,
    schedule: Annotated[str | None, preset_option("cosine, one-cycle or step.")] = None,
    label_smoothing: Annotated[float | None, preset_option("Of the cross entropies.")] = None,
    flip: Annotated[bool | None, preset_option("Mirror half of the training crops.")] = None,
    image_size: Annotated[
        int | None, preset_option("Height and width of what the network sees, in pixels.")
    ] = None,
    resize_size: Annotated[
        int | None, preset_option("Of the shorter side of large images, in pixels.")
    ] = None,
    reading: Annotated[
        str | None, preset_option("Of large images: resized (random area) or plain.")
    ] = None,
    protocol: common.Protocol = "zeros",
    shifts: Annotated[
        str | None, preset_option("Largest shifts, in pixels, to measure consistency under.")
    ] = None,
    passes: Annotated[
        int | None, preset_option("Pairs of shifts of each test image, by largest shift.")
    ] = None,
    device: common.Device = "auto",
    precision: common.PresetPrecision = None,
    compile: Annotated[bool | None, preset_option("Compile the training step.")] = None,
    workers: Annotated[
        int | None, option("Processes that decode large images.", show_default="one a core")
    ] = None,
    root: common.ClassRoot = Path("data"),
    download: common.Download = False,
    out: common.Out = Path("runs"),
    resume: common.Resume = False,
    force: common.Force = False,
    as_json: common.AsJson = False,
) -> None:
    """Train networks that answer alike when the image moves (Table 2, Figure S2).

    --method, --weight and --crop-shift take several values, separated by commas: every
    combination is run.
    """
    options, places = divide(locals(), "seeds")
    from gpe.errors import expect_at_least_one
    from gpe.experiments.augshift import run
    from gpe.experiments.augshift_config import AugShiftConfig
    from gpe.experiments.progress import Progress

    expect_at_least_one("seeds", seeds)
    options["shifts"] = shifts and values("shifts", shifts, int)
    # Seeds change slowest: each draws its own images, which are loaded once that way.
    several = {
        "seed": range(seed, seed + seeds),
        "method": values("method", method),
        "weight": values("weight", weight, float) if weight else (None,),
        "crop_shift": values("crop_shift", crop_shift, int) if crop_shift else (None,),
    }
    configs = [AugShiftConfig.of_preset(**options | each) for each in combinations(several)]
    configs = list(dict.fromkeys(configs))  # rows without the loss have no weight to vary

    progress = Progress(Console(stderr=True), runs=len(configs))
    print_runs(run(configs, progress=progress, **places), out, as_json)
