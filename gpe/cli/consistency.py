"""``gpe consistency``."""

from pathlib import Path
from typing import Annotated

import typer

from gpe.cli import common
from gpe.cli.options import divide, option, print_runs, telling, values


def command(
    model: Annotated[
        str,
        typer.Argument(
            help="A directory that gpe augshift left, or a classifier of torchvision or timm: "
            "resnet18, timm/resnet50.a1_in1k."
        ),
    ],
    data: common.ClassData,
    weights: Annotated[
        str | None,
        option("A file of weights, or random.", show_default="the library's, downloaded"),
    ] = None,
    protocol: common.Protocol = "zeros",
    shifts: Annotated[str, option("Largest shifts, in pixels.")] = "8,16",
    passes: Annotated[int, option("Pairs of shifts of each image, by largest shift.")] = 1,
    images: common.Images = None,
    image_size: Annotated[
        int | None, option("What the network sees, in pixels.", show_default="the model's")
    ] = None,
    resize_size: Annotated[
        int | None, option("Of the shorter side before, in pixels.", show_default="the model's")
    ] = None,
    batch_size: Annotated[int, option("Images a batch.")] = 64,
    device: common.Device = "auto",
    precision: common.Precision = "fp32",
    workers: common.Workers = None,
    root: common.ClassRoot = Path("data"),
    download: common.Download = False,
    out: common.Out = Path("runs"),
    as_json: common.AsJson = False,
) -> None:
    """Score any classifier: how often does it answer alike when the image moves?"""
    options, places = divide(locals())
    from gpe.experiments.consistency import ConsistencyConfig, score

    options["shifts"] = values("shifts", shifts, int)
    with telling(f"{model} on {data}"):
        directory = score(ConsistencyConfig(**options), **places)
    print_runs([directory], out, as_json)
