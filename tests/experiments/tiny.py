"""What the tests of experiments share; and AugShift runs of a second."""

import io
import json
from pathlib import Path

import torch
from rich.console import Console

from gpe.experiments.augshift.config import AugShiftConfig
from gpe.experiments.augshift.run import run
from gpe.experiments.options import Places
from gpe.experiments.progress import Progress
from gpe.experiments.runs import CHECKPOINT
from gpe.records import RECORD

TINY = {
    "data": "digits",
    "device": "cpu",
    "stem": "cifar",
    "image_size": 10,
    "width": 4,
    "epochs": 2,
    "train_images": 60,
    "test_images": 40,
    "epoch_images": 60,
    "batch_size": 16,
    "test_batch_size": 16,
    "learning_rate": 0.05,
    "weight": 2.0,
    "shifts": (1, 3),
    "passes": 2,
}


def config(method="augshift", preset="quick", **options):
    return AugShiftConfig.of(preset=preset, method=method, **TINY | options)


def train(out, *configs, **places):
    return launch(run, out, *configs, **places)


def launch(run, out, *configs, **places):
    """The directories of the configurations, run below ``out``, and what was shown meanwhile."""
    console = Console(file=io.StringIO())
    directories = run(configs, Places(out=out, **{"workers": 0} | places), Progress(console))
    return directories, console.file.getvalue()


def told(config):
    """What a record keeps of a configuration, but for what names the weights by their content."""
    return {name: value for name, value in config.items() if not name.endswith("digest")}


def runs(below="runs"):
    return [file.parent for file in Path(below).rglob(RECORD)]


def outside_run(directory):
    record = json.loads((directory / RECORD).read_text())
    return {name: value for name, value in record.items() if name != "run"}


def weights(directory):
    return torch.load(directory / CHECKPOINT, weights_only=True)["trial"]["model"]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def probabilities(opened, images):
    """What a network of an OpenedModel says of uint8 images."""
    mean, std = (torch.tensor(v)[:, None, None] for v in (opened.mean, opened.std))
    with torch.no_grad():
        return opened.model((images / 255 - mean) / std).softmax(1)


def unshifted(arrays):
    """The probabilities of images that did not move, of the arrays beside a record."""
    (middle,) = (arrays["shifts"] == 0).nonzero()[0].tolist()
    return arrays["probabilities"][:, middle]
