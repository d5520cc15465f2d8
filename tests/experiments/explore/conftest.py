"""Pages about tiny networks: one that segments, one that classifies."""

from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from gpe.experiments.explore.config import ExploreConfig
from gpe.experiments.explore.run import run
from tests.experiments import tiny, tiny_segments
from tests.experiments.tiny import launch


class Explored(NamedTuple):
    network: Path
    directory: Path


def explore(out, model, **options):
    """The directory of one record."""
    chosen = {"counts": (0, 4, 16), "alone": 5, "device": "cpu", "random_seeds": 1} | options
    ((directory,), _) = launch(run, out, *ExploreConfig.several(model=str(model), **chosen))
    return directory


@pytest.fixture(scope="session")
def segmenter(tmp_path_factory):
    torch.set_num_threads(1)
    # So far trained that it sees several classes.
    config = tiny_segments.config(epochs=6, train_images=64)
    ((network,), _) = tiny_segments.train(tmp_path_factory.mktemp("seg"), config)
    out = tmp_path_factory.mktemp("explored")
    return Explored(network, explore(out, network, images=5, samples=2))


@pytest.fixture(scope="session")
def classifier(tmp_path_factory):
    torch.set_num_threads(1)
    ((network,), _) = tiny.train(tmp_path_factory.mktemp("class"), tiny.config())
    out = tmp_path_factory.mktemp("explored")
    return Explored(network, explore(out, network, images=20, samples=3))
