"""``gpe consistency``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from gpe.cli.options import choose_device, option, print_runs, values


def command(
    model: Annotated[
        str,
        typer.Argument(
            help="A directory that gpe augshift left, or a classifier of torchvision or timm: "
            "resnet18, timm/resnet50.a1_in1k."
        ),
    ],
    data: Annotated[
        str, option("digits, cifar10, cifar100, imagenet, or a folder of images by class.")
    ],
    weights: Annotated[
        str | None,
        option("A file of weights, or random.", show_default="the library's, downloaded"),
    ] = None,
    protocol: Annotated[
        str, option("What shifts in: zeros, reflect, circular, or crop: the image's own border.")
    ] = "zeros",
    shifts: Annotated[str, option("Largest shifts, in pixels.")] = "8,16",
    passes: Annotated[int, option("Pairs of shifts of each image, by largest shift.")] = 1,
    images: Annotated[int | None, option("At most so many.", show_default="all")] = None,
    image_size: Annotated[
        int | None, option("What the network sees, in pixels.", show_default="the model's")
    ] = None,
    resize_size: Annotated[
        int | None, option("Of the shorter side before, in pixels.", show_default="the model's")
    ] = None,
    batch_size: Annotated[int, option("Images a batch.")] = 64,
    device: Annotated[str, option("auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[str, option("fp32 or bf16.")] = "fp32",
    workers: Annotated[
        int | None, option("Processes that decode images.", show_default="one a core")
    ] = None,
    root: Annotated[Path, option("Directory of CIFAR's or ImageNet's files.")] = Path("data"),
    download: Annotated[bool, option("Fetch CIFAR into --root.", "--download")] = False,
    out: Annotated[Path, option("Directory of the records.")] = Path("runs"),
    as_json: Annotated[bool, option("Print the record alone.", "--json")] = False,
) -> None:
    """Score any classifier: how often does it answer alike when the image moves?"""
    from gpe.experiments.consistency import ConsistencyConfig, score

    config = ConsistencyConfig(
        model=model,
        weights=weights,
        data=data,
        protocol=protocol,
        shifts=values("shifts", shifts, int),
        passes=passes,
        images=images,
        image_size=image_size,
        resize_size=resize_size,
        batch_size=batch_size,
        device=choose_device(device),
        precision=precision,
    )
    console = Console(stderr=True)
    with console.status(f"{model} on {data}"):
        directory = score(config, out, root=root, download=download, workers=workers)
    print_runs([directory], out, as_json)
