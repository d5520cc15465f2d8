"""Segmentation runs of a second, for tests."""

from gpe.experiments.segmentation.config import SegmentationConfig
from gpe.experiments.segmentation.run import run
from tests.experiments.tiny import launch

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
    return SegmentationConfig.of(preset=preset, **TINY | options)


def train(out, *configs, **places):
    return launch(run, out, *configs, **places)
