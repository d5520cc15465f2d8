"""``gpe segment train`` and ``gpe segment evaluate``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from gpe.cli import common
from gpe.cli.options import divide, option, preset_option, print_runs, telling, values
from gpe.errors import InputError

app = typer.Typer(no_args_is_help=True, help="Networks that name the class of each pixel.")


@app.command()
def train(
    preset: Annotated[
        str, option("quick (streets, two cores), camvid, or cityscapes: the paper's network.")
    ] = "quick",
    data: Annotated[str | None, preset_option("streets, camvid, cityscapes or voc.")] = None,
    seed: Annotated[str, option("Of weights, batches and views; several: a run each.")] = "0",
    split: Annotated[str, option("Tested on.")] = "val",
    backbone: Annotated[str | None, preset_option("resnet18 or resnet50.")] = None,
    weights: Annotated[
        str | None, preset_option("The backbone's to start from: imagenet, or a file.")
    ] = None,
    width: common.Width = None,
    output_stride: Annotated[int | None, preset_option("8 or 16.")] = None,
    size: Annotated[str | None, preset_option("Resize images to HEIGHT,WIDTH.")] = None,
    crop: Annotated[str | None, preset_option("Of training views: HEIGHT,WIDTH.")] = None,
    scales: Annotated[str | None, preset_option("Of training views: LEAST,LARGEST.")] = None,
    flip: Annotated[bool | None, preset_option("Mirror half of the training views.")] = None,
    epochs: Annotated[int | None, preset_option("Of all training images each.")] = None,
    train_images: common.TrainImages = None,
    test_images: common.TestImages = None,
    batch_size: Annotated[int | None, preset_option("Training views a step.")] = None,
    test_batch_size: common.TestBatchSize = None,
    learning_rate: Annotated[float | None, preset_option("Of SGD at the start.")] = None,
    backbone_rate: Annotated[
        float | None, preset_option("The backbone's learning rate as a share of that.")
    ] = None,
    momentum: Annotated[float | None, preset_option("Of SGD.")] = None,
    weight_decay: Annotated[float | None, preset_option("Of SGD.")] = None,
    power: Annotated[float | None, preset_option("With which the learning rate falls.")] = None,
    device: common.Device = "auto",
    precision: common.PresetPrecision = None,
    compile: common.Compile = False,
    workers: common.Workers = None,
    root: common.Root = Path("data"),
    out: common.Out = Path("runs"),
    resume: common.Resume = False,
    force: common.Force = False,
    as_json: common.AsJson = False,
) -> None:
    """Train a DeepLabv3 and score it on the whole image and on its parts (section 4.2)."""
    options, places = divide(locals())
    from gpe.experiments.progress import Progress
    from gpe.experiments.segmentation import run
    from gpe.experiments.segmentation_config import SegmentationConfig

    options |= {
        "size": size and _pair("size", size),
        "crop": crop and _pair("crop", crop),
        "scales": scales and _pair("scales", scales, float),
    }
    seeds = dict.fromkeys(values("seed", seed, int))
    configs = [SegmentationConfig.of_preset(**options | {"seed": seed}) for seed in seeds]
    progress = Progress(Console(stderr=True), runs=len(configs))
    print_runs(run(configs, progress=progress, **places), out, as_json)


@app.command()
def evaluate(
    checkpoint: Annotated[
        str,
        typer.Argument(
            help="A directory that gpe segment train left, or a file: torchvision's weights of "
            "deeplabv3_resnet50, or the authors' checkpoint."
        ),
    ],
    data: common.PixelData = None,
    split: common.Split = None,
    size: common.Size = None,
    images: common.Images = None,
    output_stride: common.OutputStride = None,
    batch_size: Annotated[int, option("Images a batch.")] = 4,
    device: common.Device = "auto",
    precision: common.Precision = "fp32",
    workers: common.Workers = None,
    root: common.Root = Path("data"),
    out: common.Out = Path("runs"),
    as_json: common.AsJson = False,
) -> None:
    """Score a trained network: mIoU of the whole image, its halves and its centre."""
    options, places = divide(locals(), "checkpoint")
    from gpe.experiments.segmentation_evaluation import evaluate as score

    options["size"] = size and _pair("size", size)
    with telling(f"{checkpoint} on {data or 'its own dataset'}"):
        directory = score(checkpoint, **options, **places)
    print_runs([directory], out, as_json)


def _pair(name: str, text: str, kind: type = int) -> tuple:
    """Two numbers, as ``"96,192"``."""
    pair = values(name, text, kind)
    if len(pair) != 2:
        raise InputError(f"{name}: expected two numbers separated by a comma, got {text!r}")
    return pair
