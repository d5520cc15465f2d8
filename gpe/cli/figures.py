"""``gpe figure4``, ``gpe figure5`` and ``gpe figure6``."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from gpe.cli import common, targeting
from gpe.cli.options import divide, option
from gpe.errors import InputError

Checkpoint = Annotated[
    str | None,
    typer.Argument(help=targeting.CHECKPOINT + " Without one, a network is trained first."),
]
Preset = Annotated[str, option("Of that training: quick, camvid or cityscapes.")]
Engine = Annotated[str, option("auto, incremental or general.")]


def figure4(
    checkpoint: Checkpoint = None,
    preset: Preset = "quick",
    random_seeds: targeting.RandomSeeds = None,
    engine: Engine = "auto",
    data: common.PixelData = None,
    images: targeting.Images = None,
    batch_size: targeting.BatchSize = None,
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
    checkpoint: Checkpoint = None,
    preset: Preset = "quick",
    counts: targeting.Counts = None,
    data: common.PixelData = None,
    images: targeting.Images = None,
    batch_size: targeting.BatchSize = None,
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
    checkpoint: Checkpoint = None,
    preset: Preset = "quick",
    boxes: targeting.Boxes = None,
    person: targeting.Person = None,
    random_seeds: targeting.RandomSeeds = None,
    engine: Engine = "auto",
    data: common.PixelData = None,
    images: targeting.Images = None,
    batch_size: targeting.BatchSize = None,
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


def _run(job: str, checkpoint: str | None, preset: str, *, as_json: bool, **arguments: Any) -> None:
    options, places = divide(arguments)
    targeting.parse(options)
    if checkpoint is None:
        checkpoint = _train(preset, options["device"], options["precision"], places)
    targeting.run(job, [checkpoint], options, places, as_json)


def _train(preset: str, device: str, precision: str, places: dict[str, Any]) -> str:
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
    once = places | {"resume": True, "force": False}  # --force is of the figure alone
    (directory,) = run([config], progress=Progress(Console(stderr=True)), **once)
    return str(directory)
