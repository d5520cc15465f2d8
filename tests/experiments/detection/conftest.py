"""One detector that has learned a little, for all tests."""

import pytest

from tests.experiments.tiny_detectors import config, remove, train


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """Of the smallest network and recipe that find some pedestrians."""
    learning = {"train_images": 100, "epochs": 5, "learning_rate": 1e-2, "warmup": 5}
    ((directory,), _) = train(tmp_path_factory.mktemp("detectors"), config(**learning))
    return directory


@pytest.fixture(scope="session")
def removed(finished, tmp_path_factory):
    directory, _ = remove(tmp_path_factory.mktemp("removed"), str(finished))
    return directory
