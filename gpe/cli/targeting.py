"""``gpe rank``, ``gpe ablate``, ``gpe figure4``, ``gpe figure5`` and ``gpe figure6``."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from gpe.cli import common
from gpe.cli.options import choose_device, option, print_runs, values
from gpe.errors import InputError, expect_one_of

CHECKPOINT = (
    "A run of gpe segment train, or a file: torchvision's weights or the authors' checkpoint."
)

SEGMENT, CLASSIFY = "With --task segment", "With --task classify"

Checkpoint = Annotated[str, typer.Argument(help=CHECKPOINT)]
Trained = Annotated[
    str | None, typer.Argument(help=CHECKPOINT + " Without one, a network is trained first.")
]
Preset = Annotated[str, option("Of that training: quick, camvid or cityscapes.")]
Images = Annotated[int | None, option("At most so many.", show_default="all, as in its tests")]
Modes = Annotated[
    str,
    option("overall, left, right, kernel_flip_mirror, kernel_flip_pair or random; several."),
]
Boxes = Annotated[
    str | None,
    option(
        "CityPersons' anno_val.mat, for left and right.",
        show_default="images with people on that side alone, by their labels",
    ),
]
Person = Annotated[str | None, option("The class of people.", show_default="person or pedestrian")]
RandomSeeds = Annotated[int | None, option("Random orders to compare with.", show_default="5")]
Counts = Annotated[
    str | None, option("How many channels to remove.", show_default="all twentieths")
]
Engine = Annotated[str, option("auto, incremental or general.")]
BatchSize = Annotated[int | None, option("Images a batch.", show_default="as in its tests, or 1")]
Seed = Annotated[int, option("Of the random orders.")]


def rank(
    checkpoint: Checkpoint,
    modes: Modes = "overall",
    layer: Annotated[str, option("Whose channels are ranked.")] = "backbone.layer4",
    data: common.PixelData = None,
    split: common.Split = None,
    size: common.Size = None,
    images: Images = None,
    output_stride: common.OutputStride = None,
    boxes: Boxes = None,
    person: Person = None,
    batch_size: BatchSize = None,
    seed: Seed = 0,
    device: common.Device = "auto",
    precision: common.Precision = "fp32",
    workers: common.Workers = None,
    root: common.Root = Path("data"),
    out: common.Out = Path("runs"),
    force: common.Force = False,
    as_json: common.AsJson = False,
) -> None:
    """Rank the channels of a layer by how much position they hold (Equations 2 and 3)."""
    _run("rank", **locals())


def ablate(
    checkpoints: Annotated[
        list[str],
        typer.Argument(
            help=CHECKPOINT + " To classify: runs of gpe augshift, or classifiers of torchvision "
            "or timm: resnet18, timm/resnet50.a1_in1k. Several are told of side by side."
        ),
    ],
    task: Annotated[str, option("segment or classify.")] = "segment",
    modes: Modes = "overall",
    rankings: Annotated[
        str | None,
        option("Files that gpe rank left, or the paper's JSON, as FILE or NAME=FILE; not --modes."),
    ] = None,
    random_seeds: RandomSeeds = None,
    counts: Counts = None,
    ranges: Annotated[
        bool, option("Remove each twentieth of a ranking by itself, too.", "--ranges/--no-ranges")
    ] = True,
    regions: Annotated[
        str | None,
        option("Of full, left, centre and right.", show_default="all", rich_help_panel=SEGMENT),
    ] = None,
    engine: Annotated[
        str | None,
        option("auto, incremental or general.", show_default="auto", rich_help_panel=SEGMENT),
    ] = None,
    layer: Annotated[
        str | None,
        option(
            "Whose channels are ranked and removed.",
            show_default="backbone.layer4",
            rich_help_panel=SEGMENT,
        ),
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
        option(
            "A file of weights, or random.",
            show_default="the library's, downloaded",
            rich_help_panel=CLASSIFY,
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        option(
            "What the network sees, in pixels.",
            show_default="the model's",
            rich_help_panel=CLASSIFY,
        ),
    ] = None,
    resize_size: Annotated[
        int | None,
        option(
            "Of the shorter side before, in pixels.",
            show_default="the model's",
            rich_help_panel=CLASSIFY,
        ),
    ] = None,
    download: Annotated[
        bool, option("Fetch CIFAR into --root.", "--download", rich_help_panel=CLASSIFY)
    ] = False,
    split: common.Split = None,
    size: common.Size = None,
    images: Images = None,
    output_stride: common.OutputStride = None,
    boxes: Boxes = None,
    person: Person = None,
    batch_size: BatchSize = None,
    seed: Seed = 0,
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
    options = locals()
    expect_one_of("task", options.pop("task"), ("segment", "classify"))
    expect_none = _CLASSIFY if task == "segment" else _SEGMENT
    for name in expect_none:
        if options[name]:
            raise InputError(f"{name}: expected none with --task {task}, got {options[name]}")
        del options[name]
    checkpoints = options.pop("checkpoints")
    if task == "classify":
        _classify(checkpoints, **options)
    else:
        _run("ablate", checkpoints, **options)


def figure4(
    checkpoint: Trained = None,
    preset: Preset = "quick",
    random_seeds: RandomSeeds = None,
    engine: Engine = "auto",
    data: common.PixelData = None,
    images: Images = None,
    batch_size: BatchSize = None,
    device: common.Device = "auto",
    precision: common.Precision = "fp32",
    workers: common.Workers = None,
    root: common.Root = Path("data"),
    out: common.Out = Path("runs"),
    force: common.Force = False,
    as_json: common.AsJson = False,
) -> None:
    """Figure 4: mIoU without the first N channels, and without a range of them, by region.

    Ranked by Equation 2 (Normal), by Kernel-Flip* and Kernel-Flip**, beside random orders.
    """
    _run("figure4", **locals())


def figure5(
    checkpoint: Trained = None,
    preset: Preset = "quick",
    counts: Counts = None,
    data: common.PixelData = None,
    images: Images = None,
    batch_size: BatchSize = None,
    device: common.Device = "auto",
    precision: common.Precision = "fp32",
    workers: common.Workers = None,
    root: common.Root = Path("data"),
    out: common.Out = Path("runs"),
    force: common.Force = False,
    as_json: common.AsJson = False,
) -> None:
    """Figure 5: what the network sees without N position channels and without N random ones."""
    _run("figure5", **locals())


def figure6(
    checkpoint: Trained = None,
    preset: Preset = "quick",
    boxes: Boxes = None,
    person: Person = None,
    random_seeds: RandomSeeds = None,
    engine: Engine = "auto",
    data: common.PixelData = None,
    images: Images = None,
    batch_size: BatchSize = None,
    device: common.Device = "auto",
    precision: common.Precision = "fp32",
    workers: common.Workers = None,
    root: common.Root = Path("data"),
    out: common.Out = Path("runs"),
    force: common.Force = False,
    as_json: common.AsJson = False,
) -> None:
    """Figures 6, S3 and S4: each half without the channels of the left, the right, or any."""
    _run("figure6", **locals())


def _run(
    job: str,
    checkpoint: str | Sequence[str] | None,
    *,
    device: str,
    workers: int | None,
    root: Path,
    out: Path,
    force: bool,
    as_json: bool,
    preset: str = "quick",
    **options: Any,
) -> None:
    """Options of several values are still text."""
    from gpe.experiments.processes import is_first, processes
    from gpe.experiments.targeting import run

    device, console = choose_device(device), Console(stderr=True)
    places = {"root": root, "workers": workers, "out": out}
    _parse(options)
    if checkpoint is None:
        checkpoint = _train(preset, device, options["precision"], places, console)
    checkpoints = [checkpoint] if isinstance(checkpoint, str) else checkpoint
    directories = []
    with processes():
        for one in checkpoints:
            with console.status(f"{job}: {one}"):
                directories.append(run(job, one, device=device, force=force, **options, **places))
        first = is_first()
    if first:
        print_runs(directories, out, as_json)


def _classify(
    models: Sequence[str],
    *,
    device: str,
    workers: int | None,
    root: Path,
    download: bool,
    out: Path,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Options of several values are still text."""
    from gpe.experiments.classification import ClassificationConfig, ablate

    if options["data"] is None:
        raise InputError("data: expected one with --task classify, got none")
    _parse(options)
    given = {name: value for name, value in options.items() if value is not None}
    configs = [
        ClassificationConfig(model, device=choose_device(device), **given) for model in models
    ]
    places = {"root": root, "download": download, "workers": workers, "force": force}
    console, directories = Console(stderr=True), []
    for config in configs:
        with console.status(f"ablate: {config.model} on {config.data}"):
            directories.append(ablate(config, out, **places))
    print_runs(directories, out, as_json)


def _parse(options: dict[str, Any]) -> None:
    """Text of several values to these; rankings from files replace modes."""
    for name, kind in _SEVERAL.items():
        if options.get(name) is not None:
            options[name] = values(name, options[name], kind)
    if options.get("rankings"):
        options["modes"] = ()


# Options of gpe ablate that one of its tasks alone has.
_SEGMENT = ("regions", "engine", "layer", "split", "size", "output_stride", "boxes", "person")
_CLASSIFY = ("weights", "image_size", "resize_size", "download")
_SEVERAL = {"modes": str, "rankings": str, "regions": str, "counts": int, "size": int}


def _train(
    preset: str, device: str, precision: str, places: dict[str, Any], console: Console
) -> str:
    """The directory of the preset's network, which is trained unless it was before.

    Raises:
        InputError: torchrun started several processes, and training is one.
    """
    from gpe.experiments.progress import Progress
    from gpe.experiments.segmentation import run
    from gpe.experiments.segmentation_config import SegmentationConfig

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("checkpoint: expected one among several processes: training runs in one")
    config = SegmentationConfig.of_preset(preset, device=device, precision=precision)
    (directory,) = run([config], progress=Progress(console), resume=True, **places)
    return str(directory)
