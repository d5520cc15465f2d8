"""Segmentation runs of a second, for tests."""

import io

from rich.console import Console

from gpe.experiments.progress import Progress
from gpe.experiments.segmentation import run
from gpe.experiments.segmentation_config import SegmentationConfig

TINY = {
    "device": "cpu",
    "width": 4,
    "size": (32, 64),
    "train_images": 9,
    "test_images": 5,
    "epochs": 2,
    "batch_size": 4,
    "test_batch_size": 2,
}


def config(preset="quick", **options):
    return SegmentationConfig.of_preset(preset, **TINY | options)


def train(out, *configs, **options):
    """The directories of the configurations, run below ``out``, and what was shown meanwhile."""
    console = Console(file=io.StringIO())
    settings = {"workers": 0} | options
    directories = run(configs, out, progress=Progress(console), **settings)
    return directories, console.file.getvalue()
