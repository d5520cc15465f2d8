"""``gpe ablate``."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from gpe.cli import common, targeting
from gpe.cli.options import divide, option, print_runs, telling
from gpe.errors import InputError, expect_one_of

# Options that one of the two tasks alone has.
SEGMENT = ("regions", "engine", "layer", "split", "size", "output_stride", "boxes", "person")
CLASSIFY = ("weights", "image_size", "resize_size", "download")
segment_option = partial(option, rich_help_panel="With --task segment")
classify_option = partial(option, rich_help_panel="With --task classify")


def command(
    checkpoints: Annotated[
        list[str],
        typer.Argument(
            help=targeting.CHECKPOINT + " To classify: runs of gpe augshift, or classifiers of "
            "torchvision or timm: resnet18, timm/resnet50.a1_in1k. Several are told of side by "
            "side."
        ),
    ],
    task: Annotated[str, option("segment or classify.")] = "segment",
    modes: targeting.Modes = "overall",
    rankings: Annotated[
        str | None,
        option("Files that gpe rank left, or the paper's JSON, as FILE or NAME=FILE; not --modes."),
    ] = None,
    random_seeds: targeting.RandomSeeds = None,
    counts: targeting.Counts = None,
    ranges: Annotated[
        bool, option("Remove each twentieth of a ranking by itself, too.", "--ranges/--no-ranges")
    ] = True,
    regions: Annotated[
        str | None, segment_option("Of full, left, centre and right.", show_default="all")
    ] = None,
    engine: Annotated[
        str | None, segment_option("auto, incremental or general.", show_default="auto")
    ] = None,
    layer: Annotated[
        str | None,
        segment_option("Whose channels are ranked and removed.", show_default="backbone.layer4"),
    ] = None,
    data: Annotated[
        str | None,
        option(
            "streets, camvid, cityscapes or voc; to classify digits, cifar10, cifar100, imagenet "
            "or a folder of images by class.",
            show_default="what it was trained on",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        classify_option("A file of weights, or random.", show_default="the library's, downloaded"),
    ] = None,
    image_size: Annotated[
        int | None,
        classify_option("What the network sees, in pixels.", show_default="the model's"),
    ] = None,
    resize_size: Annotated[
        int | None,
        classify_option("Of the shorter side before, in pixels.", show_default="the model's"),
    ] = None,
    download: Annotated[bool, classify_option("Fetch CIFAR into --root.", "--download")] = False,
    split: common.Split = None,
    size: common.Size = None,
    images: targeting.Images = None,
    output_stride: common.OutputStride = None,
    boxes: targeting.Boxes = None,
    person: targeting.Person = None,
    batch_size: targeting.BatchSize = None,
    seed: targeting.Seed = 0,
    device: common.Device = "auto",
    precision: common.Precision = "fp32",
    workers: common.Workers = None,
    root: common.Root = Path("data"),
    out: common.Out = Path("runs"),
    force: common.Force = False,
    as_json: common.AsJson = False,
) -> None:
    """Remove ranked channels and score what is left (section 4.2.2).

    Of a segmentation network region by region; of a classifier the channels before its linear
    layer, top-1.
    """
    arguments = locals()
    expect_one_of("task", task, ("segment", "classify"))
    refused = CLASSIFY if task == "segment" else SEGMENT
    for name in refused:
        if arguments[name]:
            raise InputError(f"{name}: expected none with --task {task}, got {arguments[name]}")
    options, places = divide(arguments, "checkpoints", "task", *refused)
    targeting.parse(options)
    if options["rankings"]:
        options["modes"] = ()
    if task == "classify":
        _classify(checkpoints, options, places, as_json)
    else:
        targeting.run("ablate", checkpoints, options, places, as_json)


def _classify(
    models: Sequence[str], options: dict[str, Any], places: dict[str, Any], as_json: bool
) -> None:
    from gpe.experiments.classification import ClassificationConfig, ablate

    if options["data"] is None:
        raise InputError("data: expected one with --task classify, got none")
    given = {name: value for name, value in options.items() if value is not None}
    directories = []
    for config in [ClassificationConfig(model, **given) for model in models]:
        with telling(f"ablate: {config.model} on {config.data}"):
            directories.append(ablate(config, **places))
    print_runs(directories, places["out"], as_json)
