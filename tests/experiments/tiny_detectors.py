"""Detection runs of seconds, for tests."""

from gpe.experiments.detection.config import AblationConfig, DetectionConfig
from gpe.experiments.detection.run import ablate, run
from tests.experiments.tiny import launch

TINY = {
    "device": "cpu",
    "width": 4,
    "neck_width": 4,
    "head_width": 8,
    "proposals": 10,
    "size": (64, 128),
    "train_images": 5,
    "test_images": 12,
    "epochs": 2,
    "batch_size": 2,
    "test_batch_size": 5,
    "warmup": 2,
    # Untrained, all scores are low.
    "least_score": 0.0,
}


def config(preset="quick", **options):
    return DetectionConfig.of(preset=preset, **TINY | options)


def train(out, *configs, **places):
    return launch(run, out, *configs, **places)


def remove(out, checkpoint, job="table-s1", **options):
    """The directory of one removal, and what was shown."""
    options = {"random_seeds": 2, "counts": (2, 5), "device": "cpu"} | options
    places = {name: options.pop(name) for name in ("root", "force") if name in options}
    (chosen,) = AblationConfig.several(checkpoint=[checkpoint], job=job, **options)
    ((directory,), text) = launch(ablate, out, chosen, **places)
    return directory, text
