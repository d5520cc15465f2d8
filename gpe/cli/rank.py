"""``gpe rank``."""

from pathlib import Path
from typing import Annotated

import typer

from gpe.cli import common, targeting
from gpe.cli.options import divide, option


def command(
    checkpoint: Annotated[str, typer.Argument(help=targeting.CHECKPOINT)],
    modes: targeting.Modes = "overall",
    layer: Annotated[str, option("Whose channels are ranked.")] = "backbone.layer4",
    data: common.PixelData = None,
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
    """Rank the channels of a layer by how much position they hold (Equations 2 and 3)."""
    options, places = divide(locals(), "checkpoint")
    targeting.parse(options)
    targeting.run("rank", [checkpoint], options, places, as_json)
